"""What erasing a user takes out of the database. The order of things: `memos.memory.relational.erase`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memos.memory.postgres.session import Session
from memos.memory.relational.erase import names_any

_TEXTS = """
SELECT memory FROM item AS own
WHERE user_id = %(user)s AND length(memory) >= %(chars_min)s AND NOT EXISTS
    (SELECT 1 FROM item WHERE item.content_hash = own.content_hash AND item.cube_no = own.cube_no
     AND item.user_id <> %(user)s)
GROUP BY memory ORDER BY length(memory) DESC LIMIT %(limit)s
"""
_OWN_CUBES = """
SELECT no FROM cube
WHERE NOT EXISTS (SELECT 1 FROM item WHERE item.cube_no = cube.no AND item.user_id <> %(user)s)
  AND (id = %(user)s OR EXISTS (SELECT 1 FROM item WHERE item.cube_no = cube.no AND item.user_id = %(user)s))
"""
_LIVING = "SELECT id FROM item WHERE user_id = %(user)s AND status <> 'deleted' ORDER BY no"
_EVERY = "SELECT id FROM item WHERE user_id = %(user)s"
_REDACT_OF_USER = """
UPDATE journal SET redacted_at = %(now)s, salt = NULL, before = NULL, after = NULL, reason = '', user_id = ''
WHERE redacted_at IS NULL AND user_id = %(user)s
"""
_REDACT_OF_ITEMS = """
UPDATE journal SET redacted_at = %(now)s, salt = NULL, before = NULL, after = NULL, reason = '', user_id = ''
WHERE redacted_at IS NULL AND item_id <> '' AND item_id IN (SELECT id FROM item WHERE user_id = %(user)s)
"""
_REDACT_OF_CUBES = """
UPDATE journal SET redacted_at = %(now)s, salt = NULL, before = NULL, after = NULL, reason = '', user_id = ''
WHERE redacted_at IS NULL AND cube_no = ANY (%(own)s)
"""
_CUBE_IDS = "SELECT id FROM cube WHERE no = ANY (%(own)s)"
_LOGS = "SELECT no, cube_id, user_id, body FROM web_log"
_DROP_LOGS = "DELETE FROM web_log WHERE no = ANY (%(nos)s)"
_FOLLOWUPS = "DELETE FROM outbox WHERE user_id = %(user)s"
_STATES_BY_NAME = "DELETE FROM state WHERE name = ANY (%(names)s)"
_STATES_OF_CUBES = "DELETE FROM state WHERE cube_no = ANY (%(own)s)"
_RENAME = "UPDATE item SET user_id = %(name)s WHERE user_id = %(user)s"


@dataclass(frozen=True, slots=True)
class PostgresErasing:
    """Fulfils `ErasingTables`."""

    session: Session

    def texts_of(self, user_id: str, *, chars_min: int, limit: int) -> list[str]:
        rows = self.session.rows(_TEXTS, user=user_id, chars_min=chars_min, limit=limit)
        return [row[0] for row in rows]

    def own_cubes(self, user_id: str) -> list[int]:
        return [row[0] for row in self.session.rows(_OWN_CUBES, user=user_id)]

    def living(self, user_id: str) -> list[str]:
        return [row[0] for row in self.session.rows(_LIVING, user=user_id)]

    def every(self, user_id: str) -> set[str]:
        return {row[0] for row in self.session.rows(_EVERY, user=user_id)}

    def redact(self, user_id: str, own: Sequence[int], now: int) -> int:
        return (
            self.session.run(_REDACT_OF_USER, now=now, user=user_id)
            + self.session.run(_REDACT_OF_ITEMS, now=now, user=user_id)
            + self.session.run(_REDACT_OF_CUBES, now=now, own=list(own))
        )

    def drop_logs(self, user_id: str, own: Sequence[int], every: set[str]) -> int:
        """Logs of the user and of their own cubes, and those of others that show what the user stored."""
        own_ids = {row[0] for row in self.session.rows(_CUBE_IDS, own=list(own))}
        gone = [
            no
            for no, cube_id, owner, body in self.session.rows(_LOGS)
            if owner == user_id or cube_id in own_ids or names_any(body, every)
        ]
        return self.session.run(_DROP_LOGS, nos=gone)

    def drop_followups(self, user_id: str) -> int:
        return self.session.run(_FOLLOWUPS, user=user_id)

    def drop_states(self, own: Sequence[int], names: Sequence[str]) -> int:
        return self.session.run(_STATES_BY_NAME, names=list(names)) + self.session.run(
            _STATES_OF_CUBES, own=list(own)
        )

    def rename(self, user_id: str, name: str) -> None:
        self.session.run(_RENAME, user=user_id, name=name)
