"""The rows of cubes, and the store's named values."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from memos.memory.relational.cubes import CubeRow

_COLUMNS = (
    "no, id, seq, working_version, long_term, user, preference, working_only, archived, length, "
    "journal_rows, chain"
)
_SELECT = f"SELECT {_COLUMNS} FROM cube WHERE id = ?"
_SELECT_ALL = f"SELECT {_COLUMNS} FROM cube ORDER BY no"
_INSERT = "INSERT INTO cube (id, chain) VALUES (?, ?)"
_UPDATE = """
UPDATE cube SET seq = ?, working_version = ?, long_term = ?, user = ?, preference = ?, working_only = ?,
                archived = ?, length = ?, journal_rows = ?, chain = ?
WHERE no = ?
"""
_COUNT_WORKING = "SELECT count(*) FROM working WHERE cube_no = ?"
_IDS = "SELECT id FROM cube ORDER BY no"
_IDS_OF_USER = """
SELECT id FROM cube
WHERE no IN (SELECT DISTINCT cube_no FROM item WHERE user_id = ? AND live = 1) ORDER BY no
"""
_GET_META = "SELECT value FROM meta WHERE name = ?"
_META_OF = "SELECT name, value FROM meta WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name"
_DROP_META = "DELETE FROM meta WHERE name = ?"
_PUT_META = """
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


@dataclass(frozen=True, slots=True)
class SqliteCubes:
    """Fulfils `CubeTable`. A writing transaction is alone, so holding is reading."""

    connection: sqlite3.Connection

    def find(self, cube_id: str) -> CubeRow | None:
        row = self.connection.execute(_SELECT, (cube_id,)).fetchone()
        return None if row is None else CubeRow(*row)

    def hold(self, cube_id: str) -> CubeRow | None:
        return self.find(cube_id)

    def share(self) -> None:
        pass

    def hold_all(self) -> None:
        pass

    def insert(self, cube_id: str, chain: bytes) -> CubeRow:
        self.connection.execute(_INSERT, (cube_id, chain))
        return CubeRow(*self.connection.execute(_SELECT, (cube_id,)).fetchone())

    def save(self, cube: CubeRow) -> None:
        self.connection.execute(
            _UPDATE,
            (
                cube.seq,
                cube.working_version,
                cube.long_term,
                cube.user,
                cube.preference,
                cube.working_only,
                cube.archived,
                cube.length,
                cube.journal_rows,
                cube.chain,
                cube.no,
            ),
        )

    def all(self) -> list[CubeRow]:
        return [CubeRow(*row) for row in self.connection.execute(_SELECT_ALL)]

    def ids(self, user_id: str | None) -> list[str]:
        if user_id is None:
            return [row[0] for row in self.connection.execute(_IDS)]
        return [row[0] for row in self.connection.execute(_IDS_OF_USER, (user_id,))]

    def places_taken(self, cube_no: int) -> int:
        count: int = self.connection.execute(_COUNT_WORKING, (cube_no,)).fetchone()[0]
        return count


@dataclass(frozen=True, slots=True)
class SqliteMeta:
    """Fulfils `MetaTable`."""

    connection: sqlite3.Connection

    def get(self, name: str) -> str | None:
        row = self.connection.execute(_GET_META, (name,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, name: str, value: str) -> None:
        self.connection.execute(_PUT_META, (name, value))

    def starting_with(self, prefix: str) -> dict[str, str]:
        return dict(self.connection.execute(_META_OF, (prefix,)).fetchall())

    def drop(self, name: str) -> bool:
        return self.connection.execute(_DROP_META, (name,)).rowcount == 1
