"""What becomes of leased, dead and cancelled messages, with the rules of `queues.verdicts`.

Works inside one transaction. A batch whose messages are all done is settled by a few statements however
long it is; only messages with another outcome are looked at one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from memos.errors import LeaseLost
from memos.mem_scheduler.queues.base import Batch, Dead, Done, Outcome, Release, Settled
from memos.mem_scheduler.queues.columns import build_settled
from memos.mem_scheduler.queues.sqlite import calls, history
from memos.mem_scheduler.queues.sqlite.ledger import lease_s
from memos.mem_scheduler.queues.sqlite.packs import (
    Pack,
    delete_packs,
    insert_packs,
    load_packs,
    pack_of,
    save_packs,
    single_out,
)
from memos.mem_scheduler.queues.sqlite.rows import (
    CANCELLED,
    COALESCED,
    DEAD,
    DELAYED,
    DONE,
    GONE,
    QUEUED,
    LaneRow,
    LeaseRow,
)
from memos.mem_scheduler.queues.sqlite.session import Session
from memos.mem_scheduler.queues.verdicts import Fate, judge_lost, judge_retry
from memos.mem_scheduler.schemas.task_schemas import TaskState, class_of

SAMPLES_KEPT = 64  # batches of a label whose times are kept

_LEASE = (
    "SELECT epoch, lane, slot, packs, labels, waits, plain, started_at, claimed_at, expires_at"
    " FROM lease WHERE "
)
_IN = "id IN (SELECT value FROM json_each(?))"


def find_leases(session: Session, where: str, parameters: Sequence[object]) -> list[LeaseRow]:
    """The leases that fulfil `where` (a constant text of this package)."""
    found = session.connection.execute(_LEASE + where, parameters).fetchall()
    return [
        LeaseRow(epoch, lane, slot, packs, json.loads(labels), json.loads(waits), bool(plain), *times)
        for epoch, lane, slot, packs, labels, waits, plain, *times in found
    ]


def prolong(session: Session, leases: Sequence[LeaseRow]) -> None:
    """The leases begin anew, by the lengths that the policies have now."""
    session.connection.executemany(
        "UPDATE lease SET expires_at = ? WHERE epoch = ?",
        [(session.now + lease_s(session, lease.labels), lease.epoch) for lease in leases],
    )


def settle_batch(
    session: Session, batch: Batch, outcomes: Sequence[Outcome]
) -> tuple[list[Settled], LaneRow]:
    """What becomes of each message. The caller follows with `refresh` of the lane that is returned."""
    leases = find_leases(session, "epoch = ?", (batch.epoch,))
    if not leases:
        raise LeaseLost(f"the lease of a batch of lane {batch.lane} was lost (epoch {batch.epoch})")
    lease = leases[0]
    line = session.lane(lease.lane)
    asked = _end(session, line, lease)
    _record(session, lease, batch, outcomes)
    if lease.plain and set(map(type, outcomes)) == {Done}:
        history.all_done(session, lease, user_id=line.user_id, mem_cube_id=line.mem_cube_id)
        count = len(outcomes)
        line.held -= count
        session.counters.held -= count
        prune(session)
        return build_settled([one.key for one in batch.deliveries], _COMPLETED), line
    settled: list[Settled] = []
    moving = _Moving(session, line)
    for pack in _held_packs(session, lease):
        own = outcomes[len(settled) : len(settled) + pack.count]
        keys = [named[0] for named in pack.named()]
        moving.take(pack)
        for start, stop in _alike(own, pack.id, asked):
            part = pack.part(start, stop)
            one = _apply(moving, part, own[start], asked=part.id in asked)
            settled += [Settled(key, *one) for key in keys[start:stop]]
    moving.end()
    return settled, line


def lose(session: Session, lease: LeaseRow) -> None:
    """Nobody renewed the lease: its messages go back to the head, to be claimed one at a time."""
    line = session.lane(lease.lane)
    asked = _end(session, line, lease)
    session.rules.sizes.reset(lease.labels)
    moving = _Moving(session, line)
    for pack in _held_packs(session, lease):
        moving.take(pack)
        pack.recoveries += 1
        pack.ready_at = session.now
        dead = judge_lost(session.policy(pack.label), recoveries=pack.recoveries) is Fate.DEAD
        for start, stop in _alike([None] * pack.count, pack.id, asked, apart=dead):
            part = pack.part(start, stop)
            if part.id in asked:
                moving.settle(part, CANCELLED)
            elif dead:
                moving.bury(
                    part,
                    f"its lease was lost {part.recoveries} times: no worker survived the run",
                    asked=False,
                )
            else:
                moving.put_back(part)
    moving.end()
    session.refresh(line)


class _Moving:
    """Messages of one lane that leave a lease, each its own way; their rows are written at the end."""

    def __init__(self, session: Session, line: LaneRow) -> None:
        self.session = session
        self._line = line
        self._taken: list[int] = []
        self._living: list[Pack] = []
        self._ended: list[Pack] = []

    def take(self, pack: Pack) -> None:
        """The pack as it stands in the file; its parts come back by the methods below."""
        self._taken.append(pack.id)
        pack.fresh = 0
        pack.due_at = 0.0

    def put_back(self, pack: Pack) -> None:
        """To the head of the lane, in its old place."""
        line = self._line
        line.queued += pack.count
        line.cursor = min(line.cursor, pack.pos - 1)
        line.head_known = False
        self._living.append(pack)

    def put_aside(self, pack: Pack, delay_s: float) -> None:
        """To the end of the lane, after the delay."""
        session, line = self.session, self._line
        if delay_s > 0:
            pack.place, pack.due_at = DELAYED, session.now + delay_s
            line.delayed += pack.count
            session.note_due(pack.due_at)
        else:
            pack.pos = session.next_numbers(pack.count)
            line.queued += pack.count
            line.head_known = False
        self._living.append(pack)

    def bury(self, pack: Pack, error: str, *, asked: bool) -> None:
        """To the dead letters, one message; what it ran for waits there with it."""
        session = self.session
        _hold_less(session, self._line, 1 + pack.absorbed)
        pack.place, pack.error, pack.died_no = DEAD, error, session.next_number()
        pack.cancel_requested = int(asked)
        pack.finished_at = session.wall
        session.counters.dead += 1
        self._living.append(pack)

    def settle(self, pack: Pack, place: int) -> None:
        """Done or cancelled, with all that it runs for."""
        ended = _with_absorbed(self.session, pack, place)
        _hold_less(self.session, self._line, sum(one.count for one in ended))
        self._ended += ended

    def end(self) -> None:
        connection = self.session.connection
        delete_packs(connection, self._taken)
        insert_packs(connection, self._living)
        history.end(self.session, self._ended)
        prune(self.session)


def _alike(
    outcomes: Sequence[Outcome | None], first_id: int, asked: set[int], *, apart: bool = False
) -> list[tuple[int, int]]:
    """Runs of messages that go the same way and may stay together: from, up to."""
    runs: list[tuple[int, int]] = []
    before: object = None
    for at, outcome in enumerate(outcomes):
        kind = type(outcome)
        together = not apart and kind in _TOGETHER and first_id + at not in asked
        if runs and together and before is kind:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
        before = kind if together else None
    return runs


def _held_packs(session: Session, lease: LeaseRow) -> list[Pack]:
    packs = load_packs(session.connection, f"{_IN} ORDER BY pos", (lease.packs,))
    for pack in packs:
        pack.started_at = lease.started_at
    return packs


def _end(session: Session, line: LaneRow, lease: LeaseRow) -> set[int]:
    """Nobody holds these messages any more. Returns those that were asked to stop."""
    connection = session.connection
    connection.execute("DELETE FROM lease WHERE epoch = ?", (lease.epoch,))
    asked = {row[0] for row in connection.execute("SELECT id FROM asked WHERE epoch = ?", (lease.epoch,))}
    if asked:
        connection.execute("DELETE FROM asked WHERE epoch = ?", (lease.epoch,))
    line.leases -= 1
    line.running -= sum(lease.labels.values())
    if session.rules.user_batches_max:  # a place of the user is free: its other lanes may have waited for it
        found = connection.execute(
            "SELECT DISTINCT ready_label FROM lane WHERE user_id = ? AND ready_label IS NOT NULL",
            (line.user_id,),
        )
        session.ready.update(label for (label,) in found)
    return asked


def _hold_less(session: Session, line: LaneRow, count: int) -> None:
    line.held -= count
    session.counters.held -= count


def _with_absorbed(session: Session, pack: Pack, place: int) -> list[Pack]:
    """The pack as done, cancelled or gone, and all that it runs for with it."""
    error = "" if place == DONE else pack.error
    ended = [pack]
    if pack.absorbed:
        ended += load_packs(session.connection, "place = 3 AND into_id = ?", (pack.id,))
    for one in ended:
        one.place, one.error = place, error
        one.started_at, one.attempts = pack.started_at, pack.attempts
        one.finished_at = pack.finished_at if one is pack else None
    return ended


def _record(session: Session, lease: LeaseRow, batch: Batch, outcomes: Sequence[Outcome]) -> None:
    took_s = session.now - lease.claimed_at
    kinds = set(map(type, outcomes))
    if Release not in kinds:
        session.rules.sizes.record(lease.labels, sum(lease.labels.values()), took_s)
    if Done not in kinds:
        return
    done = (
        lease.labels
        if len(kinds) == 1
        else {
            delivery.message.label
            for delivery, outcome in zip(batch.deliveries, outcomes, strict=True)
            if isinstance(outcome, Done)
        }
    )
    session.connection.executemany(
        "INSERT OR REPLACE INTO sample (label, place, waits, ran_s) VALUES (?, ?, ?, ?)",
        [
            (label, lease.epoch % SAMPLES_KEPT, json.dumps(waits), took_s)
            for label, waits in zip(lease.labels, lease.waits, strict=True)
            if label in done
        ],
    )


def _apply(moving: _Moving, pack: Pack, outcome: Outcome, *, asked: bool) -> tuple[TaskState, str]:
    """What becomes of messages that stay together: several only where they are done or released."""
    session = moving.session
    if isinstance(outcome, Done):
        moving.settle(pack, DONE)
        return _COMPLETED, ""
    if isinstance(outcome, Dead):
        moving.bury(pack, outcome.error, asked=asked)
        return TaskState.FAILED, outcome.error
    if asked:
        moving.settle(pack, CANCELLED)
        return TaskState.CANCELLED, ""
    now = session.now
    pack.ready_at = now
    if isinstance(outcome, Release):
        moving.put_back(pack)
        return TaskState.WAITING, ""
    verdict = judge_retry(
        outcome,
        session.policy(pack.label),
        attempts=pack.attempts,
        blocked_s=None if pack.blocked_since is None else now - pack.blocked_since,
        source=session.rules.source,
    )
    pack.attempts, pack.error, pack.retried = verdict.attempts, verdict.error, 1
    if verdict.fate is Fate.DEAD:
        moving.bury(pack, verdict.error, asked=False)
        return TaskState.FAILED, verdict.error
    if verdict.fate is Fate.HEAD:
        if pack.blocked_since is None:
            pack.blocked_since = now
        pack.due_at = pack.ready_at = now + verdict.delay_s
        moving.put_back(pack)
    else:
        moving.put_aside(pack, verdict.delay_s)
    return TaskState.RETRYING, verdict.error


def forget_letters(session: Session, letters: Sequence[Pack]) -> None:
    """Dead letters are purged or pushed out: only their status stays."""
    history.end(session, [one for letter in letters for one in _with_absorbed(session, letter, GONE)])
    session.counters.dead -= len(letters)


def requeue(session: Session, letters: Sequence[Pack]) -> None:
    """Dead letters get fresh budgets and the end of their lanes."""
    touched: dict[int, LaneRow] = {}
    for pack in letters:
        line = session.open_lane((pack.user_id, pack.mem_cube_id, class_of(pack.label)))
        touched[line.id] = line
        pack.lane, pack.place, pack.pos = line.id, QUEUED, session.next_number()
        pack.attempts = pack.recoveries = pack.retried = pack.cancel_requested = pack.fresh = 0
        pack.due_at, pack.blocked_since = 0.0, None
        pack.started_at = pack.finished_at = pack.died_no = None
        pack.error, pack.ready_at = "", session.now
        if pack.absorbed:
            session.connection.execute(
                "UPDATE pack SET lane = ? WHERE place = 3 AND into_id = ?", (line.id, pack.id)
            )
        line.queued += 1
        line.head_known = False
        line.held += 1 + pack.absorbed
        session.counters.held += 1 + pack.absorbed
    session.counters.dead -= len(letters)
    save_packs(session.connection, letters)
    for line in touched.values():
        session.refresh(line)


def cancel(session: Session, key: str) -> bool:
    """Take a waiting message out; ask a running one to stop. True when it was taken out."""
    connection = session.connection
    message_id = calls.id_of_key(connection, key)
    pack = None if message_id is None else pack_of(connection, message_id)
    if pack is None or message_id is None or pack.place == DEAD:
        return False
    line = session.lane(pack.lane)
    if pack.place == QUEUED:
        epoch = _epoch_of(session, line, pack)
        if epoch is not None:
            connection.execute("INSERT OR IGNORE INTO asked (id, epoch) VALUES (?, ?)", (message_id, epoch))
            return False
    if pack.place == COALESCED:
        (runner,) = load_packs(connection, "id = ?", (pack.into_id,))
        if runner.place not in (QUEUED, DELAYED) or _epoch_of(session, line, runner) is not None:
            return False  # its runner is at work or dead: it no longer waits
        runner.absorbed -= 1
        save_packs(connection, [runner])
    else:
        pack = single_out(connection, pack, message_id)
        if pack.place == QUEUED:
            line.queued -= 1
        else:
            line.delayed -= 1
        if pack.absorbed:
            _hand_over(session, line, pack)
        line.head_known = False
    pack.absorbed, pack.place = 0, CANCELLED
    _hold_less(session, line, 1)
    history.end(session, [pack])
    session.refresh(line)
    prune(session)
    return True


def _epoch_of(session: Session, line: LaneRow, pack: Pack) -> int | None:
    """The lease that holds a pack."""
    if not line.leases:
        return None
    row = session.connection.execute(
        "SELECT epoch FROM lease WHERE lane = ? AND EXISTS (SELECT 1 FROM json_each(packs) WHERE value = ?)",
        (line.id, pack.id),
    ).fetchone()
    return None if row is None else int(row[0])


def _hand_over(session: Session, line: LaneRow, pack: Pack) -> None:
    """It will not run: the newest message that it would have run for takes its place and the others."""
    (heir,) = load_packs(session.connection, "place = 3 AND into_id = ? ORDER BY id DESC LIMIT 1", (pack.id,))
    session.connection.execute(
        "UPDATE pack SET into_id = ? WHERE place = 3 AND into_id = ? AND id <> ?", (heir.id, pack.id, heir.id)
    )
    heir.pos = pack.pos if pack.place == QUEUED else session.next_number()
    heir.place, heir.into_id, heir.absorbed, heir.fresh = QUEUED, None, pack.absorbed - 1, pack.fresh
    line.queued += 1
    save_packs(session.connection, [heir])


def clear(session: Session) -> int:
    """Cancel everything that waits or runs; running leases are fenced. Returns how many messages."""
    connection = session.connection
    for packs, started_at in connection.execute("SELECT packs, started_at FROM lease").fetchall():
        connection.execute(f"UPDATE pack SET started_at = ? WHERE {_IN}", (started_at, packs))
    count = history.all_cancelled(session)
    for table in ("lease", "asked", "lane", "class", "flow", "token", "idempotency"):
        connection.execute(f"DELETE FROM {table}")
    session.forget_lanes()
    session.counters.held = 0
    prune(session)
    return count


def prune(session: Session) -> None:
    """Keep dead letters and statuses within their bounds; the oldest leave first."""
    counters, rules = session.counters, session.rules
    over = counters.dead - rules.dead_letters_max
    if over > 0:
        counters.letters_dropped += over
        forget_letters(session, load_packs(session.connection, "place = 4 ORDER BY died_no LIMIT ?", (over,)))
    over = counters.settled - rules.status_entries_max
    if over > rules.status_entries_max // 100:  # in portions, because each begins with the oldest
        counters.statuses_dropped += over
        history.drop_oldest(session, over)


_COMPLETED = TaskState.COMPLETED
_TOGETHER = frozenset({Done, Release, type(None)})
