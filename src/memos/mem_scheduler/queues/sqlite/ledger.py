"""The books of the queue's file: the moves of messages and lanes into the queue and out to a holder.

Works inside one transaction (`Session`), with the rules of `queues.verdicts` and `queues.adaptive`; what
becomes of leased messages is in `settling`. What both keep true: a message is in exactly one place; the
counts agree with the places; a lane exists while it holds messages; it stands in the ready order exactly
while it can be claimed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from memos.mem_scheduler.queues.base import Batch, Delivery
from memos.mem_scheduler.queues.columns import build_deliveries
from memos.mem_scheduler.queues.ledger import ABSORBED_MAX
from memos.mem_scheduler.queues.packs import LaneId
from memos.mem_scheduler.queues.served import SERVED_S
from memos.mem_scheduler.queues.sqlite import calls, history
from memos.mem_scheduler.queues.sqlite.codec import (
    Named,
    body_lines,
    build_messages,
    decode_ids,
    encode_ids,
    join_lines,
)
from memos.mem_scheduler.queues.sqlite.order import Levels
from memos.mem_scheduler.queues.sqlite.packs import (
    BYTES_MAX,
    COUNT_MAX,
    divide,
    load_packs,
    pack_of,
    save_packs,
    single_out,
)
from memos.mem_scheduler.queues.sqlite.rows import COALESCED, DELAYED, QUEUED, LaneRow
from memos.mem_scheduler.queues.sqlite.session import Session
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import class_of

DUE_AT_ONCE_MAX = 1_000  # packs whose delay ended that one claim looks after
SERVED_REFRESH_S = SERVED_S / 4
WAITS_KEPT_MAX = 16  # waiting times a batch leaves behind
_PLANS_MAX = 64

_INSERT = (
    "INSERT INTO pack (id, lane, place, pos, count, label, user_id, mem_cube_id, parent_key, enqueued_at,"
    " ready_at, due_at, fresh, ids, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HEAD = (
    "SELECT id, pos, count, label, due_at, recoveries, attempts, absorbed, ready_at, enqueued_at, parent_key,"
    " ids, body FROM pack WHERE lane = ? AND place = 0 AND pos > ? ORDER BY pos"
)

_Head: TypeAlias = tuple[
    int, int, int, str, float, int, int, int, float, float, str, str, bytes
]  # the columns of _HEAD


class _Gathered:
    """Messages of one call that will be a pack."""

    __slots__ = ("label", "line", "lines", "named", "room", "single")

    def __init__(self, line: LaneRow, label: str, *, single: bool) -> None:
        self.line = line
        self.label = label
        self.named: list[Named] = []
        self.lines: list[bytes] = []
        self.single = single
        self.room = 0 if single else BYTES_MAX


def enter(
    session: Session,
    keys: Sequence[str],
    messages: Sequence[ScheduleMessageItem],
    lane_ids: Sequence[LaneId],
    *,
    delay_s: float = 0.0,
    parent_key: str = "",
) -> list[LaneRow]:
    """New messages whose keys run on. The caller follows with `refresh` of the lanes that are returned."""
    base = session.next_numbers(len(keys))
    items = [message.item_id for message in messages]
    tasks = [message.task_id for message in messages]
    labels = [message.label for message in messages]
    gathered: list[_Gathered] = []
    open_ones: dict[LaneId, _Gathered] = {}
    for key, item, task, number, label, lane_id, line_text in zip(
        keys,
        items,
        tasks,
        range(base, base + len(keys)),
        labels,
        lane_ids,
        body_lines(messages),
        strict=True,
    ):
        one = open_ones.get(lane_id)
        room = len(line_text)
        if one is None or one.label != label or one.room < room or len(one.lines) >= COUNT_MAX:
            coalesces = delay_s <= 0 and session.policy(label).coalesce
            one = open_ones[lane_id] = _Gathered(session.open_lane(lane_id), label, single=coalesces)
            gathered.append(one)
        one.room -= room
        one.named.append((key, item, task, number))
        one.lines.append(line_text)
    places = _write(session, gathered, base, delay_s, parent_key)
    calls.remember(session.connection, base, keys, items, tasks, places)
    return list({one.line.id: one.line for one in gathered}.values())


def _write(
    session: Session, gathered: Sequence[_Gathered], base: int, delay_s: float, parent_key: str
) -> list[int] | None:
    """Number the packs lane by lane and write them. Returns the ids by number, None when they are the same."""
    delayed = delay_s > 0
    place, due_at, fresh = (DELAYED, session.now + delay_s, 0) if delayed else (QUEUED, 0.0, 1)
    wall, now = session.wall, session.now
    rows = []
    merging: list[tuple[LaneRow, str, int]] = []
    places: dict[int, int] = {}
    pack_id = base
    for one in gathered:
        line, count = one.line, len(one.named)
        rows.append(
            (
                pack_id,
                line.id,
                place,
                pack_id,
                count,
                one.label,
                line.user_id,
                line.mem_cube_id,
                parent_key,
                wall,
                now,
                due_at,
                fresh,
                encode_ids(pack_id, wall, one.label, one.named),
                join_lines(one.lines),
            )
        )
        line.held += count
        if delayed:
            line.delayed += count
        else:
            if not line.queued:
                line.head_label, line.head_due, line.head_known = one.label, None, True
            line.queued += count
            if one.single:
                merging.append((line, one.label, pack_id))
        if len(gathered) > 1:
            places.update(
                zip([named[3] for named in one.named], range(pack_id, pack_id + count), strict=True)
            )
        pack_id += count
    session.connection.executemany(_INSERT, rows)
    session.counters.held += pack_id - base
    if delayed:
        session.note_due(due_at)
    for line, label, at in merging:
        _absorb(session, line, label, at)
    numbers = range(base, pack_id)
    ids = [places[number] for number in numbers] if places else None
    return None if ids is None or ids == list(numbers) else ids


def _absorb(session: Session, line: LaneRow, label: str, pack_id: int) -> None:
    """The new message will run for the waiting one before it too, in its own place: order stays."""
    connection = session.connection
    older = _newest_fresh(session, line, label, before=pack_id)
    if older is None:
        return
    pack_before, absorbed = older
    if absorbed >= ABSORBED_MAX:
        return
    (pack,) = load_packs(connection, "id = ?", (pack_before,))
    pack = single_out(connection, pack, pack.id + pack.count - 1)
    connection.execute("UPDATE pack SET into_id = ? WHERE into_id = ? AND place = 3", (pack_id, pack.id))
    connection.execute("UPDATE pack SET absorbed = ? WHERE id = ?", (pack.absorbed + 1, pack_id))
    pack.place, pack.into_id, pack.absorbed = COALESCED, pack_id, 0
    save_packs(connection, [pack])
    line.queued -= 1
    line.head_known = False


def _newest_fresh(session: Session, line: LaneRow, label: str, *, before: int) -> tuple[int, int] | None:
    """The last waiting pack of a label that nobody took yet: its id, and how many its last message runs for."""
    held = session.leased_packs(line)
    for pack_id, absorbed in session.connection.execute(
        "SELECT id, absorbed FROM pack WHERE lane = ? AND place = 0 AND pos < ? AND label = ? AND fresh = 1"
        " ORDER BY pos DESC",
        (line.id, before, label),
    ):
        if pack_id not in held:
            return pack_id, absorbed
    return None


def joins(session: Session, lane_id: LaneId, label: str, number: int) -> bool:
    """Whether so many new messages would be absorbed or absorb, so that no more wait than before."""
    line = session.find_lane(lane_id) if session.policy(label).coalesce else None
    if line is None:
        return False
    older = _newest_fresh(session, line, label, before=session.counters.number + 1)
    return older is not None and older[1] + number <= ABSORBED_MAX


def knows(session: Session, key: str) -> bool:
    """Whether a message of that key is live. A settled one of the same key gives way."""
    message_id = calls.id_of_key(session.connection, key)
    if message_id is None:
        return False
    if pack_of(session.connection, message_id) is not None:
        return True
    history.forget(session, message_id)
    return False


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
    counts: dict[str, int] = {}
    for row in taken:
        counts[row[3]] = counts.get(row[3], 0) + row[2]
    total = sum(counts.values())
    length_s = lease_s(session, counts)
    session.counters.epoch += 1
    epoch = session.counters.epoch
    slot = _free_slot(session, line)
    waits: dict[str, list[float]] = {label: [] for label in counts}
    for _, _, count, label, _, _, _, _, ready_at, *_ in taken:
        waits[label] += [session.now - ready_at] * min(count, WAITS_KEPT_MAX)
    session.connection.execute(
        "INSERT INTO lease (epoch, lane, slot, owner, holder, packs, labels, waits, claimed_labels, plain, started_at,"
        " claimed_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            epoch,
            line.id,
            slot,
            session.rules.owner,
            session.rules.holder,
            json.dumps([row[0] for row in taken]),
            json.dumps(counts),
            json.dumps([ones[-WAITS_KEPT_MAX:] for ones in waits.values()]),
            labels_text(wanted),
            int(not any(row[6] or row[7] for row in taken)),
            session.wall,
            session.now,
            session.now + length_s,
        ),
    )
    line.queued -= total
    line.running += total
    line.leases += 1
    line.cursor = max(line.cursor, taken[-1][1] + taken[-1][2] - 1)
    line.head_known = False
    session.order.charge(line, total, weight=session.rules.weight_of(line.user_id))
    session.order.remove(line)  # behind the user's other lanes
    line.ready_label = None
    session.refresh(line)
    return Batch(line.lane, slot, epoch, _deliveries(session, line, taken), session.wall + length_s)


def _deliveries(session: Session, line: LaneRow, taken: Sequence[_Head]) -> tuple[Delivery, ...]:
    named: list[Named] = []
    labels: list[str] = []
    parent_keys: list[str] = []
    attempts: list[int] = []
    recoveries: list[int] = []
    enqueued_at: list[float] = []
    absorbed: list[tuple[ScheduleMessageItem, ...]] = []
    stream = str(line.lane)
    for row, ids in zip(taken, decode_ids([row[11] for row in taken]), strict=True):
        count = row[2]
        named += ids[3]
        labels += [row[3]] * count
        recoveries += [row[5]] * count
        attempts += [row[6]] * count
        enqueued_at += [row[9]] * count
        parent_keys += [row[10]] * count
        absorbed += [_absorbed_by(session, row[0], stream) if row[7] else ()] * count
    messages = build_messages(
        named,
        join_lines([row[12] for row in taken]),
        stream=stream,
        user_id=line.user_id,
        mem_cube_id=line.mem_cube_id,
        labels=labels,
    )
    return build_deliveries(
        [one[0] for one in named], messages, parent_keys, attempts, recoveries, enqueued_at, absorbed
    )


def _absorbed_by(session: Session, pack_id: int, stream: str) -> tuple[ScheduleMessageItem, ...]:
    """The messages that the one of a pack runs for as well, oldest first."""
    packs = load_packs(session.connection, "place = 3 AND into_id = ? ORDER BY id", (pack_id,))
    return tuple([message for pack in packs for message in pack.messages(stream)])


def _head_of(session: Session, line: LaneRow, wanted: frozenset[str], batch_max: int | None) -> list[_Head]:
    """From the head what one batch may hold: a message whose lease was lost goes alone. A pack that does
    not fit whole is divided."""
    sizes = session.rules.sizes
    seen = line.ready_label or ""
    limit = min(session.policy(seen).batch_size_max, sizes.of(seen))
    if batch_max is not None:
        limit = min(limit, batch_max)
    held = session.leased_packs(line)
    taken: list[_Head] = []
    count = 0
    for row in session.connection.execute(_HEAD, (line.id, line.cursor)):
        pack_id, _, size, label, due_at, recoveries, *_ = row
        if pack_id in held:
            continue
        allowed = limit
        if label != seen:
            if label not in wanted:
                break
            allowed = min(limit, session.policy(label).batch_size_max, sizes.of(label))
        if count >= allowed or due_at > session.now or (count and recoveries):
            break
        # A label's bound counts once something of it is taken: those before it stay as they are.
        seen, limit = label, allowed
        taken.append(row)
        count += size
        if recoveries or count >= limit:
            break
    last = taken[-1]
    keep = 1 if last[5] else last[2] - max(0, count - limit)
    if keep < last[2]:
        (pack,) = load_packs(session.connection, "id = ?", (last[0],))
        first, _ = divide(session.connection, pack, keep)
        taken[-1] = (*last[:2], keep, *last[3:11], first.ids, first.body)
    return taken


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


def lease_s(session: Session, labels: Iterable[str]) -> float:
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
    packs = load_packs(
        connection, "place = 2 AND due_at <= ? ORDER BY due_at, id LIMIT ?", (session.now, DUE_AT_ONCE_MAX)
    )
    touched: dict[int, LaneRow] = {}
    for pack in packs:
        line = session.lane(pack.lane)
        touched[line.id] = line
        line.delayed -= pack.count
        if not line.queued:
            line.head_known = False
        line.queued += pack.count
        pack.place, pack.pos = QUEUED, session.next_numbers(pack.count)
        pack.ready_at, pack.due_at = pack.due_at, 0.0
    save_packs(connection, packs)
    for (lane_id,) in connection.execute(
        "SELECT id FROM lane WHERE head_due IS NOT NULL AND head_due <= ?", (session.now,)
    ).fetchall():
        touched[lane_id] = session.lane(lane_id)
    for line in touched.values():
        session.refresh(line)


def next_due(session: Session) -> float | None:
    """When a lease, a delay or a block ends next."""
    times = session.connection.execute(
        "SELECT (SELECT min(due_at) FROM pack WHERE place = 2),"
        " (SELECT min(head_due) FROM lane WHERE head_due IS NOT NULL), (SELECT min(expires_at) FROM lease)"
    ).fetchone()
    return min((at for at in times if at is not None), default=None)
