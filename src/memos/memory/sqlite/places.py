"""The places of working memory: an ordered set of references to items, replaced whole."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memos.errors import InvalidInput
from memos.memory.item import WorkingEntry, WorkingSet
from memos.memory.sqlite.cubes import CubeRow
from memos.memory.sqlite.rows import ITEM_COLUMNS, item_of, micros, moment

_SELECT = f"""
SELECT working.item_no, working.score, working.reason, working.admitted_at, {ITEM_COLUMNS}
FROM working JOIN item ON item.no = working.item_no
WHERE working.cube_no = ? ORDER BY working.place
"""
_SELECT_PLACES = """
SELECT working.item_no, item.id, working.score, working.reason, working.admitted_at
FROM working JOIN item ON item.no = working.item_no
WHERE working.cube_no = ? ORDER BY working.place
"""
_HAS = "SELECT 1 FROM working WHERE item_no = ?"
_CLEAR = "DELETE FROM working WHERE cube_no = ?"
_INSERT = """
INSERT INTO working (cube_no, place, item_no, score, reason, admitted_at) VALUES (?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class Place:
    """One place and the number of the item that holds it."""

    item_no: int
    entry: WorkingEntry


def read_places(connection: sqlite3.Connection, cube_no: int) -> list[Place]:
    """All places of a cube, best first."""
    return [
        Place(row[0], WorkingEntry(row[1], row[2], row[3], moment(row[4])))
        for row in connection.execute(_SELECT_PLACES, (cube_no,))
    ]


def holds_place(connection: sqlite3.Connection, item_no: int) -> bool:
    """Whether the item stands in working memory."""
    return connection.execute(_HAS, (item_no,)).fetchone() is not None


def write_places(connection: sqlite3.Connection, cube_no: int, places: Sequence[Place]) -> None:
    """Replace all places of a cube."""
    for place in places:
        if not math.isfinite(place.entry.score):
            raise InvalidInput(
                f"the score of item {place.entry.item_id!r} is {place.entry.score}; give a number"
            )
    connection.execute(_CLEAR, (cube_no,))
    connection.executemany(
        _INSERT,
        [
            (
                cube_no,
                number,
                place.item_no,
                place.entry.score,
                place.entry.reason,
                micros(place.entry.admitted_at),
            )
            for number, place in enumerate(places)
        ],
    )


def place_fields(cube: CubeRow, places: Sequence[Place]) -> dict[str, Any]:
    """A working set for the journal: who is there and why, no text."""
    return {
        "version": cube.working_version,
        "entries": [{"id": place.entry.item_id, "reason": place.entry.reason} for place in places],
    }


def read_working(connection: sqlite3.Connection, cube_id: str, cube: CubeRow | None) -> WorkingSet:
    """The working set with its items; empty at version 0 for a cube that is not there."""
    if cube is None:
        return WorkingSet(cube_id, 0, (), ())
    entries, items = [], []
    for row in connection.execute(_SELECT, (cube.no,)):
        item = item_of(row[4:], cube_id)
        items.append(item)
        entries.append(WorkingEntry(item.id, row[1], row[2], moment(row[3])))
    return WorkingSet(cube_id, cube.working_version, tuple(entries), tuple(items))
