"""The indexes of items in the file: postings, mentions and vectors, put in and taken out with the rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from memos.memory.relational.entries import mentions
from memos.memory.relational.rows import Stored

_INSERT_POSTING = "INSERT INTO posting (cube_no, term, item_no, tf, length) VALUES (?, ?, ?, ?, ?)"
_DELETE_POSTING = "DELETE FROM posting WHERE cube_no = ? AND term = ? AND item_no = ?"
_INSERT_MENTION = "INSERT INTO mention (cube_no, sort, live, name, item_no) VALUES (?, ?, ?, ?, ?)"
_DELETE_MENTION = """
DELETE FROM mention WHERE cube_no = ? AND sort = ? AND live = ? AND name = ? AND item_no = ?
"""
_PUT_VECTOR = """
INSERT INTO vector (item_no, value) VALUES (?, ?) ON CONFLICT (item_no) DO UPDATE SET value = excluded.value
"""
_DELETE_VECTOR = "DELETE FROM vector WHERE item_no = ?"


@dataclass(frozen=True, slots=True)
class SqliteIndexes:
    """Fulfils `IndexTables`."""

    connection: sqlite3.Connection

    def put_entries(self, cube_no: int, items: Sequence[Stored]) -> None:
        self.connection.executemany(
            _INSERT_POSTING, (row for stored in items for row in _postings(cube_no, stored))
        )
        self.connection.executemany(
            _INSERT_MENTION, (row for stored in items for row in _mentions(cube_no, stored))
        )

    def take_entries(self, cube_no: int, stored: Stored) -> None:
        self.connection.executemany(_DELETE_POSTING, (row[:3] for row in _postings(cube_no, stored)))
        self.connection.executemany(_DELETE_MENTION, _mentions(cube_no, stored))

    def put_vectors(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        self.connection.executemany(_PUT_VECTOR, (row[1:] for row in rows))

    def drop_vector(self, cube_no: int, no: int) -> None:
        self.connection.execute(_DELETE_VECTOR, (no,))


def _postings(cube_no: int, stored: Stored) -> Iterator[tuple[Any, ...]]:
    if stored.item.live:
        length = sum(stored.terms.values())
        for term, count in stored.terms.items():
            yield cube_no, term, stored.no, count, length


def _mentions(cube_no: int, stored: Stored) -> Iterator[tuple[Any, ...]]:
    for sort, name in mentions(stored.item):
        yield cube_no, sort, int(stored.item.live), name, stored.no
