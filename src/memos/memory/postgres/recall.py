"""What recall reads of the database: one cube, live items only. A question is one statement, not one an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memos.memory.item import MemoryItem
from memos.memory.postgres import vector_index
from memos.memory.postgres.index import lexeme
from memos.memory.postgres.session import Session, index_key
from memos.memory.relational.entries import LINK, PARTICIPANT
from memos.memory.relational.rows import FACET_COLUMNS, ITEM_COLUMNS, facet_of, item_of
from memos.memory.relational.tables import Posting, Spot
from memos.memory.store import Facet

_CHANGED = "SELECT no, seq FROM item WHERE cube_no = %(cube)s AND seq > %(seq)s ORDER BY seq"
_FACETS = f"SELECT {FACET_COLUMNS} FROM item WHERE cube_no = %(cube)s AND live AND no = ANY (%(nos)s)"
_ITEMS = f"SELECT item.no, {ITEM_COLUMNS} FROM item WHERE cube_no = %(cube)s AND live AND no = ANY (%(nos)s)"
_TEXTS = "SELECT no, memory FROM item WHERE cube_no = %(cube)s AND live AND no = ANY (%(nos)s)"
# Functions, since the index of terms cannot be used behind the fence: migrations/0005_postings.sql.
_POSTINGS = "SELECT lexeme, item_no, count, length FROM postings(%(cube)s, %(lexemes)s)"
_POSTINGS_OF = """
SELECT bearing.lexeme, lexicon.item_no, bearing.count, lexicon.length
FROM lexicon, unnest(lexicon.lexemes, lexicon.counts) AS bearing (lexeme, count)
WHERE lexicon.cube_no = %(cube)s AND lexicon.item_no = ANY (%(nos)s) AND bearing.lexeme = ANY (%(lexemes)s)
"""
_BEARING = "SELECT lexeme, items FROM bearing_items(%(cube)s, %(lexemes)s)"
_VECTORS = """
SELECT vector.item_no, vector.value
FROM item JOIN vector ON vector.cube_no = item.cube_no AND vector.item_no = item.no
WHERE item.cube_no = %(cube)s AND item.live ORDER BY item.no
"""
_VECTORS_AFTER = """
SELECT vector.item_no, vector.value
FROM item JOIN vector ON vector.cube_no = item.cube_no AND vector.item_no = item.no
WHERE item.cube_no = %(cube)s AND item.seq > %(after)s AND item.live ORDER BY item.no
"""
_VECTORS_OF = """
SELECT vector.item_no, vector.value
FROM item JOIN vector ON vector.cube_no = item.cube_no AND vector.item_no = item.no
WHERE item.cube_no = %(cube)s AND item.live AND item.no = ANY (%(nos)s)
"""
_VECTORS_OF_LIVE = """
SELECT item_no, value FROM vector WHERE cube_no = %(cube)s AND item_no = ANY (%(nos)s)
"""
_LINKED = f"""
SELECT name, item_no FROM mention
WHERE cube_no = %(cube)s AND sort = {LINK} AND live AND key = ANY (%(keys)s) AND name = ANY (%(names)s)
"""
_BESIDE = """
SELECT spot.no, near.no, near.is_after
FROM unnest(%(nos)s::bigint[], %(sessions)s::text[], %(positions)s::bigint[]) AS spot (no, session_id, position)
CROSS JOIN LATERAL (
    (SELECT item.no, false AS is_after, row_number() OVER (ORDER BY item.position DESC, item.no DESC) AS step
     FROM item
     WHERE item.cube_no = %(cube)s AND item.session_id = spot.session_id AND item.live
       AND item.session_id <> '' AND (item.position, item.no) < (spot.position, spot.no)
     ORDER BY item.position DESC, item.no DESC LIMIT %(distance)s)
    UNION ALL
    (SELECT item.no, true AS is_after, row_number() OVER (ORDER BY item.position, item.no) AS step
     FROM item
     WHERE item.cube_no = %(cube)s AND item.session_id = spot.session_id AND item.live
       AND item.session_id <> '' AND (item.position, item.no) > (spot.position, spot.no)
     ORDER BY item.position, item.no LIMIT %(distance)s)
) AS near
ORDER BY spot.no, near.is_after, near.step
"""
# A loose index scan: one step per name, however many items bear it.
_PARTICIPANTS = f"""
WITH RECURSIVE one AS (
    (SELECT key, name FROM mention
     WHERE cube_no = %(cube)s AND sort = {PARTICIPANT} AND live ORDER BY key LIMIT 1)
    UNION ALL
    SELECT next.key, next.name FROM one CROSS JOIN LATERAL
        (SELECT key, name FROM mention
         WHERE cube_no = %(cube)s AND sort = {PARTICIPANT} AND live AND key > one.key
         ORDER BY key LIMIT 1) AS next
)
SELECT name FROM one
"""


@dataclass(frozen=True, slots=True)
class PostgresRecall:
    """Fulfils `RecallTables`. `exact_max`: live items of a cube up to which every vector is compared."""

    session: Session
    exact_max: int

    def changed(self, cube_no: int, seq: int) -> list[tuple[int, int]]:
        return [(row[0], row[1]) for row in self.session.rows(_CHANGED, cube=cube_no, seq=seq)]

    def facets(self, cube_no: int, nos: Sequence[int]) -> list[tuple[int, Facet]]:
        return [(row[1], facet_of(row)) for row in self.session.rows(_FACETS, cube=cube_no, nos=list(nos))]

    def postings(
        self, cube_no: int, terms: Sequence[str], nos: Sequence[int] | None = None
    ) -> dict[str, list[Posting]]:
        found: dict[str, list[Posting]] = {term: [] for term in terms}
        meant = {lexeme(cube_no, term): term for term in terms}
        rows = (
            self.session.rows(_POSTINGS, cube=cube_no, lexemes=list(meant))
            if nos is None
            else self.session.rows(_POSTINGS_OF, cube=cube_no, lexemes=list(meant), nos=list(nos))
        )
        for word, no, count, length in rows:
            found[meant[word]].append((no, count, length))
        return found

    def bearing(self, cube_no: int, terms: Sequence[str]) -> dict[str, int]:
        meant = {lexeme(cube_no, term): term for term in terms}
        found = dict.fromkeys(terms, 0)
        for word, count in self.session.rows(_BEARING, cube=cube_no, lexemes=list(meant)):
            found[meant[word]] = count
        return found

    def vectors(self, cube_no: int, *, after: int | None = None) -> list[tuple[int, bytes]]:
        rows = (
            self.session.binary_rows(_VECTORS, cube=cube_no)
            if after is None
            else self.session.binary_rows(_VECTORS_AFTER, cube=cube_no, after=after)
        )
        return [(row[0], row[1]) for row in rows]

    def vectors_of(self, cube_no: int, nos: Sequence[int]) -> list[tuple[int, bytes]]:
        rows = self.session.binary_rows(_VECTORS_OF, cube=cube_no, nos=list(nos))
        return [(row[0], row[1]) for row in rows]

    def vectors_of_live(self, cube_no: int, nos: Sequence[int]) -> list[tuple[int, bytes]]:
        rows = self.session.binary_rows(_VECTORS_OF_LIVE, cube=cube_no, nos=list(nos))
        return [(row[0], row[1]) for row in rows]

    def nearest(
        self, cube_no: int, vector: bytes, *, live: int, limit: int, allowed: frozenset[int] | None
    ) -> list[tuple[int, bytes]] | None:
        """By pgvector's index where the cube is large enough; see `vector_index`."""
        if live <= self.exact_max:
            return None
        return vector_index.nearest(
            self.session, cube_no, vector, limit=limit, allowed=allowed, exact_max=self.exact_max
        )

    def linked(self, cube_no: int, names: Sequence[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        if names:
            keys = [index_key(name) for name in names]
            for name, no in self.session.rows(_LINKED, cube=cube_no, keys=keys, names=list(names)):
                found.setdefault(name, []).append(no)
        return {name: found[name] for name in names if name in found}

    def beside(
        self, cube_no: int, spots: Sequence[Spot], distance: int
    ) -> dict[int, tuple[list[int], list[int]]]:
        found: dict[int, tuple[list[int], list[int]]] = {spot.no: ([], []) for spot in spots}
        if spots:
            rows = self.session.rows(
                _BESIDE,
                cube=cube_no,
                nos=[spot.no for spot in spots],
                sessions=[spot.session_id for spot in spots],
                positions=[spot.position for spot in spots],
                distance=distance,
            )
            for no, near, is_after in rows:
                found[no][is_after].append(near)
        return found

    def items(self, cube_no: int, cube_id: str, nos: Sequence[int]) -> dict[int, MemoryItem]:
        return {
            row[0]: item_of(row[1:], cube_id)
            for row in self.session.rows(_ITEMS, cube=cube_no, nos=list(nos))
        }

    def texts(self, cube_no: int, nos: Sequence[int]) -> dict[int, str]:
        return {row[0]: row[1] for row in self.session.rows(_TEXTS, cube=cube_no, nos=list(nos))}

    def participants(self, cube_no: int) -> frozenset[str]:
        return frozenset(row[0] for row in self.session.rows(_PARTICIPANTS, cube=cube_no))
