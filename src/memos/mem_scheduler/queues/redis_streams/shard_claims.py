"""Claiming from several shards: which are looked into, in which order, and how to wait for all of them at once.

What a shard said of its ready work is remembered, so that a claim goes to the one whose turn it is. A shard is
looked into (without taking anything) when this process changed something there, when it called, when something
is due there, when nothing was ready at the last look and that is LOOK_S ago, and always before a claim comes
back with nothing. So none is left unvisited, whatever the others hold.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from memos.clock import Clock
from memos.errors import QueueUnavailable
from memos.mem_scheduler.queues.base import Batch
from memos.mem_scheduler.queues.redis_streams.away import Away
from memos.mem_scheduler.queues.redis_streams.queue import Found
from memos.mem_scheduler.queues.redis_streams.shard_order import ShardOrder
from memos.mem_scheduler.queues.redis_streams.wire import encoded
from memos.mem_scheduler.queues.waiters import Waiters

LOOK_S = 0.01


class Look(Protocol):
    """Look into a shard and take up to so many lanes. Raises QueueUnavailable at once."""

    def __call__(
        self,
        number: int,
        wanted: frozenset[str],
        lanes_max: int,
        batch_max: int | None,
        wait_s: float,
        only: str | None,
    ) -> Found: ...


@dataclass(slots=True)
class _Seen:
    """What is known of one shard's ready work."""

    wanted: frozenset[str] = frozenset()  # the labels of the last look
    fresh: bool = False  # nothing was heard since
    looked_at: float = 0.0
    due_at: float | None = None


