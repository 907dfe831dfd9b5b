"""What follows a settled message: outbox ticks, and the web logs of dead letters and settled tasks.

Runs after the queue has answered, so it tells only what is so. It is best effort by design: a store that
fails here is logged, and nothing of the messages depends on it (an unticked row is found by the
housekeeper; statuses stand in the queue).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from memos import log
from memos.errors import MemosError
from memos.mem_scheduler.current import BatchRun
from memos.mem_scheduler.handlers.context import cause_of
from memos.mem_scheduler.queues.base import Batch, DeadLetter, Settled, TaskQueue
from memos.mem_scheduler.schemas.keys import is_before
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.utils.status_tracker import business_state
from memos.mem_scheduler.web_log import CubeFacts, LogSink, shortened, task_status_log
from memos.memory.store import ErasingStore, MemoryStore

logger = log.get_logger(__name__)

CLOSED_TASKS_MAX = 10_000  # tasks that were told of, remembered so that each is told once
BURIED_MAX = 20_000  # dead letters that were told of
DETAILS_MAX = 1_000  # messages listed in one log
FINAL = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})


class Settlement:
    """The aftermath of batches. Thread-safe."""

    def __init__(self, store: MemoryStore, queue: TaskQueue, sink: LogSink) -> None:
        self._store = store
        self._queue = queue
        self._sink = sink
        self._lock = threading.Lock()
        self._closed: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._buried: OrderedDict[str, None] = OrderedDict()

    def __call__(self, batch: Batch, run: BatchRun, settled: Sequence[Settled]) -> None:
        """The queue answered for a batch that ran here."""
        ended = [
            (delivery, one)
            for delivery, one in zip(batch.deliveries, settled, strict=True)
            if one.state in FINAL
        ]
        if not ended:
            return
        try:
            applied = run.applied()
            self._tick([one.key for one, _ in ended if one.parent_key and one.key not in applied])
            self._tick([older.redis_message_id for one, _ in ended for older in one.absorbed])
            for delivery, one in ended:
                if one.state is TaskState.FAILED:
                    self._bury(delivery.key, delivery.message, delivery.attempts + 1, 0, one.error)
            for message in self._tasks_of(delivery.message for delivery, _ in ended):
                self._close_task(message)
        except MemosError as error:
            logger.warning("settlement.failed", lane=str(batch.lane), error=type(error).__name__)

    def cancelled(self, messages: Sequence[ScheduleMessageItem]) -> None:
        """These messages were taken out of the queue: their rows leave the outbox, their tasks may end."""
        try:
            self._tick([message.redis_message_id for message in messages])
            for message in self._tasks_of(messages):
                self._close_task(message)
        except MemosError as error:
            logger.warning("settlement.failed", messages=len(messages), error=type(error).__name__)

    def tell_letters(self, letters: Sequence[DeadLetter]) -> int:
        """Tell of dead letters that no batch told of: those that the queue itself gave up because their
        workers died. Returns how many were new."""
        with self._lock:
            new = [letter for letter in letters if letter.key not in self._buried]
        self._tick([letter.key for letter in new if letter.parent_key])
        for one in new:
            self._bury(one.key, one.message, one.attempts, one.recoveries, one.error)
        for message in self._tasks_of(one.message for one in new):
            self._close_task(message)
        return len(new)

    def _bury(
        self, key: str, message: ScheduleMessageItem, attempts: int, recoveries: int, error: str
    ) -> None:
        with self._lock:
            self._buried[key] = None
            while len(self._buried) > BURIED_MAX:
                self._buried.popitem(last=False)
        text = f"{message.label} given up after {attempts} attempt(s): {shortened(error)}"
        details = {
            "item_id": message.item_id,
            "message_key": key,
            "label": message.label,
            "attempts": attempts,
            "recoveries": recoveries,
            "error": error,
        }
        self._tell(message, TaskState.FAILED, text, [details])

    def _tick(self, keys: Sequence[str]) -> None:
        """Followups that ran outside `apply_once` (a user's handler, a dead letter) leave the outbox."""
        if keys:
            self._store.tick(keys)

    @staticmethod
    def _tasks_of(messages: Iterable[ScheduleMessageItem]) -> list[ScheduleMessageItem]:
        """One message of each business task."""
        return list({(one.user_id, one.task_id): one for one in messages if one.task_id}.values())

    def _close_task(self, message: ScheduleMessageItem) -> None:
        """Tell, once, that all messages of the message's business task are settled."""
        task = message.task_id or ""
        # The newest message of a task is usually the last to end: one look at it mostly suffices.
        newest = self._queue.statuses(user_id=message.user_id, task_id=task, limit=1)
        if not newest or newest[0].state not in FINAL:
            return
        statuses = self._queue.statuses(user_id=message.user_id, task_id=task)
        if any(status.state not in FINAL for status in statuses):
            return
        with self._lock:
            if self._closed.get((message.user_id, task)) == len(statuses):
                return
            self._closed[(message.user_id, task)] = len(statuses)
            while len(self._closed) > CLOSED_TASKS_MAX:
                self._closed.popitem(last=False)
        state = business_state([status.state for status in statuses])
        failed = sum(status.state is TaskState.FAILED for status in statuses)
        details = [
            {"item_id": one.item_id, "label": one.label, "state": str(one.state), "error": one.error}
            for one in statuses[:DETAILS_MAX]
        ]
        self._tell(
            message, state, f"Task {task} {state}: {len(statuses)} message(s), {failed} failed", details
        )

    def _tell(
        self, message: ScheduleMessageItem, state: TaskState, text: str, details: Sequence[dict[str, Any]]
    ) -> None:
        if isinstance(self._store, ErasingStore) and is_before(
            message.redis_message_id, self._store.erased_at(message.user_id)
        ):
            return
        facts = CubeFacts(self._store.sizes(message.mem_cube_id), self._store.capacities)
        entry = task_status_log(message, state=state, text=text, details=details, facts=facts)
        self._store.apply([], cause=cause_of(message), logs=[entry])
        self._sink.emit([entry])
