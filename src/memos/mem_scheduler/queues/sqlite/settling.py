"""What becomes of leased, dead and cancelled messages, with the rules of `queues.verdicts`.

Works inside one transaction. A batch whose messages are all done is settled by a few statements however
long it is; only messages with another outcome are looked at one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from memos.errors import LeaseLost
from memos.mem_scheduler.queues.base import Batch, Dead, Done, Outcome, Release, Settled
from memos.mem_scheduler.queues.sqlite.ledger import lease_s
from memos.mem_scheduler.queues.sqlite.rows import (
    CANCELLED,
    COALESCED,
    DEAD,
    DELAYED,
    DONE,
    GONE,
    LEASED,
    QUEUED,
    LaneRow,
    LeaseRow,
    MessageRow,
    load_messages,
    save_messages,
)
from memos.mem_scheduler.queues.sqlite.session import Session
from memos.mem_scheduler.queues.status_table import KEPT_S
from memos.mem_scheduler.queues.verdicts import Fate, judge_lost, judge_retry
from memos.mem_scheduler.schemas.task_schemas import TaskState, class_of

SAMPLES_KEPT = 64  # batches of a label whose times are kept
OLD_AT_ONCE_MAX = 1_000  # old status rows looked at together

_LEASE = "SELECT epoch, lane, slot, seqs, labels, waits, absorbs, claimed_at, expires_at FROM lease WHERE "


def find_leases(session: Session, where: str, parameters: Sequence[object]) -> list[LeaseRow]:
    """The leases that fulfil `where` (a constant text of this package)."""
    found = session.connection.execute(_LEASE + where, parameters).fetchall()
    return [
        LeaseRow(epoch, lane, slot, seqs, json.loads(labels), json.loads(waits), bool(absorbs), *times)
        for epoch, lane, slot, seqs, labels, waits, absorbs, *times in found
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
    line = _end(session, lease)
    _record(session, lease, batch, outcomes)
    if set(map(type, outcomes)) == {Done}:
        _all_done(session, lease, line)
        return [Settled(one.key, TaskState.COMPLETED) for one in batch.deliveries], line
    rows = load_messages(
        session.connection, "seq IN (SELECT value FROM json_each(?)) ORDER BY pos", (lease.seqs,)
    )
    settled = [_apply(session, line, row, one) for row, one in zip(rows, outcomes, strict=True)]
    save_messages(session.connection, rows)
    prune(session)
    return settled, line


def lose(session: Session, lease: LeaseRow) -> None:
    """Nobody renewed the lease: its messages go back to the head, to be claimed one at a time."""
    line = _end(session, lease)
    session.rules.sizes.reset(lease.labels)
    rows = load_messages(
        session.connection, "seq IN (SELECT value FROM json_each(?)) ORDER BY pos", (lease.seqs,)
    )
    for row in rows:
        row.recoveries += 1
        row.ready_at = session.now
        if row.cancel_requested:
            _settle(session, line, row, CANCELLED)
        elif judge_lost(session.policy(row.label), recoveries=row.recoveries) is Fate.DEAD:
            _bury(
                session, line, row, f"its lease was lost {row.recoveries} times: no worker survived the run"
            )
        else:
            row.place = QUEUED
            line.queued += 1
    save_messages(session.connection, rows)
    prune(session)
    session.refresh(line)


def _end(session: Session, lease: LeaseRow) -> LaneRow:
    """Nobody holds these messages any more."""
    session.connection.execute("DELETE FROM lease WHERE epoch = ?", (lease.epoch,))
    line = session.lane(lease.lane)
    line.leases -= 1
    line.running -= sum(lease.labels.values())
    if session.rules.user_batches_max:  # a place of the user is free: its other lanes may have waited for it
        found = session.connection.execute(
            "SELECT DISTINCT ready_label FROM lane WHERE user_id = ? AND ready_label IS NOT NULL",
            (line.user_id,),
        )
        session.ready.update(label for (label,) in found)
    return line


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


def _all_done(session: Session, lease: LeaseRow, line: LaneRow) -> None:
    connection = session.connection
    count = sum(lease.labels.values())
    if lease.absorbs:
        count += connection.execute(
            "UPDATE msg SET place = ?, finished_at = ?, error = '', content = NULL, rest = NULL,"
            " started_at = r.started_at, attempts = r.attempts"
            " FROM (SELECT m.seq AS runner, m.started_at, m.attempts FROM msg AS m"
            "       WHERE m.seq IN (SELECT value FROM json_each(?))) AS r"
            " WHERE msg.place = 3 AND msg.into_seq = r.runner",
            (DONE, session.wall, lease.seqs),
        ).rowcount
    connection.execute(
        "UPDATE msg SET place = ?, finished_at = ?, error = '', content = NULL, rest = NULL"
        " WHERE seq IN (SELECT value FROM json_each(?))",
        (DONE, session.wall, lease.seqs),
    )
    line.held -= count
    session.counters.held -= count
    session.counters.settled += count
    prune(session)


def _apply(session: Session, line: LaneRow, row: MessageRow, outcome: Outcome) -> Settled:
    if isinstance(outcome, Done):
        _settle(session, line, row, DONE)
        return Settled(row.key, TaskState.COMPLETED)
    if isinstance(outcome, Dead):
        _bury(session, line, row, outcome.error)
        return Settled(row.key, TaskState.FAILED, outcome.error)
    if row.cancel_requested:
        _settle(session, line, row, CANCELLED)
        return Settled(row.key, TaskState.CANCELLED)
    now = session.now
    row.ready_at = now
    if isinstance(outcome, Release):
        row.place = QUEUED
        line.queued += 1
        return Settled(row.key, TaskState.WAITING)
    verdict = judge_retry(
        outcome,
        session.policy(row.label),
        attempts=row.attempts,
        blocked_s=None if row.blocked_since is None else now - row.blocked_since,
        source=session.rules.source,
    )
    row.attempts, row.error, row.retried = verdict.attempts, verdict.error, 1
    if verdict.fate is Fate.DEAD:
        _bury(session, line, row, verdict.error)
        return Settled(row.key, TaskState.FAILED, verdict.error)
    if verdict.fate is Fate.HEAD:
        if row.blocked_since is None:
            row.blocked_since = now
        row.due_at = row.ready_at = now + verdict.delay_s
        row.place = QUEUED
        line.queued += 1
    elif verdict.delay_s > 0:
        row.place, row.due_at = DELAYED, now + verdict.delay_s
        line.delayed += 1
        session.note_due(row.due_at)
    else:
        row.place, row.pos = QUEUED, session.next_number()
        line.queued += 1
    return Settled(row.key, TaskState.RETRYING, verdict.error)


def _settle(session: Session, line: LaneRow | None, row: MessageRow, place: int) -> None:
    """Done, cancelled or given up for good, with all that it runs for. The caller saves the row."""
    error = "" if place == DONE else row.error
    count = 1
    if row.absorbed:
        count += session.connection.execute(
            "UPDATE msg SET place = ?, started_at = ?, attempts = ?, error = ?, finished_at = ?,"
            " content = NULL, rest = NULL WHERE place = 3 AND into_seq = ?",
            (place, row.started_at, row.attempts, error, session.wall, row.seq),
        ).rowcount
    row.place, row.absorbed, row.error, row.died_no = place, 0, error, None
    if row.finished_at is None:
        row.finished_at = session.wall
    session.counters.settled += count
    if line is not None:
        line.held -= count
        session.counters.held -= count


def _bury(session: Session, line: LaneRow, row: MessageRow, error: str) -> None:
    """To the dead letters; what it ran for waits there with it. The caller saves the row."""
    line.held -= 1 + row.absorbed
    session.counters.held -= 1 + row.absorbed
    row.place, row.error, row.died_no = DEAD, error, session.next_number()
    row.finished_at = session.wall
    session.counters.dead += 1


def forget_letters(session: Session, rows: Sequence[MessageRow]) -> None:
    """Dead letters are purged or pushed out: only their status rows stay."""
    for row in rows:
        _settle(session, None, row, GONE)
    session.counters.dead -= len(rows)
    save_messages(session.connection, rows)


def requeue(session: Session, rows: Sequence[MessageRow]) -> None:
    """Dead letters get fresh budgets and the end of their lanes."""
    touched: dict[int, LaneRow] = {}
    for row in rows:
        line = session.open_lane((row.user_id, row.mem_cube_id, class_of(row.label)))
        touched[line.id] = line
        row.lane, row.place, row.pos = line.id, QUEUED, session.next_number()
        row.attempts = row.recoveries = row.retried = row.cancel_requested = row.fresh = 0
        row.due_at, row.blocked_since = 0.0, None
        row.started_at = row.finished_at = row.died_no = None
        row.error, row.ready_at = "", session.now
        if row.absorbed:
            session.connection.execute(
                "UPDATE msg SET lane = ? WHERE place = 3 AND into_seq = ?", (line.id, row.seq)
            )
        line.queued += 1
        line.held += 1 + row.absorbed
        session.counters.held += 1 + row.absorbed
    session.counters.dead -= len(rows)
    save_messages(session.connection, rows)
    for line in touched.values():
        session.refresh(line)


def cancel(session: Session, key: str) -> bool:
    """Take a waiting message out; ask a running one to stop. True when it was taken out."""
    found = load_messages(session.connection, "key = ?", (key,))
    if not found or found[0].place >= DEAD:
        return False
    row = found[0]
    changed = [row]
    if row.place == LEASED:
        row.cancel_requested = 1
        save_messages(session.connection, changed)
        return False
    line = session.lane(row.lane)
    if row.place == COALESCED:
        runner = load_messages(session.connection, "seq = ?", (row.into_seq,))[0]
        if runner.place not in (QUEUED, DELAYED):
            return False  # its runner is at work or dead: it no longer waits
        runner.absorbed -= 1
        changed.append(runner)
    else:
        if row.place == QUEUED:
            line.queued -= 1
        else:
            line.delayed -= 1
        if row.absorbed:
            changed.append(_hand_over(session, line, row))
    row.into_seq, row.absorbed = None, 0
    _settle(session, line, row, CANCELLED)
    save_messages(session.connection, changed)
    session.refresh(line)
    prune(session)
    return True


def _hand_over(session: Session, line: LaneRow, row: MessageRow) -> MessageRow:
    """It will not run: the newest message that it would have run for takes its place and the others."""
    heir = load_messages(
        session.connection, "place = 3 AND into_seq = ? ORDER BY seq DESC LIMIT 1", (row.seq,)
    )[0]
    session.connection.execute(
        "UPDATE msg SET into_seq = ? WHERE place = 3 AND into_seq = ? AND seq <> ?",
        (heir.seq, row.seq, heir.seq),
    )
    heir.pos = row.pos if row.place == QUEUED else session.next_number()
    heir.place, heir.into_seq, heir.absorbed, heir.fresh = QUEUED, None, row.absorbed - 1, row.fresh
    line.queued += 1
    return heir


def clear(session: Session) -> int:
    """Cancel everything that waits or runs; running leases are fenced. Returns how many messages."""
    connection = session.connection
    count = connection.execute(
        "UPDATE msg SET place = ?, finished_at = ?, content = NULL, rest = NULL, into_seq = NULL,"
        " absorbed = 0 WHERE place <= 2"
        " OR (place = 3 AND into_seq NOT IN (SELECT seq FROM msg WHERE place = 4))",
        (CANCELLED, session.wall),
    ).rowcount
    for table in ("lease", "lane", "class", "flow", "token", "idempotency"):
        connection.execute(f"DELETE FROM {table}")
    session.counters.held = 0
    session.counters.settled += count
    prune(session)
    return count


def prune(session: Session) -> None:
    """Keep dead letters and status rows within their bounds; the oldest leave first."""
    counters, rules = session.counters, session.rules
    over = counters.dead - rules.dead_letters_max
    if over > 0:
        counters.letters_dropped += over
        forget_letters(
            session,
            load_messages(session.connection, "place = 4 ORDER BY died_no LIMIT ?", (over,)),
        )
    over = counters.settled - rules.status_entries_max
    if over > rules.status_entries_max // 100:  # in portions: each look begins at the oldest row
        counters.statuses_dropped += over
        counters.settled -= session.connection.execute(
            "DELETE FROM msg WHERE seq IN (SELECT seq FROM msg WHERE place >= 5 ORDER BY number LIMIT ?)",
            (over,),
        ).rowcount


def forget_old(session: Session) -> None:
    """Drop status rows that have been kept long enough, a portion at a time."""
    session.counters.settled -= session.connection.execute(
        "DELETE FROM msg WHERE seq IN (SELECT seq FROM (SELECT seq, finished_at FROM msg WHERE place >= 5"
        " ORDER BY number LIMIT ?) WHERE finished_at <= ?)",
        (OLD_AT_ONCE_MAX, session.wall - KEPT_S),
    ).rowcount
