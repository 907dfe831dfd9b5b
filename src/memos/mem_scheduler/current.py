"""What this thread is running: the batch behind the context variables.

For authors of handlers, plain functions too:

    from memos.mem_scheduler import current

    def handler(messages):
        for message in messages:
            current.stop_if_cancelled()             # or: if current.cancelled(message): continue
            older = current.absorbed(message)       # coalescing labels: those it runs for as well

`BatchRun` is how a submit inside a handler finds its parent message, and where the effects of built-in
handlers leave the messages they chain, so that those ride in the `finish` of the batch. It knows no
queue: the dispatcher fills it and reads it.

Keys of chained messages are derived (`schemas.keys.child_key`), so that a repeated parent chains the
same children. The parent is the delivery whose `redis_message_id` the chained copy carries; where a
fresh message comes out of a call with several messages, the key depends on all of them: the same
handler over another batch must not produce the key of a different message.
"""

from __future__ import annotations

import contextvars
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memos import context, tracing
from memos.errors import LeaseLost, TaskCancelled
from memos.mem_scheduler.schemas.keys import child_key
from memos.mem_scheduler.schemas.message_schemas import TURN_ID, ScheduleMessageItem, info_text
from memos.memory.store import Followup

if TYPE_CHECKING:
    from memos.mem_scheduler.queues.base import Delivery


CANCEL_LOOK_S = 0.2


