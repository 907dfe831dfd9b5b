"""What became of messages that came to their end: the rows behind `statuses`, bounded by number and age.

Messages that end together in the same way share a row; it holds the `ids` of their packs as they were. The
oldest submitted leave first.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memos.mem_scheduler.queues.sqlite import calls
from memos.mem_scheduler.queues.sqlite.codec import Named, decode_ids, encode_ids
from memos.mem_scheduler.queues.sqlite.packs import Pack, delete_packs, last_of
from memos.mem_scheduler.queues.sqlite.rows import CANCELLED, DONE, LeaseRow
from memos.mem_scheduler.queues.sqlite.session import Session
from memos.mem_scheduler.queues.status_table import KEPT_S

OLD_AT_ONCE_MAX = 1_000  # old rows looked at together

ENDED_COLUMNS = (
    "id, last_id, count, user_id, mem_cube_id, place, started_at, finished_at, attempts, error, packs, parts"
)
_INSERT = f"INSERT INTO ended ({ENDED_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_IN = "id IN (SELECT value FROM json_each(?))"

Part = tuple[int, float, str, list[Named]]
"""The `ids` of a pack: id of the first message, when submitted, label, names of each message."""


_Fate = tuple[str, str, int, float | None, float, int, str]


@dataclass(slots=True)
class Ended:
    """A row of `ended`."""

    id: int
    last_id: int
    count: int
    user_id: str
    mem_cube_id: str
    place: int
    started_at: float | None
    finished_at: float
    attempts: int
    error: str
    packs: str
    parts: str

    def decoded(self) -> list[Part]:
        return decode_ids((self.parts[1:-1],))


def all_done(session: Session, lease: LeaseRow, *, user_id: str, mem_cube_id: str) -> None:
    """The packs of a lease, of which none failed before or runs for others, end as done."""
    connection = session.connection
    first = json.loads(lease.packs)[0]
    connection.execute(
        f"INSERT INTO ended ({ENDED_COLUMNS}) SELECT ?, max(id + count) - 1, sum(count), ?, ?, ?, ?, ?, 0, '',"
        f" ?, '[' || group_concat(ids) || ']' FROM pack WHERE {_IN}",
        (
            first,
            user_id,
            mem_cube_id,
            DONE,
            lease.started_at,
            session.wall,
            lease.packs,
            lease.packs,
        ),
    )
    connection.execute(
        "INSERT INTO ended_pack (id, ended) SELECT value, ?1 FROM json_each(?2) WHERE value <> ?1",
        (first, lease.packs),
    )
    connection.execute(f"DELETE FROM pack WHERE {_IN}", (lease.packs,))
    session.counters.settled += sum(lease.labels.values())


def all_cancelled(session: Session) -> int:
    """All that waits or runs ends as cancelled. Returns how many messages."""
    connection = session.connection
    which = "place <= 2 OR (place = 3 AND into_id NOT IN (SELECT id FROM pack WHERE place = 4))"
    count: int = connection.execute(f"SELECT ifnull(sum(count), 0) FROM pack WHERE {which}").fetchone()[0]
    connection.execute(
        f"INSERT INTO ended ({ENDED_COLUMNS}) SELECT id, id + count - 1, count, user_id, mem_cube_id, ?,"
        f" started_at, ?, attempts, error, '[' || id || ']', '[' || ids || ']' FROM pack WHERE {which}",
        (CANCELLED, session.wall),
    )
    connection.execute(f"DELETE FROM pack WHERE {which}")
    session.counters.settled += count
    return count


def end(session: Session, packs: Iterable[Pack]) -> None:
    """The packs, whose place says how, come to their end now unless they did before. Their rows may be in
    the file or not."""
    groups: dict[_Fate, list[Pack]] = {}
    for pack in packs:
        if pack.finished_at is None:
            pack.finished_at = session.wall
        fate: _Fate = (
            pack.user_id,
            pack.mem_cube_id,
            pack.place,
            pack.started_at,
            pack.finished_at,
            pack.attempts,
            pack.error,
        )
        groups.setdefault(fate, []).append(pack)
    connection = session.connection
    for fate, own in groups.items():
        delete_packs(connection, [pack.id for pack in own])
        count = sum(pack.count for pack in own)
        first, *others = [pack.id for pack in own]
        connection.execute(
            _INSERT,
            (
                first,
                last_of(own),
                count,
                *fate,
                json.dumps([first, *others]),
                f"[{','.join([pack.ids for pack in own])}]",
            ),
        )
        connection.executemany(
            "INSERT INTO ended_pack (id, ended) VALUES (?, ?)", [(one, first) for one in others]
        )
        session.counters.settled += count


def ended_with(connection: sqlite3.Connection, message_id: int) -> Ended | None:
    """The row that says what became of a message."""
    for text in (
        "SELECT id FROM ended WHERE id <= ? ORDER BY id DESC LIMIT 1",
        "SELECT ended FROM ended_pack WHERE id <= ? ORDER BY id DESC LIMIT 1",
    ):
        found = connection.execute(text, (message_id,)).fetchone()
        if found is None:
            continue
        for row in load_ended(connection, "id = ?", found):
            if any(first <= message_id < first + len(named) for first, _, _, named in row.decoded()):
                return row
    return None


def load_ended(connection: sqlite3.Connection, where: str, parameters: Sequence[object]) -> list[Ended]:
    """The rows that fulfil `where` (a constant text of this package)."""
    found = connection.execute(f"SELECT {ENDED_COLUMNS} FROM ended WHERE {where}", parameters)
    return [Ended(*row) for row in found]


def forget(session: Session, message_id: int) -> None:
    """A settled message gives way to a new one of its key."""
    row = ended_with(session.connection, message_id)
    if row is None:
        return
    kept: list[Part] = []
    gone: list[Part] = []
    for first, enqueued_at, label, named in row.decoded():
        at = message_id - first
        for start, stop, to in (
            ((0, at, kept), (at, at + 1, gone), (at + 1, len(named), kept))
            if (0 <= at < len(named))
            else ((0, len(named), kept),)
        ):
            if start < stop:
                to.append((first + start, enqueued_at, label, named[start:stop]))
    _rewrite(session, row, kept, gone)


def forget_user(session: Session, user_id: str) -> None:
    """Forget what became of all settled messages of a user."""
    _drop(session, load_ended(session.connection, "user_id = ?", (user_id,)))


def drop_oldest(session: Session, number: int) -> None:
    """Forget what became of so many messages, the oldest first."""
    whole: list[Ended] = []
    for row in session.connection.execute(f"SELECT {ENDED_COLUMNS} FROM ended ORDER BY id"):
        one = Ended(*row)
        if one.count > number:
            break
        number -= one.count
        whole.append(one)
    else:
        number = 0
    _drop(session, whole)
    if number:
        (oldest,) = load_ended(session.connection, "id > 0 ORDER BY id LIMIT 1", ())
        kept: list[Part] = []
        gone: list[Part] = []
        for first, enqueued_at, label, named in sorted(oldest.decoded()):
            cut = min(number, len(named))
            number -= cut
            if cut:
                gone.append((first, enqueued_at, label, named[:cut]))
            if cut < len(named):
                kept.append((first + cut, enqueued_at, label, named[cut:]))
        _rewrite(session, oldest, kept, gone)


def drop_old(session: Session) -> None:
    """Forget what has been kept long enough, a portion at a time."""
    rows = load_ended(session.connection, "id > 0 ORDER BY id LIMIT ?", (OLD_AT_ONCE_MAX,))
    _drop(session, [row for row in rows if row.finished_at <= session.wall - KEPT_S])


def _drop(session: Session, rows: Sequence[Ended]) -> None:
    ids = _take_out(session, rows)
    small = calls.forget(session.connection, ids)
    for row in rows:
        if not small.isdisjoint(json.loads(row.packs)):
            _forget_names(session.connection, [part for part in row.decoded() if part[0] in small])


def _rewrite(session: Session, row: Ended, kept: Sequence[Part], gone: Sequence[Part]) -> None:
    """The same row with fewer messages."""
    _take_out(session, [row])
    connection = session.connection
    if kept:
        first = kept[0][0]
        count = sum(len(part[3]) for part in kept)
        connection.execute(
            _INSERT,
            (
                first,
                max(part[0] + len(part[3]) for part in kept) - 1,
                count,
                row.user_id,
                row.mem_cube_id,
                row.place,
                row.started_at,
                row.finished_at,
                row.attempts,
                row.error,
                json.dumps([part[0] for part in kept]),
                f"[{','.join([encode_ids(*part) for part in kept])}]",
            ),
        )
        connection.executemany(
            "INSERT INTO ended_pack (id, ended) VALUES (?, ?)", [(part[0], first) for part in kept[1:]]
        )
        session.counters.settled += count
    small = calls.forget(connection, [part[0] for part in gone])
    _forget_names(connection, [part for part in gone if part[0] in small])


def _take_out(session: Session, rows: Sequence[Ended]) -> list[int]:
    """Remove the rows; the ids of their packs."""
    connection = session.connection
    ids = [pack_id for row in rows for pack_id in json.loads(row.packs)]
    connection.executemany("DELETE FROM ended WHERE id = ?", [(row.id,) for row in rows])
    connection.executemany("DELETE FROM ended_pack WHERE id = ?", [(one,) for one in ids])
    session.counters.settled -= sum(row.count for row in rows)
    return ids


def _forget_names(connection: sqlite3.Connection, parts: Iterable[Part]) -> None:
    for first, _, _, named in parts:
        calls.forget_names(connection, first, [(item, task) for _, item, task, _ in named])
