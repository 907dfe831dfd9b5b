"""The task queue in memory: the whole state machine of `queues.base`, for one process.

Guarantees: everything of `queues.base` except surviving the process. One lock covers all state; an
operation is O(log n) in lanes, users and timers and linear in the messages it touches; `depth` with
lanes and `policies.put` are linear in lanes. Nothing polls: a claim sleeps until work, the next due
time (lost lease, end of a delay) or its time-out, and notices lost leases without any traffic.

Leases and delays run on the monotonic clock, so a step of the wall clock neither loses nor prolongs
them; what people read is wall time. Lost leases and due times are looked after by `claim`, as on the
other backends: until then a late `finish` still counts.
"""

from __future__ import annotations

import random as random_module
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from memos.clock import Clock
from memos.errors import LeaseLost, QueueUnavailable
from memos.mem_scheduler.queues.base import (
    INSTANCE_SEEN_S,
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
from memos.mem_scheduler.queues.dead_letters import MemoryDeadLetters
from memos.mem_scheduler.queues.idempotency import ScopedKey, refuse_more_keys
from memos.mem_scheduler.queues.instance import Identity
from memos.mem_scheduler.queues.lanes import LaneQueue
from memos.mem_scheduler.queues.ledger import Ledger
from memos.mem_scheduler.queues.limits import (
    Limits,
    check_claim,
    check_delays,
    check_outcomes,
    lease_lost,
    only_answer,
    weight_function,
)
from memos.mem_scheduler.queues.packs import Call, LaneId, deliveries_of, gather
from memos.mem_scheduler.queues.policies import MemoryPolicyTable
from memos.mem_scheduler.queues.waiters import Waiters
from memos.mem_scheduler.schemas.keys import KeyMint
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

if TYPE_CHECKING:
    from memos.memory.store import Followup

TOKENS_MAX = 10_000  # submit tokens remembered; the least recently used leave first


class LocalQueue:
    """A `TaskQueue` in memory.

    `weights` is a user's share against others' under contention: 1 where nothing is said, at least
    0.001. `random` is the source of retry jitter; `name` begins the name under which it claims.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        messages_max: int = 200_000,
        lane_messages_max: int = 20_000,
        payload_bytes_max: int = 4 * 1024 * 1024,
        dead_letters_max: int = 10_000,
        status_entries_max: int = 200_000,
        idempotency_keys_max: int = 100_000,
        idempotency_ttl_s: float = 86_400.0,
        user_batches_max: int = 0,
        random: random_module.Random | None = None,
        weights: Mapping[str, float] | Callable[[str], float] | None = None,
        name: str = "",
    ) -> None:
        self._limits = Limits(
            messages_max,
            lane_messages_max,
            payload_bytes_max,
            dead_letters_max,
            status_entries_max,
            idempotency_keys_max,
            idempotency_ttl_s,
            user_batches_max,
        )
        self._identity = Identity.new(name)
        self._since = clock.now()
        self._claimed: tuple[frozenset[str], float] | None = None  # what the last claim asked for, and when
        self._clock = clock
        self._mint = KeyMint(clock)
        self._lock = threading.Lock()
        self._waiters = Waiters(self._lock, clock)
        self._policies = MemoryPolicyTable(self._policy_changed)
        self._dead = MemoryDeadLetters(
            self._lock,
            letters_max=dead_letters_max,
            requeue=lambda letters: self._ledger.requeue(letters),
            forget=lambda letter: self._ledger.forget_letter(letter),
        )
        self._ledger = Ledger(
            self._policies,
            clock=clock,
            waiters=self._waiters,
            source=random or random_module.Random(),
            weight_of=weight_function(weights),
            status_entries_max=status_entries_max,
            bury=self._dead.put,
            user_batches_max=user_batches_max,
            instance=self._identity.name,
        )
        self._tokens: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        # scope -> (what it was used for, its answer, monotonic end); the oldest first, as all have one length
        self._idempotent: OrderedDict[str, tuple[str, tuple[str, ...], float]] = OrderedDict()
        self._wakes = 0
        self._closed = False

    @property
    def policies(self) -> MemoryPolicyTable:
        return self._policies

    @property
    def dead(self) -> MemoryDeadLetters:
        return self._dead

    @property
    def identity(self) -> QueueIdentity:
        return QueueIdentity("", "memory", self._identity.name)

    @property
    def messages_max(self) -> int:
        return self._limits.messages_max

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
        scoped = None
        if idempotency_key is not None:
            scoped = ScopedKey.of(idempotency_key, [*messages, *(one.message for one in followups)])
        check_delays(delay_s, followups)
        self._limits.check_payloads(messages)
        call = gather(self._mint.mint(len(messages)) if messages else [], messages)
        chained = self._chained(followups)
        answer = [*call.keys, *(followup.key for followup in followups)]
        with self._lock:
            self._refuse_closed()
            if token is not None and token in self._tokens:
                self._tokens.move_to_end(token)
                return list(self._tokens[token])
            now, wall = self._clock.monotonic(), self._clock.now()
            if scoped is not None:
                answered = self._known_answer(scoped, now)
                if answered is not None:
                    return answered
            if not inside_handler and not (when_full == "coalesce" and delay_s <= 0 and self._all_join(call)):
                self._limits.check_room(call.by_lane(), held=self._ledger.held, held_by=self._held_by)
            touched: dict[LaneQueue, None] = {}
            self._ledger.enter(call, touched, now=now, wall=wall, delay_s=delay_s)
            self._chain(followups, chained, touched)
            for line in touched:
                self._ledger.refresh(line, now)
            if token is not None:
                self._tokens[token] = tuple(answer)
                if len(self._tokens) > TOKENS_MAX:
                    self._tokens.popitem(last=False)
            if scoped is not None:
                end = now + self._limits.idempotency_ttl_s
                self._idempotent[scoped.scope] = (scoped.used_for, tuple(answer), end)
        return answer

    def claim(
        self, labels: Collection[str], *, lanes_max: int, batch_max: int | None = None, timeout_s: float = 1.0
    ) -> list[Batch]:
        check_claim(lanes_max, batch_max)
        wanted = labels if isinstance(labels, frozenset) else frozenset(labels)
        ledger = self._ledger
        batches: list[Batch] = []
        with self._lock:
            self._refuse_closed()
            now = self._clock.monotonic()
            deadline = now + timeout_s
            wakes = self._wakes
            while True:
                ledger.served.claimed(wanted, now)
                self._claimed = (wanted, self._clock.now())
                ledger.look_after(now)
                wall = self._clock.now()
                while len(batches) < lanes_max:
                    batch = ledger.next_batch(wanted, batch_max=batch_max, now=now, wall=wall)
                    if batch is None:
                        break
                    batches.append(batch)
                if batches or now >= deadline or wakes != self._wakes:
                    break
                due_at = ledger.timers.next_due()
                until = deadline if due_at is None else min(deadline, due_at)
                self._waiters.wait(wanted, until=until)
                now = self._clock.monotonic()
            self._pass_on()
        return batches

    def finish(
        self, batch: Batch, outcomes: Sequence[Outcome], *, followups: Sequence[Followup] = ()
    ) -> list[Settled]:
        return only_answer(self.finish_all([Finish(batch, outcomes, followups)]))

    def finish_all(self, finishes: Sequence[Finish]) -> list[list[Settled] | LeaseLost]:
        for one in finishes:
            check_outcomes(one.batch, one.outcomes)
        chained = [self._chained(one.followups) for one in finishes]
        answers: list[list[Settled] | LeaseLost] = []
        with self._lock:
            now = self._clock.monotonic()
            for one, calls in zip(finishes, chained, strict=True):
                lease = self._ledger.leases.get(one.batch.epoch)
                if lease is None:
                    answers.append(lease_lost(one.batch))
                    continue
                answers.append(self._ledger.settle_batch(lease, one.outcomes, now))
                touched: dict[LaneQueue, None] = {lease.home: None}
                self._chain(one.followups, calls, touched)
                for line in touched:
                    self._ledger.refresh(line, now)
        return answers

    def renew(self, batches: Sequence[Batch]) -> list[Batch]:
        lost: list[Batch] = []
        with self._lock:
            now = self._clock.monotonic()
            if self._claimed is not None:
                self._claimed = (self._claimed[0], self._clock.now())
            for batch in batches:
                lease = self._ledger.leases.get(batch.epoch)
                if lease is None:
                    lost.append(batch)
                else:
                    self._ledger.prolong(lease, now)
        return lost

    def cancel(self, keys: Sequence[str]) -> list[str]:
        taken: list[str] = []
        with self._lock:
            now = self._clock.monotonic()
            for key in keys:
                if self._ledger.cancel(key, now):
                    taken.append(key)
        return taken

    def is_cancelled(self, key: str) -> bool:
        with self._lock:
            return self._ledger.table.was_cancelled(key)

    def depth(self, *, lanes: bool = True) -> QueueDepth:
        with self._lock:
            return self._ledger.depth(self._clock.monotonic(), dead=len(self._dead), lanes=lanes)

    def instances(self) -> list[Instance]:
        with self._lock:
            if self._claimed is None or self._closed:
                return []
            labels, seen_at = self._claimed
            if self._clock.now() - seen_at > INSTANCE_SEEN_S and not self._ledger.leases:
                return []
            me = self._identity
            return [Instance(me.name, me.host, me.pid, labels, self._since, seen_at)]

    def leases(self, *, limit: int = 100) -> list[HeldLease]:
        with self._lock:
            return self._ledger.held_leases(self._clock.monotonic(), limit=limit)

    def live(self, keys: Collection[str]) -> set[str]:
        with self._lock:
            return {key for key in keys if self._ledger.table.get(key) is not None}

    def statuses(
        self,
        *,
        user_id: str | None = None,
        item_id: str | None = None,
        task_id: str | None = None,
        limit: int | None = None,
    ) -> list[TaskStatus]:
        with self._lock:
            table = self._ledger.table
            table.forget_old(self._clock.now())
            return table.find(user_id=user_id, item_id=item_id, task_id=task_id, limit=limit)

    def get(self, keys: Sequence[str]) -> list[Delivery]:
        with self._lock:
            found = [(key, self._ledger.table.get(key)) for key in keys]
            live = [pack.only(key) for key, pack in found if pack is not None and pack.home is not None]
            return [one for pack in live for one in deliveries_of([pack], stream=pack.line.name)]

    def clear(self) -> int:
        with self._lock:
            self._tokens.clear()
            self._idempotent.clear()
            return self._ledger.clear()

    def wake(self) -> None:
        with self._lock:
            self._wakes += 1
            self._waiters.call_all()

    def close(self) -> None:
        """Refuse new work and let waiting claims return. What runs may still be finished."""
        with self._lock:
            self._closed = True
            self._wakes += 1
            self._waiters.call_all()

    # -- inside -----------------------------------------------------------------------------------

    def _chained(self, followups: Sequence[Followup]) -> list[Call]:
        self._limits.check_payloads([followup.message for followup in followups])
        return [gather([followup.key], [followup.message]) for followup in followups]

    def _refuse_closed(self) -> None:
        if self._closed:
            raise QueueUnavailable("the queue is closed; build a new runtime to go on")

    def _all_join(self, call: Call) -> bool:
        wanted: Counter[tuple[LaneId, str]] = Counter()
        for pack, lane_id in call.packs.items():
            wanted[lane_id, pack.label] += len(pack.fields)
        return all(self._ledger.joins(lane_id, label, n) for (lane_id, label), n in wanted.items())

    def _known_answer(self, scoped: ScopedKey, now: float) -> list[str] | None:
        """What the call with that key was answered. QueueFull when a new one cannot be remembered."""
        while self._idempotent:
            scope, (_, _, end) = next(iter(self._idempotent.items()))
            if end > now:
                break
            del self._idempotent[scope]
        known = self._idempotent.get(scoped.scope)
        if known is not None:
            scoped.check(known[0])
            return list(known[1])
        if len(self._idempotent) >= self._limits.idempotency_keys_max:
            raise refuse_more_keys(self._limits.idempotency_keys_max)
        return None

    def _held_by(self, lane_id: LaneId) -> int:
        line = self._ledger.lines.get(lane_id)
        return line.held if line is not None else 0

    def _chain(
        self,
        followups: Sequence[Followup],
        chained: list[Call],
        touched: dict[LaneQueue, None],
    ) -> None:
        """Queue those followups that are not live yet; they are never refused."""
        for followup, call in zip(followups, chained, strict=True):
            if self._ledger.table.get(followup.key) is None:
                self._ledger.table.give_way(followup.key)
                self._ledger.enter(
                    call,
                    touched,
                    now=self._clock.monotonic(),
                    wall=self._clock.now(),
                    delay_s=followup.delay_s,
                    parent_key=followup.parent_key,
                )

    def _pass_on(self) -> None:
        """A claim ends: one more waiter looks after what is left, now or when it is due."""
        if len(self._waiters):
            self._waiters.call_if(self._ledger.ready.has)
            due_at = self._ledger.timers.next_due()
            if due_at is not None:
                self._waiters.call_by(due_at)

    def _policy_changed(self, label: str) -> None:
        with self._lock:
            self._ledger.policy_changed(label, self._clock.monotonic())
