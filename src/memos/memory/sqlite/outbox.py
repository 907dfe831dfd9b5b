"""Marks and the outbox: which messages took effect, and which messages they chain.

A mark says that a message's effects are committed. An outbox row is a followup that is to be submitted;
it is ticked in the transaction in which the followup itself takes effect.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence

from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.sqlite.lookup import chunks, marks
from memos.memory.store import Followup

_INSERT_MARK = """
INSERT INTO mark (message_key, parent_key, at) VALUES (?, ?, ?) ON CONFLICT (message_key) DO NOTHING
"""
_HAS_MARK = "SELECT 1 FROM mark WHERE message_key = ?"
_OLDEST_MARKS = "SELECT message_key, parent_key FROM mark ORDER BY no LIMIT ?"
_DELETE_MARKS = "DELETE FROM mark WHERE message_key IN ({marks})"
_INSERT = """
INSERT INTO outbox (message_key, parent_key, message, delay_s, at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (message_key) DO NOTHING
"""
_PENDING = "SELECT message_key, parent_key, message, delay_s FROM outbox WHERE ticked = 0 ORDER BY no"
_PENDING_OF = """
SELECT message_key, parent_key, message, delay_s FROM outbox WHERE ticked = 0 AND parent_key = ? ORDER BY no
"""
_TICK = "UPDATE outbox SET ticked = 1 WHERE message_key IN ({marks})"
_DELETE_TICKED = "DELETE FROM outbox WHERE ticked = 1 AND message_key IN ({marks})"


def put_mark(connection: sqlite3.Connection, message_key: str, parent_key: str, now: int) -> bool:
    """Set the mark; False when it was there already."""
    return connection.execute(_INSERT_MARK, (message_key, parent_key, now)).rowcount == 1


def has_mark(connection: sqlite3.Connection, message_key: str) -> bool:
    """Whether the message took effect."""
    return connection.execute(_HAS_MARK, (message_key,)).fetchone() is not None


def oldest_marks(connection: sqlite3.Connection, limit: int) -> list[tuple[str, str]]:
    """(message_key, parent_key), oldest first."""
    return [(row[0], row[1]) for row in connection.execute(_OLDEST_MARKS, (max(0, limit),))]


def put_followups(
    connection: sqlite3.Connection, message_key: str, followups: Sequence[Followup], now: int
) -> None:
    """Add the messages that the task of `message_key` chains."""
    for followup in followups:
        if followup.parent_key != message_key:
            raise InvalidInput(
                f"followup {followup.key!r} names the parent {followup.parent_key!r}, not {message_key!r}"
            )
        if not math.isfinite(followup.delay_s) or followup.delay_s < 0:
            raise InvalidInput(f"followup {followup.key!r} has the delay {followup.delay_s}; give 0 or more")
    connection.executemany(
        _INSERT,
        [(one.key, one.parent_key, one.message.to_json(), one.delay_s, now) for one in followups],
    )


def pending(connection: sqlite3.Connection, message_key: str | None = None) -> list[Followup]:
    """Followups that are not ticked, in the order they were chained: of one parent, or all."""
    rows = (
        connection.execute(_PENDING)
        if message_key is None
        else connection.execute(_PENDING_OF, (message_key,))
    )
    return [Followup(row[0], row[1], ScheduleMessageItem.from_json(row[2]), delay_s=row[3]) for row in rows]


def tick(connection: sqlite3.Connection, message_keys: Sequence[str]) -> None:
    """The followups of these keys need not be submitted any more."""
    for part in chunks(message_keys):
        connection.execute(_TICK.format(marks=marks(len(part))), part)


def sweep(connection: sqlite3.Connection, settled: Sequence[str]) -> int:
    """Remove marks and ticked rows of these keys; returns how many marks went."""
    gone = 0
    for part in chunks(settled):
        gone += connection.execute(_DELETE_MARKS.format(marks=marks(len(part))), part).rowcount
        connection.execute(_DELETE_TICKED.format(marks=marks(len(part))), part)
    return gone
