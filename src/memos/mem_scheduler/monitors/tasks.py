"""What the scheduler is running and has run: counters by label, and one record per running call.

In memory, bounded by the labels in use and the size of the pool; the queue's own depth and statuses are
the truth about messages, this is about calls of handlers in this process. What is counted here goes into
the process's metrics too.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from memos import metrics
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import RunningTaskItem, TaskState

LABELS_MAX = 1_000
OTHER_LABELS = "(other)"


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Counted since the scheduler was made."""

    completed: int = 0
    retried: int = 0
    dead: int = 0
    released: int = 0
    lease_lost: int = 0
    timed_out: int = 0
    running_s: float = 0.0  # time spent in handlers, all threads together


class TaskMonitor:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, LabelCounts] = defaultdict(LabelCounts)
        self._running: dict[str, RunningTaskItem] = {}

    def begin(self, label: str, messages: Sequence[ScheduleMessageItem], at: datetime) -> RunningTaskItem:
        """A handler is about to be called with `messages`, all of one user and cube."""
        task = RunningTaskItem(
            user_id=messages[0].user_id,
            mem_cube_id=messages[0].mem_cube_id,
            task_info=f"{len(messages)} message(s) of label {label}",
            task_name=f"{label}_handler",
            start_time=at,
            messages=list(messages),
        )
        with self._lock:
            self._running[task.item_id] = task
        return task

    def end(self, task: RunningTaskItem, label: str, at: datetime, *, error: str | None) -> None:
        """The call returned (`error` None) or raised."""
        task.end_time = at
        task.status = "completed" if error is None else "failed"
        task.error_message = error
        ran_s = task.duration_seconds or 0.0
        metrics.TASK_RUNNING_SECONDS.observe(ran_s, label=label, outcome="ok" if error is None else "failed")
        with self._lock:
            self._running.pop(task.item_id, None)
            counts = self._of(label)
            self._put(label, replace(counts, running_s=counts.running_s + ran_s))

    def settled(self, label: str, state: TaskState, number: int = 1) -> None:
        """The queue said what became of a message, or of so many alike."""
        metrics.TASKS_SETTLED.add(number, label=label, state=str(state))
        if state is TaskState.RETRYING:
            metrics.TASK_RETRIES.add(number, label=label)
        elif state is TaskState.FAILED:
            metrics.TASKS_DEAD.add(number, label=label)
        with self._lock:
            counts = self._of(label)
            if state is TaskState.COMPLETED:
                counts = replace(counts, completed=counts.completed + number)
            elif state is TaskState.RETRYING:
                counts = replace(counts, retried=counts.retried + number)
            elif state is TaskState.FAILED:
                counts = replace(counts, dead=counts.dead + number)
            else:
                counts = replace(counts, released=counts.released + number)
            self._put(label, counts)

    def lease_lost(self, label: str) -> None:
        """The result of a message's run was refused: another worker may have it."""
        metrics.LEASE_LOSSES.add(label=label)
        with self._lock:
            counts = self._of(label)
            self._put(label, replace(counts, lease_lost=counts.lease_lost + 1))

    def timed_out(self, label: str) -> None:
        """A message runs longer than its policy allows."""
        metrics.TASK_TIMEOUTS.add(label=label)
        with self._lock:
            counts = self._of(label)
            self._put(label, replace(counts, timed_out=counts.timed_out + 1))

    def counts(self) -> dict[str, LabelCounts]:
        """Counters by label."""
        with self._lock:
            return dict(self._counts)

    def running(self) -> dict[str, RunningTaskItem]:
        """Calls that have not returned, by their id."""
        with self._lock:
            return dict(self._running)

    def _name(self, label: str) -> str:
        return label if label in self._counts or len(self._counts) < LABELS_MAX else OTHER_LABELS

    def _of(self, label: str) -> LabelCounts:
        return self._counts[self._name(label)]

    def _put(self, label: str, counts: LabelCounts) -> None:
        self._counts[self._name(label)] = counts
