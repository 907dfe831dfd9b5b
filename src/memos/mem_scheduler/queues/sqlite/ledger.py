"""The books of the queue's file: the moves of messages and lanes into the queue and out to a holder.

Works inside one transaction (`Session`), with the rules of `queues.verdicts` and `queues.adaptive`; what
becomes of leased messages is in `settling`. What both keep true: a message is in exactly one place; the
counts agree with the places; a lane exists while it holds messages; it stands in the ready order exactly
while it can be claimed.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence

from memos.mem_scheduler.queues.base import Batch, Delivery
from memos.mem_scheduler.queues.entries import LaneId
from memos.mem_scheduler.queues.ledger import ABSORBED_MAX
from memos.mem_scheduler.queues.served import SERVED_S
from memos.mem_scheduler.queues.sqlite.codec import message_of, rest_of
from memos.mem_scheduler.queues.sqlite.order import Levels
from memos.mem_scheduler.queues.sqlite.rows import DELAYED, QUEUED, LaneRow, load_messages, save_messages
from memos.mem_scheduler.queues.sqlite.session import Session
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import class_of

DUE_AT_ONCE_MAX = 1_000  # messages whose delay ended that one claim looks after
SERVED_REFRESH_S = SERVED_S / 4
WAITS_KEPT_MAX = 16  # waiting times a batch leaves behind
_PLANS_MAX = 64

_INSERT = (
    "INSERT INTO msg (seq, number, key, lane, pos, place, label, item_id, task_id, user_id, mem_cube_id, parent_key,"
    " enqueued_at, ready_at, due_at, fresh, content, rest)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HEAD = (
    "SELECT seq, pos, key, label, due_at, recoveries, attempts, ready_at, enqueued_at, parent_key, absorbed,"
    " item_id, task_id, content, rest FROM msg WHERE lane = ? AND place = 0 ORDER BY pos LIMIT ?"
)


class Entering:
    """New messages of one call."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rows: list[tuple[object, ...]] = []
        self._touched: dict[int, LaneRow] = {}

    def add(
        self,
        key: str,
        message: ScheduleMessageItem,
        lane_id: LaneId,
        *,
        delay_s: float = 0.0,
        parent_key: str = "",
    ) -> None:
        session = self._session
        line = session.open_lane(lane_id)
        label = message.label
        number = session.next_number()
        seq = line.first_seq + number
        line.held += 1
        session.counters.held += 1
        place, due_at, fresh = QUEUED, 0.0, 1
        coalesces = False
        if delay_s > 0:
            place, due_at, fresh = DELAYED, session.now + delay_s, 0
            line.delayed += 1
            session.note_due(due_at)
        else:
            coalesces = session.policy(label).coalesce
            line.queued += 1
        self._touched[line.id] = line
        self._rows.append(
            (
                seq,
                number,
                key,
                line.id,
                number,
                place,
                label,
                message.item_id,
                message.task_id,
                line.user_id,
                line.mem_cube_id,
                parent_key,
                session.wall,
                session.now,
                due_at,
                fresh,
                message.content,
                rest_of(message),
            )
        )
        if coalesces:
            self._absorb(line, label, seq)

    def joins(self, lane_id: LaneId, label: str, number: int) -> bool:
        """Whether so many new messages would be absorbed or absorb, so that no more wait than before."""
        session = self._session
        line = session.find_lane(lane_id) if session.policy(label).coalesce else None
        if line is None:
            return False
        older = session.connection.execute(
            "SELECT absorbed FROM msg WHERE lane = ? AND place = 0 AND label = ? AND fresh = 1"
            " ORDER BY pos DESC LIMIT 1",
            (line.id, label),
        ).fetchone()
        return older is not None and older[0] + number <= ABSORBED_MAX

    def knows(self, key: str) -> bool:
        """Whether a message of that key is live. A settled one of the same key gives way."""
        self._write()
        found = self._session.connection.execute(
            "SELECT seq, place FROM msg WHERE key = ?", (key,)
        ).fetchone()
        if found is None:
            return False
        seq, place = found
        if place <= 4:
            return True
        self._session.connection.execute("DELETE FROM msg WHERE seq = ?", (seq,))
        self._session.counters.settled -= 1
        return False

    def end(self) -> None:
        """Write the rest and put the lanes in order."""
        self._write()
        for line in self._touched.values():
            self._session.refresh(line)

    def touch(self, line: LaneRow) -> None:
        self._touched[line.id] = line

    def _write(self) -> None:
        if self._rows:
            self._session.connection.executemany(_INSERT, self._rows)
            self._rows.clear()

    def _absorb(self, line: LaneRow, label: str, seq: int) -> None:
        """The new message will run for the waiting one before it too, in its own place: order stays."""
        self._write()
        connection = self._session.connection
        older = connection.execute(
            "SELECT seq, absorbed FROM msg WHERE lane = ? AND place = 0 AND label = ? AND fresh = 1"
            " AND seq < ? ORDER BY pos DESC LIMIT 1",
            (line.id, label, seq),
        ).fetchone()
        if older is None or older[1] >= ABSORBED_MAX:
            return
        connection.execute("UPDATE msg SET into_seq = ? WHERE into_seq = ? AND place = 3", (seq, older[0]))
        connection.execute(
            "UPDATE msg SET place = 3, into_seq = ?, absorbed = 0 WHERE seq = ?", (seq, older[0])
        )
        connection.execute("UPDATE msg SET absorbed = ? WHERE seq = ?", (older[1] + 1, seq))
        line.queued -= 1


