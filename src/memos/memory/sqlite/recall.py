"""What recall reads of the file: one cube, live items only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memos.memory.item import MemoryItem
from memos.memory.relational.entries import LINK, PARTICIPANT
from memos.memory.relational.rows import FACET_COLUMNS, ITEM_COLUMNS, facet_of, item_of
from memos.memory.relational.tables import Posting, Spot
from memos.memory.sqlite.chunks import chunks, marks
from memos.memory.store import Facet

_CHANGED = "SELECT no, seq FROM item WHERE cube_no = ? AND seq > ? ORDER BY seq"
# The plus signs keep the planner off the indexes by cube: the numbers are the short way.
_FACETS = f"SELECT {FACET_COLUMNS} FROM item WHERE +cube_no = ? AND +live = 1 AND no IN ({{marks}})"
_ITEMS = f"SELECT item.no, {ITEM_COLUMNS} FROM item WHERE +cube_no = ? AND +live = 1 AND no IN ({{marks}})"
_TEXTS = "SELECT no, memory FROM item WHERE +cube_no = ? AND +live = 1 AND no IN ({marks})"
_POSTINGS = "SELECT item_no, tf, length FROM posting WHERE cube_no = ? AND term = ?"
_POSTINGS_OF = (
    "SELECT item_no, tf, length FROM posting WHERE cube_no = ? AND term = ? AND item_no IN ({marks})"
)
_BEARING = "SELECT count(*) FROM posting WHERE cube_no = ? AND term = ?"
_VECTORS = """
SELECT vector.item_no, vector.value FROM item JOIN vector ON vector.item_no = item.no
WHERE item.cube_no = ? AND item.live = 1 ORDER BY item.no
"""
_VECTORS_AFTER = """
SELECT vector.item_no, vector.value FROM item JOIN vector ON vector.item_no = item.no
WHERE item.cube_no = ? AND item.seq > ? AND item.live = 1 ORDER BY item.no
"""
_VECTORS_OF = """
SELECT vector.item_no, vector.value FROM item JOIN vector ON vector.item_no = item.no
WHERE +item.cube_no = ? AND +item.live = 1 AND item.no IN ({marks})
"""
_VECTORS_OF_LIVE = "SELECT item_no, value FROM vector WHERE item_no IN ({marks})"
_LINKED = f"SELECT item_no FROM mention WHERE cube_no = ? AND sort = {LINK} AND live = 1 AND name = ?"
_BEFORE = """
SELECT no FROM item
WHERE cube_no = ? AND session_id = ? AND live = 1 AND session_id <> '' AND (position, no) < (?, ?)
ORDER BY position DESC, no DESC LIMIT ?
"""
_AFTER = """
SELECT no FROM item
WHERE cube_no = ? AND session_id = ? AND live = 1 AND session_id <> '' AND (position, no) > (?, ?)
ORDER BY position, no LIMIT ?
"""
# A loose index scan: one step per name, however many items bear it.
_PARTICIPANTS = f"""
WITH RECURSIVE one (name) AS (
    SELECT min(name) FROM mention WHERE cube_no = :cube AND sort = {PARTICIPANT} AND live = 1
    UNION ALL
    SELECT (SELECT min(name) FROM mention
            WHERE cube_no = :cube AND sort = {PARTICIPANT} AND live = 1 AND name > one.name)
    FROM one WHERE one.name IS NOT NULL
)
SELECT name FROM one WHERE name IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class SqliteRecall:
    """Fulfils `RecallTables`."""

    connection: sqlite3.Connection

    def changed(self, cube_no: int, seq: int) -> list[tuple[int, int]]:
        return self.connection.execute(_CHANGED, (cube_no, seq)).fetchall()

    def facets(self, cube_no: int, nos: Sequence[int]) -> list[tuple[int, Facet]]:
        return [
            (row[1], facet_of(row))
            for part in chunks(nos)
            for row in self.connection.execute(_FACETS.format(marks=marks(len(part))), (cube_no, *part))
        ]

    def postings(
        self, cube_no: int, terms: Sequence[str], nos: Sequence[int] | None = None
    ) -> dict[str, list[Posting]]:
        if nos is None:
            return {term: self.connection.execute(_POSTINGS, (cube_no, term)).fetchall() for term in terms}
        return {
            term: [
                row
                for part in chunks(nos)
                for row in self.connection.execute(
                    _POSTINGS_OF.format(marks=marks(len(part))), (cube_no, term, *part)
                )
            ]
            for term in terms
        }

    def bearing(self, cube_no: int, terms: Sequence[str]) -> dict[str, int]:
        return {term: self.connection.execute(_BEARING, (cube_no, term)).fetchone()[0] for term in terms}

    def vectors(self, cube_no: int, *, after: int | None = None) -> Iterable[tuple[int, bytes]]:
        if after is None:
            return self.connection.execute(_VECTORS, (cube_no,))
        return self.connection.execute(_VECTORS_AFTER, (cube_no, after))

    def vectors_of(self, cube_no: int, nos: Sequence[int]) -> list[tuple[int, bytes]]:
        return [
            row
            for part in chunks(nos)
            for row in self.connection.execute(_VECTORS_OF.format(marks=marks(len(part))), (cube_no, *part))
        ]

    def vectors_of_live(self, cube_no: int, nos: Sequence[int]) -> list[tuple[int, bytes]]:
        return [
            row
            for part in chunks(nos)
            for row in self.connection.execute(_VECTORS_OF_LIVE.format(marks=marks(len(part))), part)
        ]

    def nearest(
        self, cube_no: int, vector: bytes, *, live: int, limit: int, allowed: frozenset[int] | None
    ) -> list[tuple[int, bytes]] | None:
        """There is no index of vectors in the file: comparing with all of them takes milliseconds."""
        return None

    def linked(self, cube_no: int, names: Sequence[str]) -> dict[str, list[int]]:
        found = {
            name: [row[0] for row in self.connection.execute(_LINKED, (cube_no, name))] for name in names
        }
        return {name: nos for name, nos in found.items() if nos}

    def beside(
        self, cube_no: int, spots: Sequence[Spot], distance: int
    ) -> dict[int, tuple[list[int], list[int]]]:
        found = {}
        for no, session_id, position in spots:
            where = (cube_no, session_id, position, no, distance)
            before = [row[0] for row in self.connection.execute(_BEFORE, where)]
            found[no] = before, [row[0] for row in self.connection.execute(_AFTER, where)]
        return found

    def items(self, cube_no: int, cube_id: str, nos: Sequence[int]) -> dict[int, MemoryItem]:
        return {
            row[0]: item_of(row[1:], cube_id)
            for part in chunks(nos)
            for row in self.connection.execute(_ITEMS.format(marks=marks(len(part))), (cube_no, *part))
        }

    def texts(self, cube_no: int, nos: Sequence[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for part in chunks(nos):
            found.update(self.connection.execute(_TEXTS.format(marks=marks(len(part))), (cube_no, *part)))
        return found

    def participants(self, cube_no: int) -> frozenset[str]:
        return frozenset(row[0] for row in self.connection.execute(_PARTICIPANTS, {"cube": cube_no}))
