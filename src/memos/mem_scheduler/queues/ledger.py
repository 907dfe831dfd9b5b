"""The books of the in-memory queue: every message, lane and lease, and the moves between their places.

No locks, no waiting, no checks of what callers give: `LocalQueue` holds its lock around each call and
does those. What this module keeps true: a message is in exactly one place; the counts agree with the
places; a lane exists while it holds messages; it stands in the ready order exactly while it can be
claimed; everything with a due time has a timer. Times are monotonic unless named `wall`.
"""

from __future__ import annotations

import itertools
import random as random_module
from collections.abc import Callable, Iterable, Sequence

from memos.clock import Clock
from memos.mem_scheduler.queues.adaptive import BatchSizes
from memos.mem_scheduler.queues.base import (
    LAG_LOOK_MAX,
    Batch,
    Dead,
    Done,
    HeldLease,
    Lane,
    Outcome,
    PolicyTable,
    QueueDepth,
    Release,
    Settled,
)
from memos.mem_scheduler.queues.caps import UserCaps
from memos.mem_scheduler.queues.columns import build_settled
from memos.mem_scheduler.queues.label_times import TimesByLabel
from memos.mem_scheduler.queues.lanes import LaneQueue, Lease, add
from memos.mem_scheduler.queues.packs import Call, LaneId, Pack, Place, deliveries_of, keys_of
from memos.mem_scheduler.queues.ready import ReadyLanes
from memos.mem_scheduler.queues.served import ServedLabels
from memos.mem_scheduler.queues.status_table import StatusTable
from memos.mem_scheduler.queues.timers import Timers
from memos.mem_scheduler.queues.verdicts import Fate, judge_lost, judge_retry
from memos.mem_scheduler.queues.waiters import Waiters
from memos.mem_scheduler.schemas.task_schemas import TaskState, class_of

ABSORBED_MAX = 64  # messages that one message may run for, so that nobody is put off without end

_LEASED = Place.LEASED  # looking up a member of an enumeration costs more than a dictionary entry
_DONE = Place.DONE
_COMPLETED = TaskState.COMPLETED

_Subject = Pack | LaneQueue | Lease