def levels_of(session: Session, labels: frozenset[str]) -> Levels:
    """The classes that a set of labels serves, by level."""
    version = session.rules.policies.version
    plans = session.rules.plans
    known = plans.get(labels)
    if known is not None and known[0] == version:
        return known[1]
    if len(plans) >= _PLANS_MAX:
        plans.clear()
    levels: dict[int, dict[str, list[str]]] = {1: {}, 2: {}, 3: {}}
    for label in sorted(labels):
        levels[int(session.policy(label).level)].setdefault(class_of(label), []).append(label)
    made = tuple(
        tuple((name, tuple(own)) for name, own in classes.items()) for _, classes in sorted(levels.items())
    )
    plans[labels] = (version, made)
    return made


def next_batch(session: Session, wanted: frozenset[str], *, batch_max: int | None) -> Batch | None:
    """Lease the next batch; None when nothing of `wanted` is ready."""
    session.save_lanes()
    lane_id = session.order.pick(levels_of(session, wanted))
    if lane_id is None:
        return None
    line = session.lane(lane_id)
    taken = _head_of(session, line, wanted, batch_max)
    counts = Counter([row[3] for row in taken])
    length_s = lease_s(session, counts)
    session.counters.epoch += 1
    epoch = session.counters.epoch
    slot = _free_slot(session, line)
    connection = session.connection
    connection.execute(
        "UPDATE msg SET place = 1, due_at = 0, fresh = 0, started_at = ?"
        " WHERE lane = ? AND place = 0 AND pos <= ?",
        (session.wall, line.id, taken[-1][1]),
    )
    waits = [[session.now - row[7] for row in taken if row[3] == label][-WAITS_KEPT_MAX:] for label in counts]
    connection.execute(
        "INSERT INTO lease (epoch, lane, slot, owner, seqs, labels, waits, claimed_labels, absorbs,"
        " claimed_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            epoch,
            line.id,
            slot,
            session.rules.owner,
            json.dumps([row[0] for row in taken]),
            json.dumps(counts),
            json.dumps(waits),
            labels_text(wanted),
            int(any(row[10] for row in taken)),
            session.now,
            session.now + length_s,
        ),
    )
    line.queued -= len(taken)
    line.running += len(taken)
    line.leases += 1
    session.order.charge(line, len(taken), weight=session.rules.weight_of(line.user_id))
    session.order.remove(line)  # behind the user's other lanes
    line.ready_label = None
    session.refresh(line)
    lane = line.lane
    stream = str(lane)
    absorbed = absorbed_by(connection, [row[0] for row in taken if row[10]], stream)
    deliveries = tuple(
        [
            Delivery(
                key,
                message_of(
                    key=key,
                    stream=stream,
                    item_id=item_id,
                    task_id=task_id,
                    user_id=line.user_id,
                    mem_cube_id=line.mem_cube_id,
                    label=label,
                    content=content,
                    rest=rest,
                ),
                parent_key,
                attempts,
                recoveries,
                enqueued_at,
                absorbed.get(seq, ()),
            )
            for (
                seq,
                _,
                key,
                label,
                _,
                recoveries,
                attempts,
                _,
                enqueued_at,
                parent_key,
                _,
                item_id,
                task_id,
                content,
                rest,
            ) in taken
        ]
    )
    return Batch(lane, slot, epoch, deliveries, session.wall + length_s)


