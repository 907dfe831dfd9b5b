"""The indexes of items: terms (arrays under GIN), mentions and vectors, put in and taken out with the rows.

A term stands in the lexicon as `cube:term`, so that one index serves all cubes and finds one cube's items
without looking at another's. A very long one stands there as a digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memos.memory.postgres import vector_index
from memos.memory.postgres.session import Session, index_key
from memos.memory.relational.entries import mentions
from memos.memory.relational.rows import Stored

_INSERT_TERMS = """
INSERT INTO lexicon (cube_no, item_no, length, lexemes, counts)
VALUES (%(cube)s, %(no)s, %(length)s, %(lexemes)s, %(counts)s)
"""
_DELETE_TERMS = "DELETE FROM lexicon WHERE cube_no = %(cube)s AND item_no = %(no)s"
_INSERT_MENTION = """
INSERT INTO mention (cube_no, sort, live, key, item_no, name)
VALUES (%(cube)s, %(sort)s, %(live)s, %(key)s, %(no)s, %(name)s)
"""
_DELETE_MENTION = """
DELETE FROM mention
WHERE cube_no = %(cube)s AND sort = %(sort)s AND live = %(live)s AND key = %(key)s AND item_no = %(no)s
"""
_PUT_VECTOR = """
INSERT INTO vector (cube_no, item_no, value) VALUES (%(cube)s, %(no)s, %(value)s)
ON CONFLICT (cube_no, item_no) DO UPDATE SET value = excluded.value
"""
_DELETE_VECTOR = "DELETE FROM vector WHERE cube_no = %(cube)s AND item_no = %(no)s"


def lexeme(cube_no: int, term: str) -> str:
    """How a term stands in the lexicon."""
    return f"{cube_no}:{index_key(term)}"


@dataclass(frozen=True, slots=True)
class PostgresIndexes:
    """Fulfils `IndexTables`."""

    session: Session

    def put_entries(self, cube_no: int, items: Sequence[Stored]) -> None:
        self.session.run_many(
            _INSERT_TERMS,
            [
                {
                    "cube": cube_no,
                    "no": stored.no,
                    "length": sum(stored.terms.values()),
                    "lexemes": [lexeme(cube_no, term) for term in stored.terms],
                    "counts": list(stored.terms.values()),
                }
                for stored in items
                if stored.item.live and stored.terms
            ],
        )
        self.session.run_many(
            _INSERT_MENTION,
            [
                {
                    "cube": cube_no,
                    "sort": sort,
                    "live": stored.item.live,
                    "key": index_key(name),
                    "no": stored.no,
                    "name": name,
                }
                for stored in items
                for sort, name in mentions(stored.item)
            ],
        )

    def take_entries(self, cube_no: int, stored: Stored) -> None:
        self.session.run(_DELETE_TERMS, cube=cube_no, no=stored.no)
        self.session.run_many(
            _DELETE_MENTION,
            [
                {
                    "cube": cube_no,
                    "sort": sort,
                    "live": stored.item.live,
                    "key": index_key(name),
                    "no": stored.no,
                }
                for sort, name in mentions(stored.item)
            ],
        )

    def put_vectors(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        named = [{"cube": cube_no, "no": no, "value": value} for cube_no, no, value in rows]
        self.session.run_many(_PUT_VECTOR, named)
        vector_index.put(self.session, named)

    def drop_vector(self, cube_no: int, no: int) -> None:
        self.session.run(_DELETE_VECTOR, cube=cube_no, no=no)
        vector_index.drop(self.session, cube_no, no)
