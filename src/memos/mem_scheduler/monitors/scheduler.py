"""The documented `monitor` of a scheduler: intent, activity and tasks in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from memos.mem_scheduler.model_steps.intent import judged
from memos.mem_scheduler.monitors.activity import ActivityMonitor
from memos.mem_scheduler.monitors.intent import Intent, IntentMonitor
from memos.mem_scheduler.monitors.tasks import TaskMonitor
from memos.memory.item import MemoryItem

if TYPE_CHECKING:
    from memos.models.base import LLM


@dataclass(frozen=True, slots=True)
class SchedulerMonitor:
    """What the scheduler watches."""

    intent: IntentMonitor
    activity: ActivityMonitor
    tasks: TaskMonitor
    llm: LLM | None = None  # asked where rules are in doubt

    def detect_intent(self, query: str, working: Sequence[MemoryItem]) -> Intent:
        """Whether working memory suffices for the query, and what is missing if not."""
        by_rules = self.intent.detect_intent(query, working)
        return judged(self.llm, query, working, by_rules, today=datetime.now(UTC))
