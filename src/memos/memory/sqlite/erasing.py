"""What erasing a user takes out of the file. The order of things: `memos.memory.relational.erase`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from memos.memory.relational.erase import names_any
from memos.memory.sqlite.chunks import chunks, marks

_LIVING = "SELECT id FROM item WHERE user_id = ? AND status <> 'deleted' ORDER BY no"
_EVERY = "SELECT id FROM item WHERE user_id = ?"
_TEXTS = """
SELECT DISTINCT memory FROM item AS own WHERE user_id = ?1 AND length(memory) >= ?2 AND NOT EXISTS
    (SELECT 1 FROM item WHERE item.content_hash = own.content_hash AND item.cube_no = own.cube_no
     AND item.user_id <> ?1)
ORDER BY length(memory) DESC LIMIT ?3
"""
_OWN_CUBES = """
SELECT no FROM cube WHERE NOT EXISTS (SELECT 1 FROM item WHERE item.cube_no = cube.no AND item.user_id <> ?1)
AND (id = ?1 OR EXISTS (SELECT 1 FROM item WHERE item.cube_no = cube.no AND item.user_id = ?1))
"""
_REDACT = """
UPDATE journal SET redacted_at = ?, salt = NULL, before = NULL, after = NULL, reason = '', user_id = ''
WHERE redacted_at IS NULL AND ({condition})
"""
_CUBE_IDS = "SELECT id FROM cube WHERE no IN ({marks})"
_LOGS = "SELECT no, cube_id, user_id, body FROM web_log"
_DROP_LOG = "DELETE FROM web_log WHERE no = ?"
_FOLLOWUPS = "DELETE FROM outbox WHERE json_extract(message, '$.user_id') = ?"
_STATES_BY_NAME = "DELETE FROM state WHERE name = ?"
_STATES_OF_CUBE = "DELETE FROM state WHERE cube_no = ?"
_RENAME = "UPDATE item SET user_id = ? WHERE user_id = ?"


@dataclass(frozen=True, slots=True)
class SqliteErasing:
    """Fulfils `ErasingTables`."""

    connection: sqlite3.Connection

    def texts_of(self, user_id: str, *, chars_min: int, limit: int) -> list[str]:
        return [row[0] for row in self.connection.execute(_TEXTS, (user_id, chars_min, limit))]

    def own_cubes(self, user_id: str) -> list[int]:
        return [row[0] for row in self.connection.execute(_OWN_CUBES, (user_id,))]

    def living(self, user_id: str) -> list[str]:
        return [row[0] for row in self.connection.execute(_LIVING, (user_id,))]

    def every(self, user_id: str) -> set[str]:
        return {row[0] for row in self.connection.execute(_EVERY, (user_id,))}

    def redact(self, user_id: str, own: Sequence[int], now: int) -> int:
        conditions = ("user_id = ?", "item_id IN (SELECT id FROM item WHERE user_id = ?)")
        done = sum(
            self.connection.execute(_REDACT.format(condition=one), (now, user_id)).rowcount
            for one in conditions
        )
        for cube_no in own:
            done += self.connection.execute(_REDACT.format(condition="cube_no = ?"), (now, cube_no)).rowcount
        return done

    def drop_logs(self, user_id: str, own: Sequence[int], every: set[str]) -> int:
        """Logs of the user and of their own cubes, and those of others that show what the user stored."""
        own_ids = {
            row[0]
            for part in chunks(own)
            for row in self.connection.execute(_CUBE_IDS.format(marks=marks(len(part))), part)
        }
        gone = [
            no
            for no, cube_id, owner, body in self.connection.execute(_LOGS).fetchall()
            if owner == user_id or cube_id in own_ids or names_any(body, every)
        ]
        self.connection.executemany(_DROP_LOG, [(no,) for no in gone])
        return len(gone)

    def drop_followups(self, user_id: str) -> int:
        return self.connection.execute(_FOLLOWUPS, (user_id,)).rowcount

    def drop_states(self, own: Sequence[int], names: Sequence[str]) -> int:
        done = sum(self.connection.execute(_STATES_BY_NAME, (name,)).rowcount for name in names)
        return done + sum(self.connection.execute(_STATES_OF_CUBE, (no,)).rowcount for no in own)

    def rename(self, user_id: str, name: str) -> None:
        self.connection.execute(_RENAME, (name, user_id))
