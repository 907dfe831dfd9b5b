"""`ScheduleTaskQueue`: the documented `memos_message_queue`, a thin face over any `TaskQueue`.

Messages that are submitted here take the same path as `scheduler.submit_messages`. `get_messages` and
`ack_message` are for programs that consume by hand: what they take is leased, like any batch, and comes
back when it is not acknowledged within its lease. A batch is settled when its last message is
acknowledged, so acknowledge all that `get_messages` returned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from memos.errors import InvalidInput, LeaseLost
from memos.mem_scheduler.orchestrator import SchedulerOrchestrator
from memos.mem_scheduler.queues.base import Batch, Done, TaskQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, validate_message

Messages = ScheduleMessageItem | Sequence[ScheduleMessageItem]


class ScheduleTaskQueue:
    """Thread-safe."""

    def __init__(
        self,
        queue: TaskQueue,
        *,
        submit: Callable[[list[ScheduleMessageItem]], object] | None = None,
        orchestrator: SchedulerOrchestrator | None = None,
    ) -> None:
        """`submit` is the scheduler's own way in; without it messages are validated and queued here."""
        self.orchestrator = orchestrator or SchedulerOrchestrator(queue.policies)
        self._queue = queue
        self._submit = submit or self._submit_directly
        self._lock = threading.Lock()
        self._taken: dict[str, _Taken] = {}  # by message key; bounded by what is leased

    @property
    def maxsize(self) -> int:
        """How many messages the whole queue may hold."""
        return self._queue.messages_max

    def submit_messages(self, messages: Messages) -> None:
        """Queue one message or several, all or none. Raises InvalidInput, QueueFull, QueueUnavailable."""
        self._submit([messages] if isinstance(messages, ScheduleMessageItem) else list(messages))

    def get_messages(self, batch_size: int = 1) -> list[ScheduleMessageItem]:
        """Take up to `batch_size` waiting messages of any label, without waiting for more."""
        if batch_size < 1:
            raise InvalidInput(f"batch_size must be at least 1, not {batch_size!r}")
        labels = {
            label
            for lane in self._queue.depth().lanes
            for counts in (lane.queued, lane.delayed, lane.parked, lane.running)  # running: lost leases
            for label in counts
        }
        self._forget_lost()
        messages: list[ScheduleMessageItem] = []
        while labels and len(messages) < batch_size:
            room = batch_size - len(messages)
            batches = self._queue.claim(labels, lanes_max=1, batch_max=room, timeout_s=0)
            if not batches:
                break
            for batch in batches:
                taken = _Taken(batch)
                with self._lock:
                    self._taken.update({delivery.key: taken for delivery in batch.deliveries})
                messages += [delivery.message for delivery in batch.deliveries]
        return messages

    def ack_message(
        self,
        user_id: str = "",
        mem_cube_id: str = "",
        task_label: str = "",
        redis_message_id: str = "",
        message: ScheduleMessageItem | None = None,
    ) -> None:
        """The message is handled. It is named by `redis_message_id`, or by the message itself.

        Raises LeaseLost when it was not taken by `get_messages` here, or not in time: it may run again.
        """
        key = redis_message_id or (message.redis_message_id if message is not None else "")
        if not key:
            raise InvalidInput("ack_message needs the redis_message_id of the message, or the message")
        with self._lock:
            taken = self._taken.get(key)
            if taken is None:
                raise LeaseLost(f"message {key} is not held by this consumer: it may run again elsewhere")
            taken.open.discard(key)
            if taken.open:
                return
            for delivery in taken.batch.deliveries:
                self._taken.pop(delivery.key, None)
        self._queue.finish(taken.batch, [Done()] * len(taken.batch.deliveries))

    def qsize(self) -> dict[str, int]:
        """Waiting messages by stream, and all of them as `total_size`."""
        depth = self._queue.depth()
        sizes = {
            str(lane.lane): sum(sum(counts.values()) for counts in (lane.queued, lane.delayed, lane.parked))
            for lane in depth.lanes
        }
        return {**{name: size for name, size in sizes.items() if size}, "total_size": depth.remaining}

    def get_stream_keys(self) -> list[str]:
        """The streams that hold messages, waiting or running."""
        return sorted(str(lane.lane) for lane in self._queue.depth().lanes)

    @property
    def unfinished_tasks(self) -> int:
        """Messages that wait or run."""
        depth = self._queue.depth(lanes=False)
        return depth.remaining + depth.running

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.depth(lanes=False).remaining == 0

    def full(self) -> bool:
        """Whether the next submit of one message would be refused for the whole queue's bound."""
        return self.unfinished_tasks >= self.maxsize

    def clear(self) -> int:
        """Drop what waits and fence what runs; all of it is marked cancelled. Returns how many."""
        with self._lock:
            self._taken.clear()
        return self._queue.clear()

    def _submit_directly(self, messages: list[ScheduleMessageItem]) -> list[str]:
        return self._queue.submit([validate_message(message) for message in messages])

    def _forget_lost(self) -> None:
        """Let go of batches that were never acknowledged and whose lease is gone."""
        with self._lock:
            held = list({id(taken): taken for taken in self._taken.values()}.values())
        live = self._queue.live([taken.batch.deliveries[0].key for taken in held])
        with self._lock:
            for taken in held:
                if taken.batch.deliveries[0].key not in live:
                    for delivery in taken.batch.deliveries:
                        self._taken.pop(delivery.key, None)


class _Taken:
    """A batch taken by hand, and the keys in it that are not acknowledged yet."""

    __slots__ = ("batch", "open")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.open = {delivery.key for delivery in batch.deliveries}
