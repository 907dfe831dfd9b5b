"""What follows a finished batch: outbox ticks, and the web logs of dead letters and settled tasks.

Runs after the queue has answered, so it tells only what is so. It is best effort by design: a store that
fails here is logged, and nothing of the messages depends on it (an unticked row is found by the
housekeeper; statuses stand in the queue).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from memos import log
from memos.errors import MemosError
from memos.mem_scheduler.current import BatchRun
from memos.mem_scheduler.queues.base import Batch, Delivery, Settled, TaskQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.utils.status_tracker import business_state
from memos.mem_scheduler.web_log import LogSink, shortened, task_status_log
from memos.memory.store import Cause, MemoryStore

logger = log.get_logger(__name__)

CLOSED_TASKS_MAX = 10_000
FINAL = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})


class Settlement:
    """The aftermath of batches. Thread-safe."""

    def __init__(self, store: MemoryStore, queue: TaskQueue, sink: LogSink) -> None:
        self._store = store
        self._queue = queue
        self._sink = sink
        self._lock = threading.Lock()
        self._closed: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __call__(self, batch: Batch, run: BatchRun, settled: Sequence[Settled]) -> None:
        pairs = list(zip(batch.deliveries, settled, strict=True))
        self._tick([delivery for delivery, one in pairs if one.state in FINAL], run)
        dead = [(delivery, one) for delivery, one in pairs if one.state is TaskState.FAILED]
        for delivery, one in dead:
            self._tell(delivery.message, _dead_letter_log(delivery, one))
        for message in self._tasks_of(delivery.message for delivery, one in pairs if one.state in FINAL):
            self._close_task(message)

    def _tick(self, deliveries: Sequence[Delivery], run: BatchRun) -> None:
        """A followup that ran outside `apply_once` (a user's handler, a dead letter) leaves the outbox."""
        applied = run.applied()
        keys = [one.key for one in deliveries if one.parent_key and one.key not in applied]
        if not keys:
            return
        try:
            self._store.tick(keys)
        except MemosError as error:
            logger.warning("outbox.tick_failed", messages=len(keys), error=type(error).__name__)

    @staticmethod
    def _tasks_of(messages: Iterable[ScheduleMessageItem]) -> list[ScheduleMessageItem]:
        """One message of each business task."""
        return list({(one.user_id, one.task_id): one for one in messages if one.task_id}.values())

    def _close_task(self, message: ScheduleMessageItem) -> None:
        """Tell, once, that all messages of the message's business task are settled."""
        task = message.task_id or ""
        statuses = self._queue.statuses(user_id=message.user_id, task_id=task)
        if not statuses or any(status.state not in FINAL for status in statuses):
            return
        with self._lock:
            if self._closed.get((message.user_id, task)) == len(statuses):
                return
            self._closed[(message.user_id, task)] = len(statuses)
            while len(self._closed) > CLOSED_TASKS_MAX:
                self._closed.popitem(last=False)
        state = business_state([status.state for status in statuses])
        failed = [status for status in statuses if status.state is TaskState.FAILED]
        text = f"Task {task} {state}: {len(statuses)} message(s), {len(failed)} failed"
        self._tell(
            message,
            task_status_log(
                message,
                state=state,
                text=text,
                details=[
                    {"item_id": one.item_id, "label": one.label, "state": str(one.state), "error": one.error}
                    for one in statuses
                ],
            ),
        )

    def _tell(self, message: ScheduleMessageItem, entry: ScheduleLogForWebItem) -> None:
        cause = Cause(
            message_key=message.redis_message_id,
            task_id=message.task_id or "",
            label=message.label,
            trace_id=message.trace_id,
            user_id=message.user_id,
        )
        try:
            self._store.apply([], cause=cause, logs=[entry])
        except MemosError as error:
            logger.warning("web_log.not_stored", label=entry.label, error=type(error).__name__)
        self._sink.emit([entry])


def _dead_letter_log(delivery: Delivery, settled: Settled) -> ScheduleLogForWebItem:
    message = delivery.message
    return task_status_log(
        message,
        state=TaskState.FAILED,
        text=f"{message.label} given up after {delivery.attempts + 1} attempt(s): {shortened(settled.error)}",
        details=[
            {
                "item_id": message.item_id,
                "message_key": delivery.key,
                "label": message.label,
                "attempts": delivery.attempts + 1,
                "recoveries": delivery.recoveries,
                "error": settled.error,
            }
        ],
    )
