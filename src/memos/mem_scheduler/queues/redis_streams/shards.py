"""A task queue in several shards: each a whole queue under a tag of its own, together one `TaskQueue`.

A message is in the shard of its user. So everything that is promised about one user (order, caps, coalescing,
idempotency keys, its turn among its cubes) is kept inside one shard, by one script. On a cluster each shard is
on one node; on a single server they only show what a cluster would do.

What holds between shards, and what does not:

* `submit` for users of several shards takes all or none as far as the bounds go: every shard is asked before the
  first is given anything. Of a shard that goes away in between the call says QueueUnavailable, and what the others
  took stays; a `token` makes a repeat complete the call. The bound of the whole queue is kept to within what is
  submitted elsewhere in the same moment.
* `finish` settles its batch and the followups of users of the same shard in one step. Followups of others are
  queued first, under their keys, after a look at whether the lease still stands.
* `depth`, `clear` and statuses of everybody are of each shard at its own moment.
* Tokens, statuses, dead letters and idempotency keys are bounded for each shard, a user's weight counts among
  all (`shard_order`).
* A shard that is away holds up its own users alone. What has to know all (depth, live, dead letters) says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import os
import random as random_module
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import redis

from memos.clock import Clock
from memos.errors import LeaseLost, QueueUnavailable, ShardsUnavailable
from memos.mem_scheduler.queues.base import (
    Batch,
    Delivery,
    Finish,
    HeldLease,
    Instance,
    Outcome,
    QueueDepth,
    QueueIdentity,
    Settled,
    TaskStatus,
    WhenFull,
)
from memos.mem_scheduler.queues.idempotency import ScopedKey
from memos.mem_scheduler.queues.instance import Identity
from memos.mem_scheduler.queues.limits import (
    Limits,
    check_claim,
    check_delays,
    check_outcomes,
    lease_lost,
    only_answer,
)
from memos.mem_scheduler.queues.redis_streams.away import Away
from memos.mem_scheduler.queues.redis_streams.cluster import Nodes
from memos.mem_scheduler.queues.redis_streams.connection import RedisAddress, check_client
from memos.mem_scheduler.queues.redis_streams.queue import PREFIX, Found, Part, RedisStreamsQueue
from memos.mem_scheduler.queues.redis_streams.reading import depth_of, everything_under
from memos.mem_scheduler.queues.redis_streams.shard_claims import ShardClaims
from memos.mem_scheduler.queues.redis_streams.shard_tables import ShardedDeadLetters, ShardedPolicies
from memos.mem_scheduler.queues.redis_streams.wire import encoded
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import class_of
from memos.mem_scheduler.status_entries import PREFIX as STATUS_PREFIX

if TYPE_CHECKING:
    from memos.memory.store import Followup

T = TypeVar("T")

COUNT_S = 1.0  # how old the count of what the other shards hold may be, where the bound is far
NEAR = 0.25  # of the bound: from there on it is counted anew at each submit
NEAR_MESSAGES = 10_000
_PLACES_MAX = 20_000


@lru_cache(maxsize=16_384)
def shard_of(user_id: str, count: int) -> int:
    """The shard of a user among `count`: the same for ever, in every process."""
    digest = hashlib.blake2b(encoded(user_id).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count


@dataclass(slots=True)
class _Count:
    """How many messages a shard held when it was last asked."""

    held: int = 0
    at: float | None = None


@dataclass(slots=True)
class _Share:
    """What of a call is one shard's."""

    places: list[int] = field(default_factory=list)
    messages: list[ScheduleMessageItem] = field(default_factory=list)
    followups: list[Followup] = field(default_factory=list)


