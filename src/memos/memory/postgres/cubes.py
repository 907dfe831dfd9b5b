"""The rows of cubes, and the store's named values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memos.memory.postgres.session import Session
from memos.memory.relational.cubes import CubeRow

_FIND = """
SELECT no, id, seq, working_version, long_term, user_memory, preference, working_only, archived, length,
       journal_rows, chain
FROM cube WHERE id = %(id)s
"""
_HOLD = """
SELECT no, id, seq, working_version, long_term, user_memory, preference, working_only, archived, length,
       journal_rows, chain
FROM cube WHERE id = %(id)s FOR UPDATE
"""
_ALL = """
SELECT no, id, seq, working_version, long_term, user_memory, preference, working_only, archived, length,
       journal_rows, chain
FROM cube ORDER BY no
"""
# ROW SHARE is what a lock of a row takes on the table anyway; EXCLUSIVE waits for it and is waited for.
_SHARE = "LOCK TABLE cube IN ROW SHARE MODE"
_HOLD_ALL = "LOCK TABLE cube IN EXCLUSIVE MODE"
_INSERT = "INSERT INTO cube (id, chain) VALUES (%(id)s, %(chain)s) ON CONFLICT (id) DO NOTHING"
_WIDEN = "SELECT enter_scope(scope_names() || %(id)s::text) WHERE NOT scope_is_open()"
_SAVE = """
UPDATE cube SET seq = %(seq)s, working_version = %(working_version)s, long_term = %(long_term)s,
                user_memory = %(user)s, preference = %(preference)s, working_only = %(working_only)s,
                archived = %(archived)s, length = %(length)s, journal_rows = %(journal_rows)s, chain = %(chain)s
WHERE no = %(no)s
"""
_IDS = "SELECT id FROM cube ORDER BY no"
_IDS_OF_USER = """
SELECT id FROM cube
WHERE no IN (SELECT DISTINCT cube_no FROM item WHERE user_id = %(user_id)s AND live) ORDER BY no
"""
_COUNT_WORKING = "SELECT count(*) FROM working WHERE cube_no = %(cube)s"
_GET_META = "SELECT value FROM meta WHERE name = %(name)s"
_META_OF = "SELECT name, value FROM meta WHERE starts_with(name, %(prefix)s) ORDER BY name"
_DROP_META = "DELETE FROM meta WHERE name = %(name)s"
_PUT_META = """
INSERT INTO meta (name, value) VALUES (%(name)s, %(value)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


@dataclass(frozen=True, slots=True)
class PostgresCubes:
    """Fulfils `CubeTable`. A cube's row is locked by whoever changes the cube."""

    session: Session

    def find(self, cube_id: str) -> CubeRow | None:
        row = self.session.row(_FIND, id=cube_id)
        return None if row is None else CubeRow(*row)

    def hold(self, cube_id: str) -> CubeRow | None:
        row = self.session.row(_HOLD, id=cube_id)
        return None if row is None else CubeRow(*row)

    def share(self) -> None:
        self.session.run(_SHARE)

    def hold_all(self) -> None:
        self.session.run(_HOLD_ALL)

    def insert(self, cube_id: str, chain: bytes) -> CubeRow:
        # Where another transaction is making the same cube this waits for it, and takes its row.
        self.session.run(_INSERT, id=cube_id, chain=chain)
        self.session.run(_WIDEN, id=cube_id)
        row = self.session.row(_HOLD, id=cube_id)
        assert row is not None
        return CubeRow(*row)

    def save(self, cube: CubeRow) -> None:
        self.session.run(
            _SAVE,
            no=cube.no,
            seq=cube.seq,
            working_version=cube.working_version,
            long_term=cube.long_term,
            user=cube.user,
            preference=cube.preference,
            working_only=cube.working_only,
            archived=cube.archived,
            length=cube.length,
            journal_rows=cube.journal_rows,
            chain=cube.chain,
        )

    def all(self) -> list[CubeRow]:
        return [CubeRow(*row) for row in self.session.rows(_ALL)]

    def ids(self, user_id: str | None) -> list[str]:
        rows: list[Any] = (
            self.session.rows(_IDS) if user_id is None else self.session.rows(_IDS_OF_USER, user_id=user_id)
        )
        return [row[0] for row in rows]

    def places_taken(self, cube_no: int) -> int:
        row = self.session.row(_COUNT_WORKING, cube=cube_no)
        return 0 if row is None else int(row[0])


@dataclass(frozen=True, slots=True)
class PostgresMeta:
    """Fulfils `MetaTable`."""

    session: Session

    def get(self, name: str) -> str | None:
        row = self.session.row(_GET_META, name=name)
        return None if row is None else str(row[0])

    def put(self, name: str, value: str) -> None:
        self.session.run(_PUT_META, name=name, value=value)

    def starting_with(self, prefix: str) -> dict[str, str]:
        return {str(row[0]): str(row[1]) for row in self.session.rows(_META_OF, prefix=prefix)}

    def drop(self, name: str) -> bool:
        return self.session.run(_DROP_META, name=name) == 1
