"""The journal's rows in the file. What a row is and how rows are chained: `memos.memory.relational.journal`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from memos.memory.relational.journal import journal_row
from memos.memory.store import JournalRow

_INSERT = """
INSERT INTO journal (cube_no, seq, at, op, item_id, message_key, task_id, label, trace_id, user_id, reason,
                     before, after, salt, payload, chain)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SELECT = """
SELECT journal.n, cube.id, journal.seq, journal.at, journal.op, journal.item_id, journal.before, journal.after,
       journal.reason, journal.message_key, journal.task_id, journal.label, journal.trace_id, journal.user_id
FROM journal JOIN cube ON cube.no = journal.cube_no
WHERE {conditions}
ORDER BY journal.n DESC LIMIT ?
"""
_CHAIN = """
SELECT n, seq, at, op, item_id, message_key, task_id, label, trace_id, user_id, reason, before, after, salt,
       payload, chain, redacted_at
FROM journal WHERE cube_no = ? ORDER BY n
"""


@dataclass(frozen=True, slots=True)
class SqliteJournal:
    """Fulfils `JournalTable`."""

    connection: sqlite3.Connection

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self.connection.executemany(_INSERT, rows)

    def read(
        self,
        *,
        cube_id: str | None,
        item_id: str | None,
        task_id: str | None,
        message_key: str | None,
        limit: int,
        before: int | None,
    ) -> list[JournalRow]:
        """Rows that meet all given conditions, newest first."""
        wanted = (
            ("cube.id = ?", cube_id),
            ("journal.item_id = ?", item_id),
            ("journal.task_id = ?", task_id),
            ("journal.message_key = ?", message_key),
            ("journal.n < ?", before),
        )
        given = [(condition, value) for condition, value in wanted if value is not None]
        conditions = " AND ".join(condition for condition, _ in given) or "1"
        rows = self.connection.execute(
            _SELECT.format(conditions=conditions), (*(value for _, value in given), max(0, limit))
        )
        return [journal_row(row) for row in rows]

    def chain(self, cube_no: int) -> Iterator[Sequence[Any]]:
        yield from self.connection.execute(_CHAIN, (cube_no,))