class ShardedQueue:
    """A `TaskQueue` over the shards `tags` of the server or cluster at `address`, under `prefix`.

    The other arguments are those of `RedisStreamsQueue`. Raises QueueUnavailable where a shard does not answer
    now: of a queue that is there already each may go away and come back.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        clock: Clock,
        tags: Sequence[str],
        prefix: str = PREFIX,
        name: str = "",
        messages_max: int = 200_000,
        lane_messages_max: int = 20_000,
        payload_bytes_max: int = 4 * 1024 * 1024,
        random: random_module.Random | None = None,
        nodes: Nodes | None = None,
        **rest: Any,
    ) -> None:
        self._limits = Limits(messages_max, lane_messages_max, payload_bytes_max, 1, 1)
        self.address, self.prefix, self.tags = address, prefix, tuple(tags)
        self._clock = clock
        self._name = name
        self.nodes = Nodes(address) if nodes is None and address.is_cluster else nodes
        self._counts = [_Count() for _ in self.tags]
        self._levels_of: dict[tuple[frozenset[str], int], list[list[str]]] = {}
        self._places: OrderedDict[str, int] = OrderedDict()  # key -> shard, of what this process runs
        self._closed = False
        self._begin()
        self.parts = [
            RedisStreamsQueue(
                address,
                clock=clock,
                prefix=prefix,
                name=name,
                messages_max=messages_max,
                lane_messages_max=lane_messages_max,
                payload_bytes_max=payload_bytes_max,
                random=random,
                tag=tag,
                part=self._part_of(number),
                **rest,
            )
            for number, tag in enumerate(self.tags)
        ]
        self._policies = ShardedPolicies(self.parts, on_missed=self._away.note)
        self._dead = ShardedDeadLetters(self.parts, on_change=lambda: self._claims.touch_all())
        _QUEUES.add(self)
        for number, part in enumerate(self.parts):
            check_client(part.client, address)
            if number:
                self._policies.copy_to(number)

    def _begin(self) -> None:
        """What is a process's own."""
        self._identity = Identity.new(self._name)
        self._away = Away(self._reach, on_back=self._came_back)
        self._claims = ShardClaims(
            len(self.tags),
            clock=self._clock,
            look=self._look,
            listen=lambda number: self.parts[number].listen(),
            levels=self._levels,
            away=self._away,
        )

    def _part_of(self, number: int) -> Part:
        return Part(
            self._identity,
            self.nodes,
            on_work=partial(self._claims.rung, number),
            on_look=partial(self._claims.look_again, number),
        )

    def be_another(self) -> None:
        """In a forked child: as `RedisStreamsQueue.be_another`, with one name for all shards."""
        if self.nodes is not None:
            self.nodes.after_fork()
        self._begin()
        self._policies = ShardedPolicies(self.parts, on_missed=self._away.note)
        for number, part in enumerate(self.parts):
            part.be_another(self._part_of(number))
        if self._closed:
            self._claims.close()

    # -- what it is ---------------------------------------------------------------------------------

    @property
    def client(self) -> redis.Redis:
        """A client of the first shard's server."""
        return self.parts[0].client

    @property
    def shared_client(self) -> Any:
        """As `RedisStreamsQueue.shared_client`."""
        return self.parts[0].shared_client

    @property
    def policies(self) -> ShardedPolicies:
        return self._policies

    @property
    def dead(self) -> ShardedDeadLetters:
        return self._dead

    @property
    def identity(self) -> QueueIdentity:
        place = f"{self.prefix} in {len(self.parts)} shards at {self.address}"
        return replace(self.parts[0].identity, place=place)

    @property
    def messages_max(self) -> int:
        return self._limits.messages_max

    def bind_store(self, store_id: str) -> None:
        """As `RedisStreamsQueue.bind_store`, in every shard."""
        for part in self.parts:
            part.bind_store(store_id)

    def part_of(self, user_id: str) -> RedisStreamsQueue:
        """The shard of a user."""
        return self.parts[shard_of(user_id, len(self.parts))]

    def part_number(self, batch: Batch) -> int:
        return shard_of(batch.lane.user_id, len(self.parts))

    @property
    def part_count(self) -> int:
        return len(self.parts)

    def away(self) -> frozenset[int]:
        """The shards that do not answer this process now."""
        return self._away()

    # -- in -----------------------------------------------------------------------------------------

    def submit(
        self,
        messages: Sequence[ScheduleMessageItem],
        *,
        delay_s: float = 0.0,
        token: str | None = None,
        idempotency_key: str | None = None,
        followups: Sequence[Followup] = (),
        inside_handler: bool = False,
        when_full: WhenFull = "reject",
    ) -> list[str]:
        self._refuse_closed()
        everything = [*messages, *(followup.message for followup in followups)]
        self._limits.check_payloads(everything)
        check_delays(delay_s, followups)
        if idempotency_key is not None:
            ScopedKey.of(idempotency_key, everything)  # one user, hence one shard
        shares = self._shares(messages, followups)
        give: dict[str, Any] = {
            "delay_s": delay_s,
            "token": token,
            "idempotency_key": idempotency_key,
            "when_full": when_full,
        }
        rooms = {} if inside_handler else self._rooms(shares)
        keys = [""] * len(messages)
        several = len(shares) > 1 and not inside_handler
        if several:
            for number, share in shares.items():
                self.parts[number].submit(share.messages, messages_max=rooms[number], only_ask=True, **give)
        for number, share in shares.items():
            given = self.parts[number].submit(
                share.messages,
                followups=share.followups,
                inside_handler=inside_handler,
                messages_max=rooms.get(number),
                accepted=several,
                **give,
            )
            if len(shares) == 1:
                self._claims.touch(number)
                return given
            for place, key in zip(share.places, given, strict=False):
                keys[place] = key
            self._claims.touch(number)
        return [*keys, *(followup.key for followup in followups)]

    def _shares(
        self, messages: Sequence[ScheduleMessageItem], followups: Sequence[Followup]
    ) -> dict[int, _Share]:
        count = len(self.parts)
        shares: dict[int, _Share] = {}
        for place, message in enumerate(messages):
            share = shares.setdefault(shard_of(message.user_id, count), _Share())
            share.places.append(place)
            share.messages.append(message)
        for followup in followups:
            shares.setdefault(shard_of(followup.message.user_id, count), _Share()).followups.append(followup)
        return shares

    def _rooms(self, shares: Mapping[int, _Share]) -> dict[int, int]:
        """By shard, how many messages it may hold: what the others hold, and take in this call, is not its own."""
        numbers = {number: len(share.messages) for number, share in shares.items()}
        total, limit = sum(numbers.values()), self._limits.messages_max
        held = self._held_by()
        if limit - sum(held) - total < max(NEAR_MESSAGES, NEAR * limit):
            held = self._held_by(fresh=True)
        return {number: limit - (sum(held) - held[number]) - (total - own) for number, own in numbers.items()}

    def _held_by(self, *, fresh: bool = False) -> list[int]:
        """How many messages each shard holds; of one that is away, what it held last."""
        for number, part in enumerate(self.parts):
            count, now = self._counts[number], self._clock.monotonic()
            if not fresh and count.at is not None and now - count.at < COUNT_S:
                continue
            if number in self._away():
                continue
            try:
                count.held = part.held()
            except QueueUnavailable as error:
                self._away.note(number, error)
            count.at = now
        return [count.held for count in self._counts]

    # -- out ----------------------------------------------------------------------------------------

    def claim(
        self, labels: Collection[str], *, lanes_max: int, batch_max: int | None = None, timeout_s: float = 1.0
    ) -> list[Batch]:
        check_claim(lanes_max, batch_max)
        self._refuse_closed()
        wanted = labels if isinstance(labels, frozenset) else frozenset(labels)
        batches = self._claims.claim(wanted, lanes_max, batch_max, timeout_s)
        for batch in batches:
            number = self.part_number(batch)
            for delivery in batch.deliveries:
                self._places[delivery.key] = number
        while len(self._places) > _PLACES_MAX:
            with contextlib.suppress(KeyError):  # another claim does the same
                self._places.popitem(last=False)
        return batches

    def _look(
        self,
        number: int,
        wanted: frozenset[str],
        lanes_max: int,
        batch_max: int | None,
        wait_s: float,
        only: str | None,
    ) -> Found:
        return self.parts[number].look(
            wanted, lanes_max, batch_max, wait_s, only=only, tops=True, patience_s=0.0
        )

    def _levels(self, wanted: frozenset[str]) -> list[list[str]]:
        """The classes of these labels, by level, named as the scripts name them."""
        name = (wanted, self._policies.version)
        found = self._levels_of.get(name)
        if found is None:
            by_level: dict[int, dict[str, None]] = {}
            for label in sorted(wanted):
                classes = by_level.setdefault(int(self._policies.get(label).level), {})
                classes[encoded(class_of(label))] = None
            if len(self._levels_of) >= 64:
                self._levels_of.clear()
            found = self._levels_of[name] = [list(by_level[level]) for level in sorted(by_level)]
        return found

    # -- settling -----------------------------------------------------------------------------------

    def finish(
        self, batch: Batch, outcomes: Sequence[Outcome], *, followups: Sequence[Followup] = ()
    ) -> list[Settled]:
        return only_answer(self.finish_all([Finish(batch, outcomes, followups)]))

    def finish_all(self, finishes: Sequence[Finish]) -> list[list[Settled] | LeaseLost | QueueUnavailable]:
        """Each shard's batches in one step; of a shard that is away QueueUnavailable is the answer."""
        for one in finishes:
            check_outcomes(one.batch, one.outcomes)
            self._limits.check_payloads([followup.message for followup in one.followups])
        answers: list[list[Settled] | LeaseLost | QueueUnavailable | None] = [None] * len(finishes)
        by_shard: dict[int, list[tuple[int, Finish]]] = {}
        for place, one in enumerate(finishes):
            by_shard.setdefault(self.part_number(one.batch), []).append((place, one))
        away = self._away()
        for number in sorted(by_shard, key=lambda one: one in away):
            mine: list[tuple[int, Finish]] = []
            for place, one in by_shard[number]:
                own = [
                    followup
                    for followup in one.followups
                    if shard_of(followup.message.user_id, len(self.parts)) == number
                ]
                if len(own) < len(one.followups):
                    answers[place] = self._send_off(one, own)
                    one = replace(one, followups=own)
                if answers[place] is None:
                    mine.append((place, one))
            if not mine:
                continue
            told: Sequence[list[Settled] | LeaseLost | QueueUnavailable]
            try:
                told = self.parts[number].finish_all([one for _, one in mine])
            except QueueUnavailable as error:
                self._away.note(number, error)
                told = [error] * len(mine)
            self._claims.touch(number)
            for (place, _), answer in zip(mine, told, strict=True):
                answers[place] = answer
        return [answer for answer in answers if answer is not None]

    def _send_off(self, one: Finish, own: Sequence[Followup]) -> LeaseLost | QueueUnavailable | None:
        """Queue the followups of other shards; or why that may not be, or could not."""
        kept = {followup.key for followup in own}
        try:
            if self.parts[self.part_number(one.batch)].renew([one.batch]):
                return lease_lost(one.batch)
            self.submit([], followups=[f for f in one.followups if f.key not in kept], inside_handler=True)
        except QueueUnavailable as error:
            return error
        return None

    def renew(self, batches: Sequence[Batch]) -> list[Batch]:
        """Raises ShardsUnavailable where a shard is away: it says what was heard from the others."""
        by_shard: dict[int, list[Batch]] = {}
        for batch in batches:
            by_shard.setdefault(self.part_number(batch), []).append(batch)
        lost: list[Batch] = []
        unheard: list[Batch] = []
        for number, mine in by_shard.items():
            try:
                if number in self._away():
                    raise QueueUnavailable(f"shard {number} does not answer")
                lost += self.parts[number].renew(mine, patience_s=0.0)
            except QueueUnavailable as error:
                self._away.note(number, error)
                unheard += mine
        if unheard:
            raise ShardsUnavailable(
                f"{len(unheard)} of {len(batches)} leases could not be renewed: their shards do not answer",
                lost=lost,
                unheard=unheard,
            )
        known = set(map(id, lost))
        return [batch for batch in batches if id(batch) in known]

    def cancel(self, keys: Sequence[str]) -> list[str]:
        taken = {key for one in self._each(lambda part: part.cancel(keys)) for key in one}
        self._claims.touch_all()
        return [key for key in dict.fromkeys(keys) if key in taken]

    def is_cancelled(self, key: str) -> bool:
        number = self._places.get(key)
        if number is not None:
            return self.parts[number].is_cancelled(key)
        return any(part.is_cancelled(key) for part in self.parts)

    def clear(self) -> int:
        try:
            return sum(self._each(lambda part: part.clear()))
        finally:
            self._claims.touch_all()

    def forget(self, user_id: str) -> bool:
        """As `RedisStreamsQueue.forget`. All shards are asked: the statuses of a user who was in another one before
        the queue was cut anew are there still."""
        return all(self._each(lambda part: part.forget(user_id)))

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """What stands under each key of this queue, and of the statuses beside it."""
        for part in self.parts:
            yield from everything_under(part.client, (f"{self.prefix}:{{{part.tag}}}:",))
        yield from everything_under(self.client, (f"{STATUS_PREFIX}:",))

    # -- seen from outside --------------------------------------------------------------------------

    def depth(self, *, lanes: bool = True) -> QueueDepth:
        return depth_of(*self._each(lambda part: part.told_depth(lanes=lanes)))

    def instances(self) -> list[Instance]:
        newest: dict[str, Instance] = {}
        for one in (one for part in self._each(lambda part: part.instances()) for one in part):
            known = newest.get(one.name)
            if known is None or known.seen_at < one.seen_at:
                newest[one.name] = one
        return sorted(newest.values(), key=lambda one: one.name)

    def leases(self, *, limit: int = 100) -> list[HeldLease]:
        found = self._each(lambda part: part.leases(limit=limit))
        return sorted((one for part in found for one in part), key=lambda one: -one.held_s)[:limit]

    def live(self, keys: Collection[str]) -> set[str]:
        return set().union(*self._each(lambda part: part.live(keys)))

    def statuses(
        self,
        *,
        user_id: str | None = None,
        item_id: str | None = None,
        task_id: str | None = None,
        limit: int | None = None,
    ) -> list[TaskStatus]:
        if user_id is not None:
            part = self.part_of(user_id)
            return part.statuses(user_id=user_id, item_id=item_id, task_id=task_id, limit=limit)
        found = self._each(lambda part: part.statuses(item_id=item_id, task_id=task_id, limit=limit))
        return list(islice(heapq.merge(*found, key=lambda one: one.submitted_at, reverse=True), limit))

    def get(self, keys: Sequence[str]) -> list[Delivery]:
        found = {one.key: one for part in self._each(lambda part: part.get(keys)) for one in part}
        return [found[key] for key in dict.fromkeys(keys) if key in found]

    def _each(self, ask: Callable[[RedisStreamsQueue], T]) -> list[T]:
        """What each shard answers. All are asked; then the first that is away is told."""
        answers: list[T] = []
        missed: QueueUnavailable | None = None
        for number, part in enumerate(self.parts):
            try:
                answers.append(ask(part))
            except QueueUnavailable as error:
                self._away.note(number, error)
                missed = missed or QueueUnavailable(f"shard {number} of {len(self.parts)}: {error}")
        if missed is not None:
            raise missed
        return answers

    # -- waiting and closing ------------------------------------------------------------------------

    def wake(self) -> None:
        self._claims.wake()

    def close(self) -> None:
        """Refuse new work and let waiting claims return. What runs may still be finished."""
        if self._closed:
            return
        self._closed = True
        self._claims.close()
        self._away.close()
        for part in self.parts:
            part.close()

    def __enter__(self) -> ShardedQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise QueueUnavailable("the queue is closed; build a new runtime to go on")

    # -- shards that are away -----------------------------------------------------------------------

    def _reach(self, number: int) -> None:
        self.parts[number].reach()

    def _came_back(self, number: int) -> None:
        if number:
            self._policies.copy_to(number)
        self._claims.look_again(number)


_QUEUES: weakref.WeakSet[ShardedQueue] = weakref.WeakSet()


def _after_fork() -> None:
    for queue in list(_QUEUES):
        queue.be_another()


os.register_at_fork(after_in_child=_after_fork)
