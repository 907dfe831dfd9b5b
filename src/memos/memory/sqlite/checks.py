"""What `verify` counts and looks up in the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from memos.memory.relational.rows import Stored

_COUNTS = """
SELECT coalesce(sum(live AND kind = 'LongTermMemory'), 0), coalesce(sum(live AND kind = 'UserMemory'), 0),
       coalesce(sum(live AND kind = 'PreferenceMemory'), 0), coalesce(sum(live AND kind = 'WorkingMemory'), 0),
       coalesce(sum(status = 'archived'), 0), coalesce(sum(CASE WHEN live THEN length ELSE 0 END), 0),
       coalesce(max(seq), 0)
FROM item WHERE cube_no = ?
"""
_BAD_PLACES = """
SELECT item.id FROM working JOIN item ON item.no = working.item_no
WHERE working.cube_no = ? AND (item.live = 0 OR item.cube_no <> working.cube_no)
"""
_NOS = "SELECT no FROM item WHERE cube_no = ? AND no > ? ORDER BY no LIMIT ?"
_POSTINGS_OF_CUBE = "SELECT count(*), coalesce(sum(tf), 0) FROM posting WHERE cube_no = ?"
_HAS_POSTING = "SELECT tf, length FROM posting WHERE cube_no = ? AND term = ? AND item_no = ?"
_MENTIONS_OF_CUBE = "SELECT count(*) FROM mention WHERE cube_no = ?"
_HAS_MENTION = (
    "SELECT 1 FROM mention WHERE cube_no = ? AND sort = ? AND live = ? AND name = ? AND item_no = ?"
)
_VECTOR_BYTES = "SELECT length(value) FROM vector WHERE item_no = ?"


@dataclass(frozen=True, slots=True)
class SqliteChecks:
    """Fulfils `VerifyTables`."""

    connection: sqlite3.Connection

    def integrity(self) -> Iterator[str]:
        for row in self.connection.execute("PRAGMA integrity_check"):
            if row[0] != "ok":
                yield f"file: {row[0]}"
        for row in self.connection.execute("PRAGMA foreign_key_check"):
            yield f"table {row[0]}: row {row[1]} points to no row of {row[2]}"

    def counts(self, cube_no: int) -> list[int]:
        return list(self.connection.execute(_COUNTS, (cube_no,)).fetchone())

    def badly_placed(self, cube_no: int) -> list[str]:
        return [row[0] for row in self.connection.execute(_BAD_PLACES, (cube_no,))]

    def batch(self, cube_no: int, after: int, limit: int) -> list[int]:
        return [row[0] for row in self.connection.execute(_NOS, (cube_no, after, limit))]

    def has_mention(self, cube_no: int, sort: int, name: str, stored: Stored) -> bool:
        where = (cube_no, sort, int(stored.item.live), name, stored.no)
        return self.connection.execute(_HAS_MENTION, where).fetchone() is not None

    def terms_agree(self, cube_no: int, stored: Stored) -> bool:
        length = sum(stored.terms.values())
        return all(
            self.connection.execute(_HAS_POSTING, (cube_no, term, stored.no)).fetchone() == (count, length)
            for term, count in stored.terms.items()
        )

    def vector_bytes(self, cube_no: int, no: int) -> int | None:
        row = self.connection.execute(_VECTOR_BYTES, (no,)).fetchone()
        return None if row is None else int(row[0])

    def index_sizes(self, cube_no: int) -> tuple[int, int, int]:
        postings, counts = self.connection.execute(_POSTINGS_OF_CUBE, (cube_no,)).fetchone()
        return postings, counts, self.connection.execute(_MENTIONS_OF_CUBE, (cube_no,)).fetchone()[0]
