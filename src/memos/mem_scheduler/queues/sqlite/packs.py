"""Packs: live messages of one lane that share all they went through, in one row.

Most messages wait, run and end in the pack they came in. What goes a way of its own (a failure, a
cancellation, a part of a pack that is claimed) is divided off: ids and places run on inside a pack, so each
part is a pack again. A pack holds at most `COUNT_MAX` messages and `BYTES_MAX` of text unless one message
alone has more: dividing costs little.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memos.mem_scheduler.queues.sqlite.codec import (
    Named,
    build_messages,
    decode_ids,
    encode_ids,
    join_lines,
    split_lines,
)
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

COUNT_MAX = 128
BYTES_MAX = 64 * 1024

_STATE = (
    "lane, place, pos, count, label, user_id, mem_cube_id, parent_key, enqueued_at, ready_at, due_at, fresh,"
    " attempts, recoveries, retried, cancel_requested, absorbed, into_id, blocked_since, started_at,"
    " finished_at, died_no, error"
)
PACK_COLUMNS = f"id, {_STATE}, ids, body"
_INSERT = f"INSERT INTO pack ({PACK_COLUMNS}) VALUES ({', '.join('?' * 26)})"
_UPDATE = (
    "UPDATE pack SET lane = ?, place = ?, pos = ?, ready_at = ?, due_at = ?, fresh = ?, attempts = ?,"
    " recoveries = ?, retried = ?, cancel_requested = ?, absorbed = ?, into_id = ?, blocked_since = ?,"
    " started_at = ?, finished_at = ?, died_no = ?, error = ? WHERE id = ?"
)


@dataclass(slots=True)
class Pack:
    """A row of `pack`."""

    id: int
    lane: int
    place: int
    pos: int
    count: int
    label: str
    user_id: str
    mem_cube_id: str
    parent_key: str
    enqueued_at: float
    ready_at: float
    due_at: float
    fresh: int
    attempts: int
    recoveries: int
    retried: int
    cancel_requested: int
    absorbed: int
    into_id: int | None
    blocked_since: float | None
    started_at: float | None
    finished_at: float | None
    died_no: int | None
    error: str
    ids: str
    body: bytes

    def named(self) -> list[Named]:
        """Key, item, task and number of each message."""
        return decode_ids((self.ids,))[0][3]

    def key(self) -> str:
        """The key of the first message."""
        return self.named()[0][0]

    def part(self, start: int, stop: int) -> Pack:
        """The messages from `start` up to `stop` as a pack of their own."""
        if start == 0 and stop == self.count:
            return self
        return replace(
            self,
            id=self.id + start,
            pos=self.pos + start,
            count=stop - start,
            ids=encode_ids(self.id + start, self.enqueued_at, self.label, self.named()[start:stop]),
            body=join_lines(split_lines(self.body)[start:stop]),
        )

    def messages(self, stream: str) -> list[ScheduleMessageItem]:
        return build_messages(
            self.named(),
            self.body,
            stream=stream,
            user_id=self.user_id,
            mem_cube_id=self.mem_cube_id,
            labels=[self.label] * self.count,
        )


def load_packs(connection: sqlite3.Connection, where: str, parameters: Any) -> list[Pack]:
    """The packs that fulfil `where` (a constant text of this package)."""
    found = connection.execute(f"SELECT {PACK_COLUMNS} FROM pack WHERE {where}", parameters)
    return [Pack(*row) for row in found]


def insert_packs(connection: sqlite3.Connection, packs: Iterable[Pack]) -> None:
    connection.executemany(
        _INSERT,
        [
            (
                pack.id,
                pack.lane,
                pack.place,
                pack.pos,
                pack.count,
                pack.label,
                pack.user_id,
                pack.mem_cube_id,
                pack.parent_key,
                pack.enqueued_at,
                pack.ready_at,
                pack.due_at,
                pack.fresh,
                pack.attempts,
                pack.recoveries,
                pack.retried,
                pack.cancel_requested,
                pack.absorbed,
                pack.into_id,
                pack.blocked_since,
                pack.started_at,
                pack.finished_at,
                pack.died_no,
                pack.error,
                pack.ids,
                pack.body,
            )
            for pack in packs
        ],
    )


def save_packs(connection: sqlite3.Connection, packs: Iterable[Pack]) -> None:
    """Write the state of packs whose messages stay together."""
    connection.executemany(
        _UPDATE,
        [
            (
                pack.lane,
                pack.place,
                pack.pos,
                pack.ready_at,
                pack.due_at,
                pack.fresh,
                pack.attempts,
                pack.recoveries,
                pack.retried,
                pack.cancel_requested,
                pack.absorbed,
                pack.into_id,
                pack.blocked_since,
                pack.started_at,
                pack.finished_at,
                pack.died_no,
                pack.error,
                pack.id,
            )
            for pack in packs
        ],
    )


def delete_packs(connection: sqlite3.Connection, ids: Iterable[int]) -> None:
    connection.executemany("DELETE FROM pack WHERE id = ?", [(one,) for one in ids])


def divide(connection: sqlite3.Connection, pack: Pack, at: int) -> tuple[Pack, Pack]:
    """Make two packs of one, in the file too: the first `at` messages, and the rest. ValueError when one of
    them would be empty: a pack without messages would have the id of another one."""
    if not 0 < at < pack.count:
        raise ValueError(f"a pack of {pack.count} messages cannot be divided at {at}")
    first, rest = pack.part(0, at), pack.part(at, pack.count)
    connection.execute(
        "UPDATE pack SET count = ?, ids = ?, body = ? WHERE id = ?",
        (first.count, first.ids, first.body, first.id),
    )
    insert_packs(connection, [rest])
    return first, rest


def single_out(connection: sqlite3.Connection, pack: Pack, message_id: int) -> Pack:
    """One message of a pack as a pack of its own, in the file too."""
    at = message_id - pack.id
    if at:
        _, pack = divide(connection, pack, at)
    if pack.count > 1:
        pack, _ = divide(connection, pack, 1)
    return pack


def pack_of(connection: sqlite3.Connection, message_id: int) -> Pack | None:
    """The pack that holds a live message."""
    found = load_packs(connection, "id <= ? ORDER BY id DESC LIMIT 1", (message_id,))
    return found[0] if found and message_id < found[0].id + found[0].count else None


def last_of(packs: Sequence[Pack]) -> int:
    """The highest id of all their messages."""
    return max(pack.id + pack.count for pack in packs) - 1
