"""Items found by id or number, with what the writer needs to change them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeVar

from memos.memory.sqlite.rows import ITEM_COLUMNS, Stored, item_of

CHUNK = 500  # values of one IN (…)

T = TypeVar("T")

_SELECT = f"""
SELECT {ITEM_COLUMNS}, item.no, item.terms, item.has_vector, cube.id
FROM item JOIN cube ON cube.no = item.cube_no WHERE item.{{column}} IN ({{marks}})
"""
_SELECT_IDS = "SELECT id FROM item WHERE id IN ({marks})"


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """`values` in pieces that fit one statement."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def marks(count: int) -> str:
    """`count` placeholders."""
    return ", ".join("?" * count)


def find_by_id(connection: sqlite3.Connection, item_ids: Sequence[str]) -> dict[str, Stored]:
    """id -> item, of those that are there, whatever their status."""
    return {stored.item.id: stored for stored in _find(connection, "id", item_ids)}


def find_by_no(connection: sqlite3.Connection, nos: Sequence[int]) -> list[Stored]:
    """The items of the numbers that are there, in the order asked for."""
    found = {stored.no: stored for stored in _find(connection, "no", nos)}
    return [found[no] for no in nos if no in found]


def _find(connection: sqlite3.Connection, column: str, values: Sequence[str | int]) -> Iterator[Stored]:
    for part in chunks(values):
        for row in connection.execute(_SELECT.format(column=column, marks=marks(len(part))), part):
            no, terms, has_vector, cube_id = row[-4:]
            yield Stored(no, item_of(row, cube_id), json.loads(terms), bool(has_vector))


def existing_ids(connection: sqlite3.Connection, item_ids: Sequence[str]) -> list[str]:
    """Those of the ids that were ever stored, tombstones included."""
    return [
        row[0]
        for part in chunks(item_ids)
        for row in connection.execute(_SELECT_IDS.format(marks=marks(len(part))), part)
    ]
