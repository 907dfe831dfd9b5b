"""The reference model of a task queue: plain lists, no heaps, no clock, nothing fast.

It says what must be true after each command (where every message is, in which order the ordered lanes
stand, who holds what) and leaves open what `memos.mem_scheduler.queues.base` leaves open: which ready
lane a claim takes, and how many messages a batch has. `took` therefore checks a claim's answer and then
follows it. `BACKENDS` lists the queues that must agree with it.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tests.services

from memos.clock import Clock, SystemClock
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import (
    Batch,
    Dead,
    Done,
    HeldLease,
    Outcome,
    QueueDepth,
    Release,
    Retry,
    TaskQueue,
)
from memos.mem_scheduler.queues.local import LocalQueue
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue, ShardedQueue
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState, class_of

TAGS = ("ms:0", "ms:1", "ms:2")


def local_queue(clock: Clock, **bounds: Any) -> TaskQueue:
    return LocalQueue(clock=clock, random=random.Random(7), **bounds)


def sqlite_queue(clock: Clock, **bounds: Any) -> TaskQueue:
    """In a folder of its own, which goes with the queue."""
    folder = Path(tempfile.mkdtemp(prefix="memos-queue-"))
    queue = SqliteQueue(folder / "queue.db", clock=clock, random=random.Random(7), **bounds)
    weakref.finalize(queue, shutil.rmtree, folder, ignore_errors=True)
    return queue


def sqlite_peer(queue: Any, clock: Clock, **bounds: Any) -> TaskQueue:
    return SqliteQueue(queue.path, clock=clock, random=random.Random(8), **bounds)


def redis_queue(clock: Clock, *, prefix: str = "", **bounds: Any) -> TaskQueue:
    """Under a prefix of its own, whose keys go with the queue."""
    address = tests.services.redis_address()
    own = prefix or f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    queue = RedisStreamsQueue(
        address,
        prefix=own,
        clock=clock,
        server_time=isinstance(clock, SystemClock),
        random=random.Random(7),
        **bounds,
    )
    if not prefix:
        weakref.finalize(queue, tests.services.drop_keys, address, own)
    return queue


def redis_peer(queue: Any, clock: Clock, **bounds: Any) -> TaskQueue:
    return redis_queue(clock, prefix=queue.prefix, **bounds)


def sharded_queue(clock: Clock, *, prefix: str = "", tags: Sequence[str] = TAGS, **bounds: Any) -> TaskQueue:
    """In three shards of one server."""
    address = tests.services.redis_address()
    own = prefix or f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    queue = ShardedQueue(
        address,
        tags=tags,
        prefix=own,
        clock=clock,
        server_time=isinstance(clock, SystemClock),
        random=random.Random(7),
        **bounds,
    )
    if not prefix:
        weakref.finalize(queue, tests.services.drop_keys, address, own)
    return queue


def sharded_peer(queue: Any, clock: Clock, **bounds: Any) -> TaskQueue:
    return sharded_queue(clock, prefix=queue.prefix, **bounds)


BACKENDS: dict[str, Callable[..., TaskQueue]] = {"local": local_queue, "sqlite": sqlite_queue}
# How another process would open the queue of a given object; for those that several processes can share.
PEERS: dict[str, Callable[..., TaskQueue]] = {"sqlite": sqlite_peer}
if tests.services.redis_is_there():
    BACKENDS["redis"] = redis_queue
    PEERS["redis"] = redis_peer
    BACKENDS["redis-shards"] = sharded_queue
    PEERS["redis-shards"] = sharded_peer


def message(
    label: str = "query",
    *,
    user: str = "user",
    cube: str = "cube",
    item: str = "item",
    content: str = "content",
    task: str | None = None,
) -> ScheduleMessageItem:
    return ScheduleMessageItem(
        item_id=item, user_id=user, mem_cube_id=cube, label=label, content=content, task_id=task
    )


LaneName = tuple[str, str, str]


@dataclass
class Kept:
    """One message, as the model knows it."""

    key: str
    lane: LaneName
    label: str
    place: str = "queued"  # queued delayed leased coalesced dead gone done cancelled
    due: float = 0.0
    fresh: bool = True  # never taken since it was submitted without delay: a newer one may absorb it
    retried: bool = False
    attempts: int = 0
    recoveries: int = 0
    blocked_since: float | None = None
    asked_to_stop: bool = False
    absorbed: list[str] = field(default_factory=list)  # newest first
    into: str = ""


@dataclass
class Held:
    """One lease."""

    lane: LaneName
    slot: int
    keys: list[str]
    expires: float
    length: float


class QueueModel:
    """All state of a queue whose policies are `policies` (by label)."""

    def __init__(
        self,
        policies: dict[str, TaskPolicy],
        *,
        messages_max: int,
        lane_messages_max: int,
        user_batches_max: int = 0,
    ) -> None:
        self.policies = policies
        self.user_batches_max = user_batches_max
        self.messages_max = messages_max
        self.lane_messages_max = lane_messages_max
        self.now = 0.0
        self.messages: dict[str, Kept] = {}
        self.lanes: dict[LaneName, list[str]] = {}  # waiting, head first
        self.leases: dict[int, Held] = {}
        self.letters: list[str] = []
        self.epoch_max = 0

    # -- commands ---------------------------------------------------------------------------------

    def refuses(self, messages: Sequence[ScheduleMessageItem], *, coalesce: bool = False) -> bool:
        if coalesce and self._all_join(messages):
            return False
        held = [m for m in self.messages.values() if self._root(m).place in ("queued", "delayed", "leased")]
        if len(held) + len(messages) > self.messages_max:
            return True
        return any(
            sum(m.lane == lane for m in held) + sum(lane_of(m) == lane for m in messages)
            > self.lane_messages_max
            for lane in {lane_of(m) for m in messages}
        )

    def _all_join(self, messages: Sequence[ScheduleMessageItem]) -> bool:
        """Whether each message is of a coalescing label and finds one of its lane and label to join."""
        for label, lane in {(m.label, lane_of(m)) for m in messages}:
            fresh = [m for m in map(self.messages.get, self.lanes.get(lane, [])) if m and m.fresh]
            same = [m for m in fresh if m.label == label]
            number = sum(m.label == label and lane_of(m) == lane for m in messages)
            if not (self.policies[label].coalesce and same and len(same[-1].absorbed) + number <= 64):
                return False
        return True

    def _root(self, kept: Kept) -> Kept:
        """The message that runs for this one: itself, or the one that absorbed it."""
        return self.messages[kept.into] if kept.place == "coalesced" else kept

    def submitted(self, keys: Sequence[str], messages: Sequence[ScheduleMessageItem], delay_s: float) -> None:
        for key, one in zip(keys, messages, strict=True):
            known = self.messages.get(key)
            if known is not None and known.place in LIVE:
                continue  # a followup that is live already
            kept = self.messages[key] = Kept(key, lane_of(one), one.label)
            waiting = self.lanes.setdefault(kept.lane, [])
            if delay_s > 0:
                kept.place, kept.due, kept.fresh = "delayed", self.now + delay_s, False
                continue
            if self.policies[one.label].coalesce:
                self._coalesce(kept, waiting)
            waiting.append(key)

    def _coalesce(self, kept: Kept, waiting: list[str]) -> None:
        older = [k for k in waiting if self.messages[k].label == kept.label and self.messages[k].fresh]
        if not older:
            return
        last = self.messages[older[-1]]
        waiting.remove(last.key)
        self._follow(kept, [last.key, *last.absorbed])

    def _follow(self, runner: Kept, keys: list[str]) -> None:
        runner.absorbed = keys
        for key in keys:
            one = self.messages[key]
            one.place, one.into, one.absorbed = "coalesced", runner.key, []

    def look_after(self) -> None:
        """What a claim does first: ends of delays and lost leases."""
        for kept in sorted(
            (m for m in self.messages.values() if m.place == "delayed" and m.due <= self.now),
            key=lambda m: m.due,
        ):
            kept.place = "queued"
            kept.due = 0.0
            self.lanes[kept.lane].append(kept.key)
        for epoch, held in list(self.leases.items()):
            if held.expires <= self.now:
                del self.leases[epoch]
                self._lost(held)

    def _lost(self, held: Held) -> None:
        back = []
        for key in held.keys:
            kept = self.messages[key]
            kept.recoveries += 1
            if kept.asked_to_stop:
                self._end(kept, "cancelled")
            elif kept.recoveries > self.policies[kept.label].max_recoveries:
                self._bury(kept)
            else:
                kept.place = "queued"
                back.append(key)
        self.lanes[held.lane][:0] = back

    def took(self, batches: Sequence[Batch], labels: frozenset[str], lanes_max: int) -> None:
        """Check a claim's answer, then follow it."""
        self.look_after()
        assert len(batches) <= lanes_max
        for batch in batches:
            self._follow_batch(batch, labels)
        if len(batches) < lanes_max:
            left = [lane for lane in self.lanes if self.claimable(lane, labels)]
            assert not left, f"the claim left {left} although it had room"

    def claimable(self, lane: LaneName, labels: frozenset[str]) -> bool:
        waiting = self.lanes[lane]
        if not waiting:
            return False
        head = self.messages[waiting[0]]
        free = self.slots(lane) > sum(held.lane == lane for held in self.leases.values())
        return head.label in labels and head.due <= self.now and free and not self.capped(lane[0])

    def capped(self, user_id: str) -> bool:
        """Whether the user holds as many leases as it may."""
        held = sum(held.lane[0] == user_id for held in self.leases.values())
        return 0 < self.user_batches_max <= held

    def slots(self, lane: LaneName) -> int:
        policy = self.policies[self.messages[self.lanes[lane][0]].label]
        return 1 if policy.ordered else policy.concurrency

    def _follow_batch(self, batch: Batch, labels: frozenset[str]) -> None:
        lane = (batch.lane.user_id, batch.lane.mem_cube_id, batch.lane.task_class)
        assert self.claimable(lane, labels), f"lane {lane} was not to be claimed"
        assert batch.epoch > self.epoch_max, "an epoch came twice"
        self.epoch_max = batch.epoch
        slots = {held.slot for held in self.leases.values() if held.lane == lane}
        assert batch.slot not in slots, "a slot has two holders"
        assert batch.slot < self.slots(lane)
        keys = [delivery.key for delivery in batch.deliveries]
        waiting = self.lanes[lane]
        if all(self.policies[self.messages[k].label].ordered for k in keys):
            assert keys == waiting[: len(keys)], "out of order"
        assert keys and set(keys) <= set(waiting)
        kept = [self.messages[key] for key in keys]
        assert all(m.label in labels and m.due <= self.now for m in kept)
        assert len(keys) <= min(self.policies[m.label].batch_size_max for m in kept)
        if any(m.recoveries for m in kept):
            assert len(keys) == 1, "a message whose lease was lost goes alone"
        for m, delivery in zip(kept, batch.deliveries, strict=True):
            assert (delivery.attempts, delivery.recoveries) == (m.attempts, m.recoveries)
            assert delivery.message.redis_message_id == m.key
            assert [one.redis_message_id for one in delivery.absorbed] == m.absorbed[::-1]
            m.place, m.fresh, m.due = "leased", False, 0.0
            waiting.remove(m.key)
        length = min(self.policies[m.label].min_idle_ms for m in kept) / 1000
        self.leases[batch.epoch] = Held(lane, batch.slot, keys, self.now + length, length)

    def holds(self, batch: Batch) -> bool:
        return batch.epoch in self.leases

    def renewed(self, batch: Batch) -> None:
        held = self.leases[batch.epoch]
        held.expires = self.now + held.length

    def finished(self, batch: Batch, outcomes: Sequence[Outcome]) -> list[TaskState]:
        """The states that `finish` must report."""
        held = self.leases.pop(batch.epoch)
        back: list[str] = []
        states = [
            self._settle(self.messages[key], outcome, back)
            for key, outcome in zip(held.keys, outcomes, strict=True)
        ]
        self.lanes[held.lane][:0] = back
        return states

    def _settle(self, kept: Kept, outcome: Outcome, back: list[str]) -> TaskState:
        policy = self.policies[kept.label]
        if isinstance(outcome, Done):
            self._end(kept, "done")
            return TaskState.COMPLETED
        if isinstance(outcome, Dead):
            self._bury(kept)
            return TaskState.FAILED
        if kept.asked_to_stop:
            self._end(kept, "cancelled")
            return TaskState.CANCELLED
        if isinstance(outcome, Release):
            kept.place = "queued"
            back.append(kept.key)
            return TaskState.WAITING
        assert isinstance(outcome, Retry) and outcome.delay_s is not None
        kept.attempts += outcome.counts
        if outcome.counts and kept.attempts >= policy.max_attempts:
            self._bury(kept)
            return TaskState.FAILED
        due = self.now + outcome.delay_s
        if policy.ordered and policy.retry_order == "strict":
            if kept.blocked_since is not None and self.now - kept.blocked_since >= policy.block_s_max:
                self._bury(kept)
                return TaskState.FAILED
            kept.blocked_since = self.now if kept.blocked_since is None else kept.blocked_since
            kept.place = "queued"
            kept.due = min(due, kept.blocked_since + policy.block_s_max)
            back.append(kept.key)
        elif outcome.delay_s > 0:
            kept.place, kept.due = "delayed", due
        else:
            kept.place = "queued"
            self.lanes[kept.lane].append(kept.key)
        kept.retried = True
        return TaskState.RETRYING

    def cancels(self, key: str) -> bool:
        """Cancel; whether the queue must say that it was taken out."""
        kept = self.messages[key]
        if kept.place == "leased":
            kept.asked_to_stop = True
            return False
        if kept.place == "coalesced":
            runner = self.messages[kept.into]
            if runner.place not in ("queued", "delayed"):
                return False
            runner.absorbed.remove(key)
        elif kept.place in ("queued", "delayed"):
            waiting = self.lanes[kept.lane]
            heir = [self._hand_over(kept)] if kept.absorbed else []
            if kept.place == "queued":
                at = waiting.index(key)
                waiting[at : at + 1] = heir
            else:
                waiting.extend(heir)
        else:
            return False
        self._end(kept, "cancelled")
        return True

    def _hand_over(self, kept: Kept) -> str:
        key, *rest = kept.absorbed
        kept.absorbed = []
        heir = self.messages[key]
        heir.place, heir.into = "queued", ""
        heir.fresh = kept.fresh
        self._follow(heir, rest)
        return key

    def cleared(self) -> int:
        dropped = [m for m in self.messages.values() if m.place in ("queued", "delayed", "leased")]
        count = 0
        for kept in dropped:
            count += 1 + len(kept.absorbed)
            self._end(kept, "cancelled")
        self.leases.clear()
        for waiting in self.lanes.values():
            waiting.clear()
        return count

    def retried_letters(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.letters.remove(key)
            kept = self.messages[key]
            kept.place, kept.attempts, kept.recoveries = "queued", 0, 0
            kept.retried = kept.asked_to_stop = kept.fresh = False
            kept.blocked_since, kept.due = None, 0.0
            self.lanes[kept.lane].append(key)

    def purged(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.letters.remove(key)
            self._end(self.messages[key], "gone")

    def _bury(self, kept: Kept) -> None:
        kept.place = "dead"
        self.letters.append(kept.key)

    def _end(self, kept: Kept, place: str) -> None:
        for key in (kept.key, *kept.absorbed):
            self.messages[key].place = place
        kept.absorbed = []

    # -- what must be seen from outside -----------------------------------------------------------

    def state(self, key: str) -> TaskState:
        kept = self.messages[key]
        if kept.place == "coalesced":
            return self.state(kept.into)
        if kept.place in ("queued", "delayed"):
            return TaskState.RETRYING if kept.retried else TaskState.WAITING
        return {
            "leased": TaskState.IN_PROGRESS,
            "dead": TaskState.FAILED,
            "gone": TaskState.FAILED,
            "done": TaskState.COMPLETED,
            "cancelled": TaskState.CANCELLED,
        }[kept.place]

    def live(self) -> set[str]:
        return {key for key, kept in self.messages.items() if kept.place in LIVE}

    def check_leases(self, leases: Sequence[HeldLease]) -> None:
        assert [lease.epoch for lease in leases] == sorted(self.leases)
        for lease in leases:
            held = self.leases[lease.epoch]
            lane = (lease.lane.user_id, lease.lane.mem_cube_id, lease.lane.task_class)
            assert (lane, lease.slot) == (held.lane, held.slot)
            labels = [self.messages[key].label for key in held.keys]
            assert lease.labels == {label: labels.count(label) for label in labels}
            assert lease.expires_in_s == pytest.approx(held.expires - self.now)

    def check_depth(self, depth: QueueDepth) -> None:
        waiting = sum(map(len, self.lanes.values()))
        delayed = sum(m.place == "delayed" for m in self.messages.values())
        leased = sum(m.place == "leased" for m in self.messages.values())
        assert depth.queued + depth.parked == waiting
        assert depth.delayed == delayed
        assert depth.remaining == waiting + delayed
        assert depth.running == leased
        assert depth.dead == len(self.letters)
        seen: dict[tuple[LaneName, str, str], int] = {}
        for lane in depth.lanes:
            name = (lane.lane.user_id, lane.lane.mem_cube_id, lane.lane.task_class)
            for place, counts in (
                ("queued", lane.queued),
                ("queued", lane.parked),
                ("delayed", lane.delayed),
                ("leased", lane.running),
            ):
                for label, number in counts.items():
                    seen[name, label, place] = seen.get((name, label, place), 0) + number
        expected: dict[tuple[LaneName, str, str], int] = {}
        for m in self.messages.values():
            if m.place in ("queued", "delayed", "leased"):
                at = (m.lane, m.label, m.place)
                expected[at] = expected.get(at, 0) + 1
        assert seen == expected


LIVE = ("queued", "delayed", "leased", "coalesced", "dead")


def lane_of(one: ScheduleMessageItem) -> LaneName:
    return (one.user_id, one.mem_cube_id, class_of(one.label))
