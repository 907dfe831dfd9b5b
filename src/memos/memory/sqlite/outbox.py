"""Marks and the outbox: which messages took effect, and which messages they chain.

A mark says that a message's effects are committed. An outbox row is a followup that is to be submitted;
it is ticked in the transaction in which the followup itself takes effect.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.sqlite.chunks import chunks, marks
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


@dataclass(frozen=True, slots=True)
class SqliteOutbox:
    """Fulfils `OutboxTables`."""

    connection: sqlite3.Connection

    def put_mark(self, message_key: str, parent_key: str, now: int) -> bool:
        return self.connection.execute(_INSERT_MARK, (message_key, parent_key, now)).rowcount == 1

    def has_mark(self, message_key: str) -> bool:
        return self.connection.execute(_HAS_MARK, (message_key,)).fetchone() is not None

    def oldest_marks(self, limit: int) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self.connection.execute(_OLDEST_MARKS, (max(0, limit),))]

    def put_followups(self, followups: Sequence[Followup], now: int) -> None:
        self.connection.executemany(
            _INSERT,
            [(one.key, one.parent_key, one.message.to_json(), one.delay_s, now) for one in followups],
        )

    def pending(self, message_key: str | None = None) -> list[Followup]:
        """In the order they were chained."""
        rows = (
            self.connection.execute(_PENDING)
            if message_key is None
            else self.connection.execute(_PENDING_OF, (message_key,))
        )
        return [
            Followup(row[0], row[1], ScheduleMessageItem.from_json(row[2]), delay_s=row[3]) for row in rows
        ]

    def tick(self, message_keys: Sequence[str]) -> None:
        for part in chunks(message_keys):
            self.connection.execute(_TICK.format(marks=marks(len(part))), part)

    def sweep(self, settled: Sequence[str]) -> int:
        gone = 0
        for part in chunks(settled):
            gone += self.connection.execute(_DELETE_MARKS.format(marks=marks(len(part))), part).rowcount
            self.connection.execute(_DELETE_TICKED.format(marks=marks(len(part))), part)
        return gone