def _head_of(session: Session, line: LaneRow, wanted: frozenset[str], batch_max: int | None) -> list[tuple]:  # type: ignore[type-arg]
    """From the head what one batch may hold: a message whose lease was lost goes alone."""
    sizes = session.rules.sizes
    head = line.ready_label or ""
    limit = min(session.policy(head).batch_size_max, sizes.of(head))
    if batch_max is not None:
        limit = min(limit, batch_max)
    rows = session.connection.execute(_HEAD, (line.id, limit)).fetchall()
    seen = head
    count = 0
    for row in rows:
        _, _, _, label, due_at, recoveries, *_ = row
        if label != seen:
            seen = label
            if label not in wanted:
                break
            limit = min(limit, session.policy(label).batch_size_max, sizes.of(label))
        if count >= limit or due_at > session.now or (count and recoveries):
            break
        count += 1
        if recoveries:
            break
    del rows[count:]
    return rows


def absorbed_by(
    connection: sqlite3.Connection, seqs: list[int], stream: str
) -> dict[int, tuple[ScheduleMessageItem, ...]]:
    """The messages that these run for as well, oldest first."""
    if not seqs:
        return {}
    found: dict[int, list[ScheduleMessageItem]] = {}
    for into, key, user_id, cube_id, label, item_id, task_id, content, rest in connection.execute(
        "SELECT into_seq, key, user_id, mem_cube_id, label, item_id, task_id, content, rest FROM msg"
        " WHERE place = 3 AND into_seq IN (SELECT value FROM json_each(?)) ORDER BY seq",
        (json.dumps(seqs),),
    ):
        found.setdefault(into, []).append(
            message_of(
                key=key,
                stream=stream,
                item_id=item_id,
                task_id=task_id,
                user_id=user_id,
                mem_cube_id=cube_id,
                label=label,
                content=content,
                rest=rest,
            )
        )
    return {seq: tuple(messages) for seq, messages in found.items()}


def _free_slot(session: Session, line: LaneRow) -> int:
    if not line.leases:
        return 0
    taken = {
        row[0] for row in session.connection.execute("SELECT slot FROM lease WHERE lane = ?", (line.id,))
    }
    slot = 0
    while slot in taken:
        slot += 1
    return slot


def lease_s(session: Session, labels: Sequence[str] | Counter[str] | dict[str, int]) -> float:
    """The length of a lease: the shortest of its labels'."""
    return min([session.policy(label).min_idle_ms for label in labels]) / 1000.0


def labels_text(labels: frozenset[str]) -> str:
    return json.dumps(sorted(labels))


def note_served(session: Session, wanted: frozenset[str]) -> bool:
    """Remember who asks for what. True now and then: then it is time to tidy up as well."""
    text = labels_text(wanted)
    connection = session.connection
    row = connection.execute("SELECT claimed_at FROM served WHERE labels = ?", (text,)).fetchone()
    if row is not None and session.now - SERVED_REFRESH_S < row[0] <= session.now:
        return False
    connection.execute(
        "INSERT INTO served (labels, claimed_at) VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET claimed_at = excluded.claimed_at",
        (text, session.now),
    )
    connection.execute("DELETE FROM served WHERE claimed_at < ?", (session.now - 2 * SERVED_S,))
    return True


def look_after_times(session: Session) -> None:
    """Ends of delays and of blocks."""
    connection = session.connection
    rows = load_messages(
        connection,
        "place = 2 AND due_at <= ? ORDER BY due_at, seq LIMIT ?",
        (session.now, DUE_AT_ONCE_MAX),
    )
    touched: dict[int, LaneRow] = {}
    for row in rows:
        line = session.lane(row.lane)
        touched[line.id] = line
        line.delayed -= 1
        line.queued += 1
        row.place, row.pos = QUEUED, session.next_number()
        row.ready_at, row.due_at = row.due_at, 0.0
    if rows:
        save_messages(connection, rows)
    for (lane_id,) in connection.execute(
        "SELECT id FROM lane WHERE head_due IS NOT NULL AND head_due <= ?", (session.now,)
    ).fetchall():
        touched[lane_id] = session.lane(lane_id)
    for line in touched.values():
        session.refresh(line)


def next_due(session: Session) -> float | None:
    """When a lease, a delay or a block ends next."""
    times = session.connection.execute(
        "SELECT (SELECT min(due_at) FROM msg WHERE place = 2),"
        " (SELECT min(head_due) FROM lane WHERE head_due IS NOT NULL), (SELECT min(expires_at) FROM lease)"
    ).fetchone()
    return min((at for at in times if at is not None), default=None)