class Ledger:
    """The state of a `LocalQueue`. Not thread-safe."""

    def __init__(
        self,
        policies: PolicyTable,
        *,
        clock: Clock,
        waiters: Waiters,
        source: random_module.Random,
        weight_of: Callable[[str], float],
        status_entries_max: int,
        bury: Callable[[Pack], None],
        user_batches_max: int = 0,
        instance: str = "",
    ) -> None:
        """`bury` takes a message that was given up to the dead letters; `instance` holds the leases."""
        self.policies = policies
        self.table = StatusTable(settled_max=status_entries_max)
        self.caps = UserCaps(user_batches_max)
        self.ready = ReadyLanes(policies, weight_of, aside=self.caps.aside)
        self.served = ServedLabels()
        self.timers: Timers[_Subject] = Timers(self._applies)
        self.held = 0  # queued, delayed, leased and coalesced
        self.lines: dict[LaneId, LaneQueue] = {}
        self.leases: dict[int, Lease] = {}  # by epoch
        self._clock = clock
        self._waiters = waiters
        self._random = source
        self._weight_of = weight_of
        self._instance = instance
        self._put_dead = bury
        self._times = TimesByLabel()
        self._sizes = BatchSizes()
        self._epoch = 0
        self._queued = 0
        self._delayed = 0
        self._running = 0

    # -- in ---------------------------------------------------------------------------------------

    def enter(
        self,
        call: Call,
        touched: dict[LaneQueue, None],
        *,
        now: float,
        wall: float,
        delay_s: float = 0.0,
        parent_key: str = "",
    ) -> None:
        """New messages. Their lanes are added to `touched`: the caller follows with `refresh` of each."""
        self.table.add(call)
        self.held += len(call.keys)
        for pack, lane_id in call.packs.items():
            line = self.lines.get(lane_id) or self._open(lane_id)
            touched[line] = None
            pack.join(line, now=now, wall=wall)
            line.held += len(pack.fields)
            if parent_key:
                pack.parent_key = parent_key
            if delay_s > 0:
                self._delay(pack, line, now + delay_s)
                continue
            self._queued += len(pack.fields)
            if self.policies.get(pack.label).coalesce:
                for one in self._apart(pack):
                    self._absorb(line.newest.get(one.label), one, line)
                    line.newest[one.label] = one
                    line.append(one)
                continue
            if line.newest:
                line.newest.pop(pack.label, None)  # of a time in which the label coalesced: this one is newer
            line.append(pack)

    def refresh(self, line: LaneQueue, now: float) -> None:
        """After any change to a lane: its place in the ready order, its timer, its end; wake a waiter."""
        if self.ready.update(line, now):
            if line.ready_label is not None and line.lane.user_id not in self.caps.aside:
                self._waiters.call(line.ready_label)
            return
        head = line.head
        if head is not None:
            if head.due_at > now and line.timer_at != head.due_at:
                line.timer_at = head.due_at
                self._remind(head.due_at, line)
        elif not line.held:
            lane = line.lane
            lane_id = (lane.user_id, lane.mem_cube_id, lane.task_class)
            if self.lines.get(lane_id) is line:
                del self.lines[lane_id]
                self.ready.closed(line)

    def requeue(self, letters: list[Pack]) -> None:
        """Dead letters get fresh budgets and the end of their lanes."""
        now = self._clock.monotonic()
        for pack in letters:
            lane_id = (pack.lane.user_id, pack.lane.mem_cube_id, pack.lane.task_class)
            line = self.lines.get(lane_id) or self._open(lane_id)
            pack.begin_again(line, now)
            line.append(pack)
            self._queued += 1
            line.held += 1 + len(pack.absorbed)
            self.held += 1 + len(pack.absorbed)
            self.refresh(line, now)

    def _open(self, lane_id: LaneId) -> LaneQueue:
        line = self.lines[lane_id] = LaneQueue(Lane(*lane_id))
        self.ready.opened(line)
        return line

    def _absorb(self, older: Pack | None, pack: Pack, line: LaneQueue) -> None:
        """`pack` will run for `older` too, which waits unrun. It runs in its own place: order stays."""
        if older is None or len(older.absorbed) >= ABSORBED_MAX:
            return
        line.take_out(older)
        self._queued -= 1
        pack.absorb((older, *older.absorbed))

    def joins(self, lane_id: LaneId, label: str, number: int) -> bool:
        """Whether so many new messages would be absorbed or absorb, so that no more wait than before."""
        line = self.lines.get(lane_id)
        older = line.newest.get(label) if line is not None and self.policies.get(label).coalesce else None
        return older is not None and len(older.absorbed) + number <= ABSORBED_MAX

    def _delay(self, pack: Pack, line: LaneQueue, due_at: float) -> None:
        pack.place = Place.DELAYED
        pack.due_at = due_at
        line.later[pack] = None
        add(line.delayed, pack.label, len(pack.fields))
        self._delayed += len(pack.fields)
        self._remind(due_at, pack)

    def _remind(self, due_at: float, subject: _Subject) -> None:
        self.timers.push(due_at, subject)
        self._waiters.call_by(due_at)

    def _applies(self, subject: _Subject, due_at: float) -> bool:
        if isinstance(subject, Pack):
            return subject.place is Place.DELAYED and subject.due_at == due_at
        if isinstance(subject, LaneQueue):
            head = subject.head
            return head is not None and head.due_at == due_at
        return subject.timer_at == due_at and self.leases.get(subject.epoch) is subject

    # -- out --------------------------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """Everything that is due: ends of delays, ends of blocks, lost leases."""
        while (subject := self.timers.pop_due(now)) is not None:
            if isinstance(subject, Pack):
                self._ripen(subject, now)
            elif isinstance(subject, LaneQueue):
                self.refresh(subject, now)
            elif subject.expires_at > now:  # it was renewed meanwhile
                subject.timer_at = subject.expires_at
                self.timers.push(subject.timer_at, subject)
            else:
                self._lose(subject, now)

    def next_batch(
        self, wanted: frozenset[str], *, batch_max: int | None, now: float, wall: float
    ) -> Batch | None:
        """Lease the next batch; None when nothing of `wanted` is ready."""
        line = self.ready.pick(wanted)
        if line is None:
            return None
        packs = self._take(line, wanted, batch_max, now)
        labels: dict[str, int] = {}
        for pack in packs:
            pack.place = _LEASED
            pack.started_at = wall
            pack.due_at = 0.0
            labels[pack.label] = labels.get(pack.label, 0) + len(pack.fields)
        length_s = self.lease_s(labels)
        self._epoch += 1
        lease = Lease(
            self._epoch, line, line.free_slot(), packs, labels, wanted, now, now + length_s, now + length_s
        )
        for label, number in labels.items():
            line.count(label, -number)
            add(line.running, label, number)
        self._queued -= lease.count
        self._running += lease.count
        line.leases[lease.slot] = lease
        self.leases[lease.epoch] = lease
        if self.caps.leased(line.lane.user_id, lease.epoch):
            self.ready.set_aside(line.lane.user_id)
        self.served.leased(wanted)
        self.timers.push(lease.timer_at, lease)
        self.ready.charge(line, lease.count)
        self.refresh(line, now)
        deliveries = deliveries_of(packs, stream=line.name)
        return Batch(line.lane, lease.slot, lease.epoch, deliveries, wall + length_s)

    def lease_s(self, labels: Iterable[str]) -> float:
        """The length of a lease: the shortest of its labels'."""
        return min([self.policies.get(label).min_idle_ms for label in labels]) / 1000.0

    def prolong(self, lease: Lease, now: float) -> None:
        lease.expires_at = now + self.lease_s(lease.labels)
        if lease.expires_at < lease.timer_at:
            lease.timer_at = lease.expires_at
            self._remind(lease.timer_at, lease)

    def _take(self, line: LaneQueue, wanted: frozenset[str], batch_max: int | None, now: float) -> list[Pack]:
        """Take from the head what one batch may hold: a message whose lease was lost goes alone. A pack that
        does not fit whole is divided."""
        limit = batch_max or line.waiting
        packs: list[Pack] = []
        count = 0
        seen = ""
        for pack in line.queue:
            if pack.label != seen:
                seen = pack.label
                if seen not in wanted:
                    break
                its = min(limit, self.policies.get(seen).batch_size_max, self._sizes.of(seen))
                if count and count >= its:  # what stands before it goes whole
                    break
                limit = its
            if count >= limit or pack.due_at > now or (count and pack.recoveries):
                break
            packs.append(pack)
            count += len(pack.fields)
            if pack.recoveries:
                break
        last = packs[-1]
        keep = 1 if last.recoveries else len(last.fields) - max(0, count - limit)
        if keep < len(last.fields):  # the rest stays where the pack stands
            packs[-1] = last.cut(0, keep)
            self.table.stand_for(packs[-1])
        else:
            del line.queue[last]
        for pack in packs[:-1]:
            del line.queue[pack]
        if line.newest:
            for pack in packs:
                if line.newest.get(pack.label) is pack:
                    del line.newest[pack.label]
        return packs

    def _ripen(self, pack: Pack, now: float) -> None:
        """A delay is over: the messages join the end of their lane."""
        line = pack.line
        self._undelay(pack, line)
        pack.place = Place.QUEUED
        pack.ready_at, pack.due_at = pack.due_at, 0.0
        line.append(pack)
        self._queued += len(pack.fields)
        self.refresh(line, now)

    def _undelay(self, pack: Pack, line: LaneQueue) -> None:
        del line.later[pack]
        add(line.delayed, pack.label, -len(pack.fields))
        self._delayed -= len(pack.fields)

    def _lose(self, lease: Lease, now: float) -> None:
        """Nobody renewed the lease: its messages go back to the head, to be claimed one at a time."""
        self._end(lease)
        self._sizes.reset(lease.labels)
        back: list[Pack] = []
        for pack in lease.packs:
            pack.recoveries += 1
            pack.ready_at = now
            dead = judge_lost(self.policies.get(pack.label), recoveries=pack.recoveries) is Fate.DEAD
            for one in self._apart(pack) if dead or pack.asked else (pack,):
                if one.key in one.asked:
                    self._settle(one, Place.CANCELLED, self._clock.now())
                elif dead:
                    self._bury(one, f"its lease was lost {one.recoveries} times: no worker survived the run")
                else:
                    back.append(one)
        self._return(lease.home, back)
        self.refresh(lease.home, now)

    # -- settling ---------------------------------------------------------------------------------

    def settle_batch(self, lease: Lease, outcomes: Sequence[Outcome], now: float) -> list[Settled]:
        """What becomes of each message. The caller follows with `refresh` of the lease's lane."""
        self._end(lease)
        self._record(lease, outcomes, now)
        wall = self._clock.now()
        if set(map(type, outcomes)) == {Done}:
            keys = keys_of(lease.packs)
            self._all_done(lease, wall)
            return build_settled(keys, _COMPLETED)
        back: list[Pack] = []
        settled: list[Settled] = []
        for pack in lease.packs:
            own = outcomes[len(settled) : len(settled) + len(pack.fields)]
            kinds = set(map(type, own))
            together = not pack.asked and kinds in ({Done}, {Release})
            for one, outcome in zip((pack,) if together else self._apart(pack), own):  # noqa: B905 - as above
                keys = one.keys
                state, error = self._apply(one, outcome, back, now, wall)
                settled += [Settled(key, state, error) for key in keys]
        self._return(lease.home, back)
        return settled

    def _all_done(self, lease: Lease, wall: float) -> None:
        if len(lease.labels) > 1 or any(pack.retried or pack.absorbed for pack in lease.packs):
            for pack in lease.packs:
                self._settle(pack, _DONE, wall)
            return
        for pack in lease.packs:
            pack.place = _DONE
        lease.home.held -= lease.count
        self.held -= lease.count
        self.table.settle(lease.packs, wall)

    def _apart(self, pack: Pack) -> list[Pack]:
        """Each message of the pack as a pack of its own."""
        if len(pack.fields) == 1:
            return [pack]
        singles = [pack.part(at, at + 1) for at in range(len(pack.fields))]
        for one in singles:
            self.table.stand_for(one)
        return singles

    def _apply(
        self, pack: Pack, outcome: Outcome, back: list[Pack], now: float, wall: float
    ) -> tuple[TaskState, str]:
        """What becomes of messages that go the same way: several only where they are done or released."""
        if isinstance(outcome, Done):
            self._settle(pack, _DONE, wall)
            return _COMPLETED, ""
        if isinstance(outcome, Dead):
            self._bury(pack, outcome.error)
            return TaskState.FAILED, outcome.error
        if pack.key in pack.asked:
            self._settle(pack, Place.CANCELLED, wall)
            return TaskState.CANCELLED, ""
        pack.ready_at = now
        if isinstance(outcome, Release):
            back.append(pack)
            return TaskState.WAITING, ""
        verdict = judge_retry(
            outcome,
            self.policies.get(pack.label),
            attempts=pack.attempts,
            blocked_s=None if pack.blocked_since is None else now - pack.blocked_since,
            source=self._random,
        )
        pack.attempts = verdict.attempts
        pack.error = verdict.error
        pack.retried = True
        if verdict.fate is Fate.DEAD:
            self._bury(pack, verdict.error)
            return TaskState.FAILED, verdict.error
        line = pack.line
        if verdict.fate is Fate.HEAD:
            if pack.blocked_since is None:
                pack.blocked_since = now
            pack.due_at = pack.ready_at = now + verdict.delay_s
            back.append(pack)
        elif verdict.delay_s > 0:
            self._delay(pack, line, now + verdict.delay_s)
        else:
            pack.place = Place.QUEUED
            line.append(pack)
            self._queued += 1
        return TaskState.RETRYING, verdict.error

    def _end(self, lease: Lease) -> None:
        """Nobody holds these messages any more."""
        del self.leases[lease.epoch]
        line = lease.home
        del line.leases[lease.slot]
        self.served.ended(lease.claimed_labels)
        user_id = line.lane.user_id
        if self.caps.ended(user_id, lease.epoch):
            for label in self.ready.bring_back(user_id):
                self._waiters.call(label)
        for label, number in lease.labels.items():
            add(line.running, label, -number)
        self._running -= lease.count

    def _record(self, lease: Lease, outcomes: Sequence[Outcome], now: float) -> None:
        took_s = now - lease.claimed_at
        kinds = list(map(type, outcomes))
        if Release not in kinds:
            self._sizes.record(lease.labels, lease.count, took_s)
        waits: dict[str, list[float]] = {label: [] for label in lease.labels}
        at = 0
        for pack in lease.packs:
            done = kinds[at : at + len(pack.fields)].count(Done)
            waits[pack.label] += [lease.claimed_at - pack.ready_at] * done
            at += len(pack.fields)
        for label, waited_s in waits.items():
            if waited_s:
                self._times.record(label, waited_s=waited_s, ran_s=took_s)

    def _return(self, line: LaneQueue, back: list[Pack]) -> None:
        for pack in back:
            pack.place = Place.QUEUED
            self._queued += len(pack.fields)
        line.put_back(back)

    def _settle(self, pack: Pack, place: Place, wall: float) -> None:
        """Done or cancelled, with all that it runs for."""
        line = pack.line
        count = len(pack.fields) + len(pack.absorbed)
        for one in pack.absorbed:
            one.settle_with(pack, place)
            self.table.settle((one,), wall)
        line.held -= count
        self.held -= count
        if place is _DONE:
            pack.error = ""
        pack.place = place
        self.table.settle((pack,), wall)

    def _bury(self, pack: Pack, error: str) -> None:
        """To the dead letters, one message; what it ran for waits there with it."""
        line = pack.line
        line.held -= 1 + len(pack.absorbed)
        self.held -= 1 + len(pack.absorbed)
        pack.place = Place.DEAD
        pack.error = error
        pack.finished_at = self._clock.now()
        pack.leave()
        self._put_dead(pack)

    def forget_letter(self, letter: Pack) -> None:
        """A dead letter is purged or pushed out: only its status row stays."""
        wall = self._clock.now()
        for one in letter.absorbed:
            one.settle_with(letter, Place.GONE)
            self.table.settle((one,), wall)
        letter.place = Place.GONE
        self.table.settle((letter,), wall)

    # -- cancelling -------------------------------------------------------------------------------

    def cancel(self, key: str, now: float) -> bool:
        """Take a waiting message out; ask a running one to stop. True when it was taken out."""
        pack = self.table.get(key)
        if pack is None:
            return False
        if pack.place is Place.LEASED:
            pack.asked |= {key}
            return False
        if pack.place is Place.COALESCED:
            runner = pack.into
            if runner is None or runner.place not in (Place.QUEUED, Place.DELAYED):
                return False  # its runner is at work or dead: it no longer waits
            runner.absorbed = tuple(one for one in runner.absorbed if one is not pack)
        elif pack.place is Place.DELAYED:
            pack = self._single_out(pack, key)
            if pack.absorbed:
                heir = pack.hand_over()
                pack.line.append(heir)
                self._queued += 1
        elif pack.place is Place.QUEUED:
            if pack.absorbed:
                pack.line.replace(pack, pack.hand_over())
            else:
                pack = self._single_out(pack, key)
        else:
            return False
        line = pack.line
        self._settle(pack, Place.CANCELLED, self._clock.now())
        self.refresh(line, now)
        return True

    def _single_out(self, pack: Pack, key: str) -> Pack:
        """Take a waiting message out of its pack, and that out of its place when nothing is left of it."""
        line, delayed = pack.line, pack.place is Place.DELAYED
        if len(pack.fields) == 1:
            if delayed:
                self._undelay(pack, line)
            else:
                line.take_out(pack)
                self._queued -= 1
            return pack
        at = pack.keys.index(key)
        one = pack.cut(at, at + 1)
        self.table.stand_for(one)
        if delayed:
            add(line.delayed, one.label, -1)
            self._delayed -= 1
        else:
            line.count(one.label, -1)
            self._queued -= 1
        return one

    def clear(self) -> int:
        """Cancel everything that waits or runs; running leases are fenced. Returns how many messages."""
        wall = self._clock.now()
        count = 0
        for line in self.lines.values():
            leased = [pack for lease in line.leases.values() for pack in lease.packs]
            for pack in (*line.queue, *line.later, *leased):
                for one in (*pack.absorbed, pack):
                    count += len(one.fields)
                    one.place = Place.CANCELLED
                    self.table.settle((one,), wall)
        for lease in self.leases.values():
            self.served.ended(lease.claimed_labels)
        self.leases.clear()
        self.lines.clear()
        self.timers.clear()
        self.caps.clear()
        self.ready = ReadyLanes(self.policies, self._weight_of, aside=self.caps.aside)
        self.held = self._queued = self._delayed = self._running = 0
        return count

    # -- seen from outside ------------------------------------------------------------------------

    def policy_changed(self, label: str, now: float) -> None:
        """Held leases take the new length at once, and lanes of the label its slots."""
        for lease in self.leases.values():
            if label in lease.labels:
                self.prolong(lease, now)
        task_class = class_of(label)
        for line in [line for line in self.lines.values() if line.lane.task_class == task_class]:
            self.refresh(line, now)

    def held_leases(self, now: float, *, limit: int) -> list[HeldLease]:
        """The longest held first; epochs only rise."""
        return [
            HeldLease(
                lease.home.lane,
                lease.slot,
                lease.epoch,
                self._instance,
                dict(lease.labels),
                held_s=now - lease.claimed_at,
                expires_in_s=lease.expires_at - now,
            )
            for lease in itertools.islice(self.leases.values(), limit)
        ]

    def depth(self, now: float, *, dead: int, lanes: bool) -> QueueDepth:
        served = self.served.now_served(now)
        parked = sum(n for label, n in self.ready.waiting_by_head.items() if label not in served)
        return QueueDepth(
            remaining=self._queued + self._delayed,
            running=self._running,
            queued=self._queued - parked,
            delayed=self._delayed,
            parked=parked,
            dead=dead,
            lanes=tuple(
                line.depth(
                    parked=line.head_label is not None and line.head_label not in served,
                    now=now,
                    look_max=LAG_LOOK_MAX,
                )
                for line in self.lines.values()
            )
            if lanes
            else (),
            times=self._times.summary(),
        )