class BatchRun:
    """One batch while it runs. Thread-safe: a handler may hand its context to threads of its own."""

    def __init__(
        self,
        deliveries: Sequence[Delivery],
        *,
        asked_to_stop: Callable[[str], bool] = lambda key: False,
        monotonic: Callable[[], float] = time.monotonic,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """`asked_to_stop` looks up whether a message was cancelled, `is_over` whether the lease has run out."""
        self._is_over = is_over
        self._asked_to_stop = asked_to_stop
        self._monotonic = monotonic
        self._looked: dict[str, tuple[float, bool]] = {}  # key -> when it was looked up, what was said
        self._lock = threading.Lock()
        self._by_key = {delivery.key: delivery for delivery in deliveries}
        self._members: tuple[Delivery, ...] = tuple(deliveries)
        self._ordinals: Counter[tuple[str, str]] = Counter()
        self._followups: dict[str, Followup] = {}
        self._applied: set[str] = set()
        self._closed = False
        self.traceparent = ""  # of the call that runs
        self.store_away = False  # whether a call ended with that

    @property
    def closed(self) -> bool:
        """Whether the batch is settled; what a left-over thread submits then has no parent."""
        with self._lock:
            return self._closed

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def refuse_when_over(self) -> None:
        """LeaseLost when the lease of the batch has run out: somebody else may have done it all."""
        if self._is_over():
            raise LeaseLost(
                "the lease of this batch is over; its messages are run again, or were run elsewhere"
            )

    def begin(self, members: Sequence[Delivery]) -> None:
        """A call of a handler with `members` begins; their children are counted afresh."""
        with self._lock:
            self._members = tuple(members)
            self._ordinals.clear()

    def parent_key_of(self, key: str) -> str:
        """The parent of a delivered message, "" where it has none."""
        delivery = self._by_key.get(key)
        return delivery.parent_key if delivery is not None else ""

    def absorbed_by(self, key: str) -> tuple[ScheduleMessageItem, ...]:
        """The messages that a delivered one runs for as well, oldest first."""
        delivery = self._by_key.get(key)
        return delivery.absorbed if delivery is not None else ()

    def is_cancelled(self, key: str) -> bool:
        """Whether the message was asked to stop; looked up at most every CANCEL_LOOK_S seconds."""
        if key not in self._by_key:
            return False
        now = self._monotonic()
        looked_at, said = self._looked.get(key, (-CANCEL_LOOK_S, False))
        if not said and now - looked_at >= CANCEL_LOOK_S:
            said = self._asked_to_stop(key)
            self._looked[key] = (now, said)
        return said

    def all_cancelled(self) -> bool:
        """Whether all messages of the present call were asked to stop."""
        with self._lock:
            keys = [member.key for member in self._members]
        return bool(keys) and all(self.is_cancelled(key) for key in keys)

    def turns_of(self, query: str) -> frozenset[str]:
        """The chat turns that a search for `query` is part of.

        Those of the messages of the present call with this text, and where it is the text of none (the handler
        put it in other words), of all of them.
        """
        with self._lock:
            members = self._members
        running = [member.message for member in members]
        older = [message for member in members for message in member.absorbed]
        same = [message for message in [*running, *older] if message.content == query]
        return frozenset(filter(None, (info_text(message, TURN_ID) for message in same or running)))

    def enqueued_at_of(self, key: str) -> float | None:
        """When a delivered message was submitted (wall time); None where the queue does not know."""
        delivery = self._by_key.get(key)
        return delivery.enqueued_at if delivery is not None and delivery.enqueued_at else None

    def delivered(self, message: ScheduleMessageItem) -> bool:
        """Whether `message` is one of the batch's own, not a copy under another label."""
        delivery = self._by_key.get(message.redis_message_id)
        return delivery is not None and delivery.message.label == message.label

    def child(self, message: ScheduleMessageItem) -> Followup:
        """`message` as one chained by this batch, under its derived key."""
        if tracing.is_on():
            message = message.model_copy(update={"traceparent": self.traceparent})
        with self._lock:
            parent, seed = self._parent(message.redis_message_id)
            ordinal = self._ordinals[(seed, message.label)]
            self._ordinals[(seed, message.label)] += 1
        return Followup(child_key(seed, message.label, ordinal), parent, message)

    def _parent(self, carried: str) -> tuple[str, str]:
        if carried in self._by_key:
            return carried, carried
        first = self._members[0].key
        if len(self._members) == 1:
            return first, first
        joined = "\0".join(member.key for member in self._members)
        digest = hashlib.blake2b(joined.encode(), digest_size=16).hexdigest()
        return first, first[:10] + digest

    def chain(self, followups: Iterable[Followup]) -> None:
        """Committed followups, to be queued when the batch finishes."""
        with self._lock:
            for followup in followups:
                self._followups[followup.key] = followup

    def mark_applied(self, key: str) -> None:
        """The effects of the message are committed, its own outbox row included."""
        with self._lock:
            self._applied.add(key)

    def followups(self) -> list[Followup]:
        with self._lock:
            return list(self._followups.values())

    def applied(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._applied)


_current: contextvars.ContextVar[BatchRun | None] = contextvars.ContextVar("memos_batch_run", default=None)


def batch_run() -> BatchRun | None:
    """The batch that the calling code works on; None outside a handler."""
    run = _current.get()
    return None if run is None or run.closed else run


@contextmanager
def running(run: BatchRun) -> Iterator[None]:
    """Make `run` the current one for the length of the block."""
    token, turns = _current.set(run), context.own_turns.set(run.turns_of)
    try:
        yield
    finally:
        context.own_turns.reset(turns)
        _current.reset(token)


def cancelled(message: ScheduleMessageItem | None = None) -> bool:
    """Whether `message` was cancelled while it runs; without one, whether all messages of the call were.

    Cheap enough to ask in a loop: the queue is asked at most every CANCEL_LOOK_S seconds. False outside
    a handler. A handler that returns in spite of it has completed its messages.
    """
    run = batch_run()
    if run is None:
        return False
    return run.all_cancelled() if message is None else run.is_cancelled(message.redis_message_id)


def stop_if_cancelled() -> None:
    """Raise TaskCancelled, for the scheduler to catch, when all messages of the call were cancelled."""
    if cancelled():
        raise TaskCancelled("its messages were cancelled")


def absorbed(message: ScheduleMessageItem) -> tuple[ScheduleMessageItem, ...]:
    """The messages of a coalescing label that `message` runs for as well, oldest first.

    They are settled with it, so what they ask for must be done now. Empty outside a handler.
    """
    run = batch_run()
    return () if run is None else run.absorbed_by(message.redis_message_id)