class ShardClaims:
    """The claims of one process. Thread-safe; the lock is never held while a shard is asked."""

    def __init__(
        self,
        count: int,
        *,
        clock: Clock,
        look: Look,
        listen: Callable[[int], None],
        levels: Callable[[frozenset[str]], Sequence[Sequence[str]]],
        away: Away,
    ) -> None:
        """`listen`: be there for wake-ups of a shard; `levels`: the classes of labels, by level."""
        self.clock = clock
        self.away = away
        self.levels = levels
        self._look = look
        self._listen = listen
        self._lock = threading.Lock()
        self._waiters = Waiters(self._lock, clock)
        self._order = ShardOrder(count)
        self._seen = [_Seen() for _ in range(count)]
        self._wakes = self._rings = 0
        self._closed = False

    def claim(
        self, wanted: frozenset[str], lanes_max: int, batch_max: int | None, timeout_s: float
    ) -> list[Batch]:
        """As `TaskQueue.claim`. Raises QueueUnavailable where every shard was away all the time."""
        with self._lock:
            wakes = self._wakes
        deadline = self.clock.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - self.clock.monotonic())
            if left_s:
                for number in self._there():
                    self._listen(number)
            with self._lock:
                rings = self._rings
            batches = self._gather(wanted, lanes_max, batch_max, left_s)
            if batches:
                return batches
            with self._lock:
                if self.clock.monotonic() >= deadline or wakes != self._wakes or self._closed:
                    break
                if rings == self._rings:
                    dues = [seen.due_at for seen in self._seen if seen.due_at is not None]
                    self._waiters.wait(wanted, until=min([deadline, *dues]))
                if self._closed:
                    break
        if not self._there():
            raise QueueUnavailable(f"none of the {len(self._seen)} shards answers")
        return []

    # -- what happened ------------------------------------------------------------------------------

    def touch(self, number: int) -> None:
        """This process changed something in the shard."""
        self._seen[number].fresh = False

    def touch_all(self) -> None:
        for seen in self._seen:
            seen.fresh = False

    def rung(self, number: int, labels: list[str]) -> None:
        """The shard calls: there is work of these labels."""
        with self._lock:
            self._seen[number].fresh = False
            self._rings += 1
            for label in labels:
                self._waiters.call(label)

    def look_again(self, number: int) -> None:
        """Anything may have happened in the shard."""
        with self._lock:
            self._seen[number].fresh = False
            self._rings += 1
            self._waiters.call_all()

    def wake(self) -> None:
        """Let every waiting claim return."""
        with self._lock:
            self._wakes += 1
            self._waiters.call_all()

    def close(self) -> None:
        """Claims wait no more."""
        with self._lock:
            self._closed = True
            self._wakes += 1
            self._waiters.call_all()

    # -- one way through the shards -----------------------------------------------------------------

    def _gather(
        self, wanted: frozenset[str], lanes_max: int, batch_max: int | None, wait_s: float
    ) -> list[Batch]:
        """Take what is there, and say that the caller is going to wait where nothing is."""
        levels = self.levels(wanted)
        looked: set[int] = set()
        told_waiting: set[int] = set()
        fruitless: set[tuple[int, str]] = set()
        batches: list[Batch] = []
        while (room := lanes_max - len(batches)) > 0:
            unknown = [
                one for one in self._there() if one not in looked and self._is_unknown(one, wanted, levels)
            ]
            # The only one that may have something is not looked at first, and then asked again.
            alone = len(unknown) == 1 and not self._any_busy(levels)
            for number in unknown:
                looked.add(number)
                batches += self._visit(number, wanted, room if alone else 0, batch_max)
            if alone and batches:
                continue
            with self._lock:
                choice = self._order.choose(
                    levels, room, whole=lanes_max, without=self.away(), fruitless=fruitless
                )
            if choice is not None:
                found = self._visit(choice.shard, wanted, choice.lanes, batch_max, only=choice.task_class)
                batches += found
                if not found:
                    fruitless.add((choice.shard, choice.task_class))
            elif batches:
                break
            else:
                rest = [one for one in self._there() if one not in (told_waiting if wait_s else looked)]
                if not rest:
                    break
                for number in rest:
                    looked.add(number)
                    told_waiting.add(number)
                    self._visit(number, wanted, 0, batch_max, wait_s=wait_s)
        return batches

    def _visit(
        self,
        number: int,
        wanted: frozenset[str],
        lanes_max: int,
        batch_max: int | None,
        *,
        wait_s: float = 0.0,
        only: str | None = None,
    ) -> list[Batch]:
        """Look into a shard, and note what it says of who is next."""
        asked_at = self.clock.monotonic()
        seen = self._seen[number]
        with self._lock:
            seen.wanted, seen.fresh = wanted, True  # what is heard from here on is another look's
        try:
            found = self._look(number, wanted, lanes_max, batch_max, wait_s, only)
        except QueueUnavailable as error:
            with self._lock:
                seen.fresh, seen.due_at = False, None
                self._order.told(number, {})
            self.away.note(number, error)
            return []
        with self._lock:
            seen.looked_at = asked_at
            # Counted from before the call: rather a little early, to look again, than late.
            seen.due_at = None if found.due_in_s is None else asked_at + found.due_in_s
            for batch in found.batches:
                self._order.took(number, encoded(batch.lane.task_class), 1)
            self._order.told(number, found.tops)
        return found.batches

    def _there(self) -> list[int]:
        away = self.away()
        return [number for number in range(len(self._seen)) if number not in away]

    def _any_busy(self, levels: Sequence[Sequence[str]]) -> bool:
        classes = [name for level in levels for name in level]
        with self._lock:
            return any(self._order.is_busy(number, classes) for number in self._there())

    def _is_unknown(self, number: int, wanted: frozenset[str], levels: Sequence[Sequence[str]]) -> bool:
        now, seen = self.clock.monotonic(), self._seen[number]
        if seen.wanted != wanted or (seen.due_at is not None and now >= seen.due_at):
            return True
        if levels and self._order.is_busy(number, levels[0]):
            return False  # whatever happened there, its turn comes
        return not seen.fresh or now - seen.looked_at >= LOOK_S
