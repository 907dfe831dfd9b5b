"""The journal's rows in the database. What a row is and how rows are chained: `memos.memory.relational.journal`.

Numbers rise with each commit inside a cube, whose writers wait for each other. Between cubes a row may
appear after one with a higher number, as their transactions end in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from memos.memory.postgres.session import Session
from memos.memory.relational.journal import journal_row
from memos.memory.store import JournalRow

_COLUMNS = (
    "cube_no", "seq", "at", "op", "item_id", "message_key", "task_id", "label", "trace_id", "user_id", "reason",
    "before", "after", "salt", "payload", "chain",
)  # fmt: skip
_INSERT = """
INSERT INTO journal (cube_no, seq, at, op, item_id, message_key, task_id, label, trace_id, user_id, reason,
                     before, after, salt, payload, chain)
VALUES (%(cube_no)s, %(seq)s, %(at)s, %(op)s, %(item_id)s, %(message_key)s, %(task_id)s, %(label)s, %(trace_id)s,
        %(user_id)s, %(reason)s, %(before)s, %(after)s, %(salt)s, %(payload)s, %(chain)s)
"""
_SELECT: LiteralString = """
SELECT journal.n, cube.id, journal.seq, journal.at, journal.op, journal.item_id, journal.before, journal.after,
       journal.reason, journal.message_key, journal.task_id, journal.label, journal.trace_id, journal.user_id
FROM journal JOIN cube ON cube.no = journal.cube_no
WHERE {conditions}
ORDER BY journal.n DESC LIMIT %(limit)s
"""
_OF_CUBE = "journal.cube_no = (SELECT no FROM cube WHERE id = %(cube_id)s)"
_OF_ITEM = "journal.item_id = %(item_id)s AND journal.item_id <> ''"
_OF_TASK = "journal.task_id = %(task_id)s AND journal.task_id <> ''"
_OF_MESSAGE = "journal.message_key = %(message_key)s AND journal.message_key <> ''"
_BEFORE = "journal.n < %(before)s"
_CHAIN = """
SELECT n, seq, at, op, item_id, message_key, task_id, label, trace_id, user_id, reason, before, after, salt,
       payload, chain, redacted_at
FROM journal WHERE cube_no = %(cube)s AND n > %(after)s ORDER BY n LIMIT %(limit)s
"""
_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class PostgresJournal:
    """Fulfils `JournalTable`."""

    session: Session

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self.session.run_many(_INSERT, [dict(zip(_COLUMNS, row, strict=True)) for row in rows])

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
        conditions: list[LiteralString] = []
        if cube_id is not None:
            conditions.append(_OF_CUBE)
        if item_id is not None:
            conditions.append(_OF_ITEM if item_id else "journal.item_id = %(item_id)s")
        if task_id is not None:
            conditions.append(_OF_TASK if task_id else "journal.task_id = %(task_id)s")
        if message_key is not None:
            conditions.append(_OF_MESSAGE if message_key else "journal.message_key = %(message_key)s")
        if before is not None:
            conditions.append(_BEFORE)
        rows = self.session.rows(
            _SELECT.format(conditions=" AND ".join(conditions) or "true"),
            cube_id=cube_id,
            item_id=item_id,
            task_id=task_id,
            message_key=message_key,
            before=before,
            limit=max(0, limit),
        )
        return [journal_row(row) for row in rows]

    def chain(self, cube_no: int) -> Iterator[Sequence[Any]]:
        after = -1
        while rows := self.session.rows(_CHAIN, cube=cube_no, after=after, limit=_BATCH):
            yield from rows
            after = rows[-1][0]
