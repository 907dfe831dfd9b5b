"""The heartbeat: keeps the leases of running batches alive, on a thread that does nothing else.

All held leases are renewed in one call, at a third of the shortest of them. A batch that the queue says
is lost is marked, so that its worker can know; a batch that runs longer than its policy's `timeout_s` is
marked, logged and no longer renewed: its messages are queued again when the lease ends, while the
thread, which cannot be killed, goes on and finds its `finish` refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from memos import log
from memos.clock import Clock
from memos.errors import QueueError, ShardsUnavailable
from memos.mem_scheduler.queues.base import Batch, Lane, TaskQueue

logger = log.get_logger(__name__)

_Key = tuple[Lane, int, int, str]
_NEVER = float("inf")


@dataclass(slots=True)
class _Held:
    batch: Batch
    labels: frozenset[str]
    started_at: float
    length_s: float
    timeout_s: float
    renew_at: float
    over_at: float  # until then the lease is surely ours: counted from before the call that gave it
    lost: bool = False
    timed_out: bool = False

    @property
    def due_at(self) -> float:
        """When the heartbeat has to look at it next."""
        if self.lost or self.timed_out:
            return _NEVER
        return min(self.renew_at, self.started_at + self.timeout_s)


class LeaseKeeper:
    """Holds the leases of one scheduler. Lock order: its own lock is never held while calling the queue."""

    def __init__(
        self, queue: TaskQueue, clock: Clock, *, on_timeout: Callable[[Batch], None] = lambda _: None
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._on_timeout = on_timeout
        self._changed = threading.Condition()
        self._held: dict[_Key, _Held] = {}
        self._wake_at = _NEVER
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        with self._changed:
            self._stopping = False
        self._thread = threading.Thread(target=self._beat_for_ever, name="memos-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing. Leases still held run out by themselves."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None

    def hold(self, *batches: Batch, claimed_at: float | None = None) -> None:
        """Keep the leases of `batches` alive until `drop`. `claimed_at`: when they began at the earliest, on the
        monotonic clock (None: now)."""
        now = self._clock.monotonic()
        since = now if claimed_at is None else claimed_at
        lengths: dict[frozenset[str], tuple[float, float]] = {}
        fresh = []
        for batch in batches:
            labels = batch.labels
            if labels not in lengths:
                lengths[labels] = self._lengths(labels)
            length_s, timeout_s = lengths[labels]
            fresh.append(
                _Held(batch, labels, now, length_s, timeout_s, since + length_s / 3, since + length_s)
            )
        with self._changed:
            for held in fresh:
                self._held[_key(held.batch)] = held
            if fresh and min(held.due_at for held in fresh) < self._wake_at:
                self._changed.notify_all()

    def drop(self, *batches: Batch) -> None:
        """The batches are settled, or their worker is gone."""
        with self._changed:
            for batch in batches:
                self._held.pop(_key(batch), None)

    def is_lost(self, batch: Batch) -> bool:
        """Whether the queue said that somebody else may run the batch now."""
        with self._changed:
            held = self._held.get(_key(batch))
            return held is None or held.timed_out or self._is_over(held)

    def is_over(self, batch: Batch) -> bool:
        """Whether the lease of `batch` may have run out by the clock, or was handed back.

        Needs no heartbeat and no queue: a process that stood still knows it by its first look.
        """
        with self._changed:
            held = self._held.get(_key(batch))
            return held is None or self._is_over(held)

    def _is_over(self, held: _Held) -> bool:
        return held.lost or self._clock.monotonic() >= held.over_at

    def held(self) -> list[Batch]:
        """What is held now."""
        with self._changed:
            return [held.batch for held in self._held.values()]

    def refresh(self) -> None:
        """A policy was written: take the new lengths over."""
        with self._changed:
            held = list(self._held.values())
        lengths = {one.labels: self._lengths(one.labels) for one in held}
        now = self._clock.monotonic()
        with self._changed:
            for one in held:
                one.length_s, one.timeout_s = lengths[one.labels]
                one.renew_at = min(one.renew_at, now + one.length_s / 3)
                one.over_at = min(one.over_at, now + one.length_s)
            self._changed.notify_all()

    def beat(self) -> None:
        """One heartbeat: mark what ran too long, renew the rest in one call."""
        now = self._clock.monotonic()
        overdue: list[_Held] = []
        with self._changed:
            for held in self._held.values():
                if not held.timed_out and now - held.started_at >= held.timeout_s:
                    held.timed_out = True
                    overdue.append(held)
            alive = [held for held in self._held.values() if not held.lost and not held.timed_out]
            for held in alive:
                held.renew_at = now + held.length_s / 3
        for held in overdue:
            logger.warning(
                "batch.timed_out",
                lane=str(held.batch.lane),
                labels=sorted(held.labels),
                timeout_s=held.timeout_s,
                messages=len(held.batch.deliveries),
            )
            self._on_timeout(held.batch)
        if alive:
            self._renew(alive)

    def _renew(self, alive: list[_Held]) -> None:
        asked_at = self._clock.monotonic()
        unheard: set[_Key] = set()
        try:
            lost = {_key(batch) for batch in self._queue.renew([held.batch for held in alive])}
        except ShardsUnavailable as error:
            lost, unheard = set(map(_key, error.lost)), set(map(_key, error.unheard))
            logger.warning("heartbeat.failed", leases=len(unheard), error=type(error).__name__)
        except QueueError as error:
            logger.warning("heartbeat.failed", leases=len(alive), error=type(error).__name__)
            return
        with self._changed:
            for held in alive:
                # A batch that was finished between the look and the call is not lost but done.
                if _key(held.batch) in lost and _key(held.batch) in self._held:
                    held.lost = True
                    logger.warning("batch.lease_lost", lane=str(held.batch.lane), epoch=held.batch.epoch)
                elif _key(held.batch) not in unheard:
                    held.over_at = max(held.over_at, asked_at + held.length_s)

    def _lengths(self, labels: frozenset[str]) -> tuple[float, float]:
        policies = [self._queue.policies.get(label) for label in labels]
        return (
            min(policy.min_idle_ms for policy in policies) / 1000,
            min((policy.timeout_s for policy in policies if policy.timeout_s is not None), default=_NEVER),
        )

    def _beat_for_ever(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                due_at = min((held.due_at for held in self._held.values()), default=_NEVER)
                now = self._clock.monotonic()
                if due_at > now:
                    self._wake_at = due_at
                    self._clock.wait(self._changed, None if due_at == _NEVER else due_at - now)
                    self._wake_at = -_NEVER  # awake: nobody needs to notify
                    continue
            try:
                self.beat()
            except Exception as error:  # the thread loop: a heartbeat that died would lose every lease
                logger.error("heartbeat.died", error=type(error).__name__, exc_info=True)
                with self._changed:
                    self._clock.wait(self._changed, 1.0)


def _key(batch: Batch) -> _Key:
    return (batch.lane, batch.slot, batch.epoch, batch.claim)
