"""The books of the in-memory queue: every message, lane and lease, and the moves between their places.

No locks, no waiting, no checks of what callers give: `LocalQueue` holds its lock around each call and
does those. What this module keeps true: a message is in exactly one place; the counts agree with the
places; a lane exists while it holds messages; it stands in the ready order exactly while it can be
claimed; everything with a due time has a timer. Times are monotonic unless named `wall`.
"""

from __future__ import annotations

import itertools
import random as random_module
from collections import Counter
from collections.abc import Callable, Sequence

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
from memos.mem_scheduler.queues.entries import Entry, LaneId, Place, Values, deliveries_of
from memos.mem_scheduler.queues.label_times import TimesByLabel
from memos.mem_scheduler.queues.lanes import LaneQueue, Lease, add
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

_Subject = Entry | LaneQueue | Lease


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
        bury: Callable[[Entry], None],
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
        key: str,
        values: Values,
        *,
        lane_id: LaneId,
        now: float,
        wall: float,
        delay_s: float = 0.0,
        parent_key: str = "",
    ) -> LaneQueue:
        """A new message. The caller follows with `refresh` of the lane that is returned."""
        line = self.lines.get(lane_id) or self._open(lane_id)
        entry = Entry(key, line, values, enqueued_at=wall, ready_at=now)
        if parent_key:
            entry.parent_key = parent_key
        line.held += 1
        self.held += 1
        self.table.add(entry)
        if delay_s > 0:
            self._delay(entry, line, now + delay_s)
            return line
        if self.policies.get(entry.label).coalesce:
            self._absorb(line.newest.get(entry.label), entry, line)
            line.newest[entry.label] = entry
        elif line.newest:
            line.newest.pop(entry.label, None)  # of a time in which the label coalesced: this one is newer
        line.append(entry)
        self._queued += 1
        return line

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

    def requeue(self, entries: list[Entry]) -> None:
        """Dead letters get fresh budgets and the end of their lanes."""
        now = self._clock.monotonic()
        for entry in entries:
            lane_id = (entry.lane.user_id, entry.lane.mem_cube_id, entry.lane.task_class)
            line = self.lines.get(lane_id) or self._open(lane_id)
            entry.begin_again(line, now)
            line.append(entry)
            self._queued += 1
            line.held += 1 + len(entry.absorbed)
            self.held += 1 + len(entry.absorbed)
            self.refresh(line, now)

    def _open(self, lane_id: LaneId) -> LaneQueue:
        line = self.lines[lane_id] = LaneQueue(Lane(*lane_id))
        self.ready.opened(line)
        return line

    def _absorb(self, older: Entry | None, entry: Entry, line: LaneQueue) -> None:
        """`entry` will run for `older` too, which waits unrun. It runs in its own place: order stays."""
        if older is None or len(older.absorbed) >= ABSORBED_MAX:
            return
        line.take_out(older)
        self._queued -= 1
        entry.absorb((older, *older.absorbed))

    def joins(self, lane_id: LaneId, label: str, number: int) -> bool:
        """Whether so many new messages would be absorbed or absorb, so that no more wait than before."""
        line = self.lines.get(lane_id)
        older = line.newest.get(label) if line is not None and self.policies.get(label).coalesce else None
        return older is not None and len(older.absorbed) + number <= ABSORBED_MAX

    def _delay(self, entry: Entry, line: LaneQueue, due_at: float) -> None:
        entry.place = Place.DELAYED
        entry.due_at = due_at
        line.later[entry.key] = entry
        add(line.delayed, entry.label, 1)
        self._delayed += 1
        self._remind(due_at, entry)

    def _remind(self, due_at: float, subject: _Subject) -> None:
        self.timers.push(due_at, subject)
        self._waiters.call_by(due_at)

    def _applies(self, subject: _Subject, due_at: float) -> bool:
        if isinstance(subject, Entry):
            return subject.place is Place.DELAYED and subject.due_at == due_at
        if isinstance(subject, LaneQueue):
            head = subject.head
            return head is not None and head.due_at == due_at
        return subject.timer_at == due_at and self.leases.get(subject.epoch) is subject

    # -- out --------------------------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """Everything that is due: ends of delays, ends of blocks, lost leases."""
        while (subject := self.timers.pop_due(now)) is not None:
            if isinstance(subject, Entry):
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
        entries = self._take(line, wanted, batch_max, now)
        counts = Counter([entry.label for entry in entries])
        labels = tuple(counts)
        length_s = self.lease_s(labels)
        self._epoch += 1
        lease = Lease(
            self._epoch, line, line.free_slot(), entries, labels, wanted, now, now + length_s, now + length_s
        )
        for entry in entries:
            entry.place = _LEASED
            entry.started_at = wall
        for label, number in counts.items():
            add(line.queued, label, -number)
            add(line.running, label, number)
        self._queued -= len(entries)
        self._running += len(entries)
        line.leases[lease.slot] = lease
        self.leases[lease.epoch] = lease
        if self.caps.leased(line.lane.user_id, lease.epoch):
            self.ready.set_aside(line.lane.user_id)
        self.served.leased(wanted)
        self.timers.push(lease.timer_at, lease)
        self.ready.charge(line, len(entries))
        self.refresh(line, now)
        deliveries = deliveries_of(entries, stream=line.name)
        return Batch(line.lane, lease.slot, lease.epoch, deliveries, wall + length_s)

    def lease_s(self, labels: Sequence[str]) -> float:
        """The length of a lease: the shortest of its labels'."""
        return min([self.policies.get(label).min_idle_ms for label in labels]) / 1000.0

    def prolong(self, lease: Lease, now: float) -> None:
        lease.expires_at = now + self.lease_s(lease.labels)
        if lease.expires_at < lease.timer_at:
            lease.timer_at = lease.expires_at
            self._remind(lease.timer_at, lease)

    def _take(
        self, line: LaneQueue, wanted: frozenset[str], batch_max: int | None, now: float
    ) -> list[Entry]:
        """Take from the head what one batch may hold: a message whose lease was lost goes alone."""
        limit = batch_max or len(line.queue)
        entries: list[Entry] = []
        seen = ""
        for entry in line.queue.values():
            if entry.label != seen:
                seen = entry.label
                if seen not in wanted:
                    break
                limit = min(limit, self.policies.get(seen).batch_size_max, self._sizes.of(seen))
            if len(entries) >= limit or entry.due_at > now or (entries and entry.recoveries):
                break
            entries.append(entry)
            if entry.recoveries:
                break
        for entry in entries:
            del line.queue[entry.key]
            entry.due_at = 0.0
            if line.newest and line.newest.get(entry.label) is entry:
                del line.newest[entry.label]
        return entries

    def _ripen(self, entry: Entry, now: float) -> None:
        """A delay is over: the message joins the end of its lane."""
        line = entry.line
        self._undelay(entry, line)
        entry.place = Place.QUEUED
        entry.ready_at, entry.due_at = entry.due_at, 0.0
        line.append(entry)
        self._queued += 1
        self.refresh(line, now)

    def _undelay(self, entry: Entry, line: LaneQueue) -> None:
        del line.later[entry.key]
        add(line.delayed, entry.label, -1)
        self._delayed -= 1

    def _lose(self, lease: Lease, now: float) -> None:
        """Nobody renewed the lease: its messages go back to the head, to be claimed one at a time."""
        self._end(lease)
        self._sizes.reset(lease.labels)
        back: list[Entry] = []
        for entry in lease.entries:
            entry.recoveries += 1
            entry.ready_at = now
            fate = judge_lost(self.policies.get(entry.label), recoveries=entry.recoveries)
            if entry.cancel_requested:
                self._settle(entry, Place.CANCELLED, self._clock.now())
            elif fate is Fate.DEAD:
                self._bury(entry, f"its lease was lost {entry.recoveries} times: no worker survived the run")
            else:
                back.append(entry)
        self._return(lease.home, back)
        self.refresh(lease.home, now)

    # -- settling ---------------------------------------------------------------------------------

    def settle_batch(self, lease: Lease, outcomes: Sequence[Outcome], now: float) -> list[Settled]:
        """What becomes of each message. The caller follows with `refresh` of the lease's lane."""
        self._end(lease)
        self._record(lease, outcomes, now)
        wall = self._clock.now()
        if set(map(type, outcomes)) == {Done}:
            for entry in lease.entries:
                self._settle(entry, _DONE, wall)
            return build_settled([entry.key for entry in lease.entries], _COMPLETED)
        back: list[Entry] = []
        settled = [
            self._apply(entry, outcome, back, now, wall)
            for entry, outcome in zip(lease.entries, outcomes, strict=True)
        ]
        self._return(lease.home, back)
        return settled

    def _apply(self, entry: Entry, outcome: Outcome, back: list[Entry], now: float, wall: float) -> Settled:
        if isinstance(outcome, Done):
            self._settle(entry, _DONE, wall)
            return Settled(entry.key, _COMPLETED)
        if isinstance(outcome, Dead):
            self._bury(entry, outcome.error)
            return Settled(entry.key, TaskState.FAILED, outcome.error)
        if entry.cancel_requested:
            self._settle(entry, Place.CANCELLED, wall)
            return Settled(entry.key, TaskState.CANCELLED)
        entry.ready_at = now
        if isinstance(outcome, Release):
            back.append(entry)
            return Settled(entry.key, TaskState.WAITING)
        verdict = judge_retry(
            outcome,
            self.policies.get(entry.label),
            attempts=entry.attempts,
            blocked_s=None if entry.blocked_since is None else now - entry.blocked_since,
            source=self._random,
        )
        entry.attempts = verdict.attempts
        entry.error = verdict.error
        entry.retried = True
        if verdict.fate is Fate.DEAD:
            self._bury(entry, verdict.error)
            return Settled(entry.key, TaskState.FAILED, verdict.error)
        line = entry.line
        if verdict.fate is Fate.HEAD:
            if entry.blocked_since is None:
                entry.blocked_since = now
            entry.due_at = entry.ready_at = now + verdict.delay_s
            back.append(entry)
        elif verdict.delay_s > 0:
            self._delay(entry, line, now + verdict.delay_s)
        else:
            entry.place = Place.QUEUED
            line.append(entry)
            self._queued += 1
        return Settled(entry.key, TaskState.RETRYING, verdict.error)

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
        if len(lease.labels) == 1:
            add(line.running, lease.labels[0], -len(lease.entries))
        else:
            for entry in lease.entries:
                add(line.running, entry.label, -1)
        self._running -= len(lease.entries)

    def _record(self, lease: Lease, outcomes: Sequence[Outcome], now: float) -> None:
        took_s = now - lease.claimed_at
        if Release not in set(map(type, outcomes)):
            self._sizes.record(lease.labels, len(lease.entries), took_s)
        for label in lease.labels:
            waited_s = [
                lease.claimed_at - entry.ready_at
                for entry, outcome in zip(lease.entries, outcomes, strict=True)
                if entry.label == label and isinstance(outcome, Done)
            ]
            if waited_s:
                self._times.record(label, waited_s=waited_s, ran_s=took_s)

    def _return(self, line: LaneQueue, back: list[Entry]) -> None:
        for entry in back:
            entry.place = Place.QUEUED
        line.put_back(back)
        self._queued += len(back)

    def _settle(self, entry: Entry, place: Place, wall: float) -> None:
        """Done or cancelled, with all that it runs for."""
        line = entry.line
        for one in entry.absorbed:
            one.settle_with(entry, place)
            self.table.settle(one, wall)
        line.held -= 1 + len(entry.absorbed)
        self.held -= 1 + len(entry.absorbed)
        if place is _DONE:
            entry.error = ""
        entry.place = place
        self.table.settle(entry, wall)

    def _bury(self, entry: Entry, error: str) -> None:
        """To the dead letters; what it ran for waits there with it."""
        line = entry.line
        line.held -= 1 + len(entry.absorbed)
        self.held -= 1 + len(entry.absorbed)
        entry.place = Place.DEAD
        entry.error = error
        entry.finished_at = self._clock.now()
        entry.leave()
        self._put_dead(entry)

    def forget_letter(self, entry: Entry) -> None:
        """A dead letter is purged or pushed out: only its status row stays."""
        wall = self._clock.now()
        for one in entry.absorbed:
            one.settle_with(entry, Place.GONE)
            self.table.settle(one, wall)
        entry.place = Place.GONE
        self.table.settle(entry, wall)

    # -- cancelling -------------------------------------------------------------------------------

    def cancel(self, entry: Entry, now: float) -> bool:
        """Take a waiting message out; ask a running one to stop. True when it was taken out."""
        if entry.place is Place.LEASED:
            entry.cancel_requested = True
            return False
        if entry.place is Place.COALESCED:
            runner = entry.into
            if runner is None or runner.place not in (Place.QUEUED, Place.DELAYED):
                return False  # its runner is at work or dead: it no longer waits
            runner.absorbed = tuple(one for one in runner.absorbed if one is not entry)
        elif entry.place is Place.DELAYED:
            self._undelay(entry, entry.line)
            if entry.absorbed:
                heir = entry.hand_over()
                entry.line.append(heir)
                self._queued += 1
        elif entry.place is Place.QUEUED:
            if entry.absorbed:
                entry.line.replace(entry, entry.hand_over())
            else:
                entry.line.take_out(entry)
                self._queued -= 1
        else:
            return False
        line = entry.line
        self._settle(entry, Place.CANCELLED, self._clock.now())
        self.refresh(line, now)
        return True

    def clear(self) -> int:
        """Cancel everything that waits or runs; running leases are fenced. Returns how many messages."""
        wall = self._clock.now()
        count = 0
        for line in self.lines.values():
            leased = [entry for lease in line.leases.values() for entry in lease.entries]
            for entry in (*line.queue.values(), *line.later.values(), *leased):
                for one in (*entry.absorbed, entry):
                    one.place = Place.CANCELLED
                    self.table.settle(one, wall)
                    count += 1
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
                dict(Counter(entry.label for entry in lease.entries)),
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
