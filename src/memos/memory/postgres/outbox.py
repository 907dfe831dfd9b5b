"""Marks and the outbox: which messages took effect, and which messages they chain.

A mark is claimed by inserting it: whoever comes second with the same key waits until the first has committed
or given up, and then finds the mark or sets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.postgres.session import Session
from memos.memory.store import Followup

_INSERT_MARK = """
INSERT INTO mark (message_key, parent_key, at) VALUES (%(key)s, %(parent)s, %(at)s)
ON CONFLICT (message_key) DO NOTHING
"""
_HAS_MARK = "SELECT 1 FROM mark WHERE message_key = %(key)s"
_OLDEST_MARKS = "SELECT message_key, parent_key FROM mark ORDER BY no LIMIT %(limit)s"
_DELETE_MARKS = "DELETE FROM mark WHERE message_key = ANY (%(keys)s)"
_INSERT = """
INSERT INTO outbox (message_key, parent_key, cube_id, user_id, message, delay_s, at)
VALUES (%(key)s, %(parent)s, %(cube_id)s, %(user_id)s, %(message)s, %(delay_s)s, %(at)s)
ON CONFLICT (message_key) DO NOTHING
"""
_PENDING = "SELECT message_key, parent_key, message, delay_s FROM outbox WHERE NOT ticked ORDER BY no"
_PENDING_OF = """
SELECT message_key, parent_key, message, delay_s FROM outbox
WHERE NOT ticked AND parent_key = %(parent)s ORDER BY no
"""
_TICK = "UPDATE outbox SET ticked = true WHERE message_key = ANY (%(keys)s) AND NOT ticked"
_DELETE_TICKED = "DELETE FROM outbox WHERE ticked AND message_key = ANY (%(keys)s)"


@dataclass(frozen=True, slots=True)
class PostgresOutbox:
    """Fulfils `OutboxTables`."""

    session: Session

    def put_mark(self, message_key: str, parent_key: str, now: int) -> bool:
        return self.session.run(_INSERT_MARK, key=message_key, parent=parent_key, at=now) == 1

    def has_mark(self, message_key: str) -> bool:
        return self.session.row(_HAS_MARK, key=message_key) is not None

    def oldest_marks(self, limit: int) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self.session.rows(_OLDEST_MARKS, limit=max(0, limit))]

    def put_followups(self, followups: Sequence[Followup], now: int) -> None:
        self.session.run_many(
            _INSERT,
            [
                {
                    "key": one.key,
                    "parent": one.parent_key,
                    "cube_id": one.message.mem_cube_id,
                    "user_id": one.message.user_id,
                    "message": one.message.to_json(),
                    "delay_s": float(one.delay_s),
                    "at": now,
                }
                for one in followups
            ],
        )

    def pending(self, message_key: str | None = None) -> list[Followup]:
        """In the order they were chained."""
        rows = (
            self.session.rows(_PENDING)
            if message_key is None
            else self.session.rows(_PENDING_OF, parent=message_key)
        )
        return [
            Followup(row[0], row[1], ScheduleMessageItem.from_json(row[2]), delay_s=row[3]) for row in rows
        ]

    def tick(self, message_keys: Sequence[str]) -> None:
        self.session.run(_TICK, keys=list(message_keys))

    def sweep(self, settled: Sequence[str]) -> int:
        gone = self.session.run(_DELETE_MARKS, keys=list(settled))
        self.session.run(_DELETE_TICKED, keys=list(settled))
        return gone
