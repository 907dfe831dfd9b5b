"""The documented `monitor` of a scheduler: intent, activity and tasks in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memos.mem_scheduler.monitors.activity import ActivityMonitor
from memos.mem_scheduler.monitors.intent import Intent, IntentMonitor
from memos.mem_scheduler.monitors.tasks import TaskMonitor
from memos.memory.item import MemoryItem


@dataclass(frozen=True, slots=True)
class SchedulerMonitor:
    """What the scheduler watches."""

    intent: IntentMonitor
    activity: ActivityMonitor
    tasks: TaskMonitor

    def detect_intent(self, query: str, working: Sequence[MemoryItem]) -> Intent:
        """Whether working memory suffices for the query, and what is missing if not."""
        return self.intent.detect_intent(query, working)
