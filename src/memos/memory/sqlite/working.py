"""The places of working memory and the monitors' state, in the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from memos.memory.item import WorkingEntry, WorkingSet
from memos.memory.relational.cubes import CubeRow
from memos.memory.relational.places import Place
from memos.memory.relational.rows import ITEM_COLUMNS, item_of, micros, moment

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
_PUT_STATE = """
INSERT INTO state (cube_no, name, value) VALUES (?, ?, ?)
ON CONFLICT (cube_no, name) DO UPDATE SET value = excluded.value
"""
_STATE = "SELECT value FROM state JOIN cube ON cube.no = state.cube_no WHERE cube.id = ? AND state.name = ?"


@dataclass(frozen=True, slots=True)
class SqliteWorking:
    """Fulfils `WorkingTable`."""

    connection: sqlite3.Connection

    def places(self, cube_no: int) -> list[Place]:
        return [
            Place(row[0], WorkingEntry(row[1], row[2], row[3], moment(row[4])))
            for row in self.connection.execute(_SELECT_PLACES, (cube_no,))
        ]

    def holds(self, cube_no: int, item_no: int) -> bool:
        return self.connection.execute(_HAS, (item_no,)).fetchone() is not None

    def write(self, cube_no: int, places: Sequence[Place]) -> None:
        self.connection.execute(_CLEAR, (cube_no,))
        self.connection.executemany(
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

    def read(self, cube_id: str, cube: CubeRow | None) -> WorkingSet:
        if cube is None:
            return WorkingSet(cube_id, 0, (), ())
        entries, items = [], []
        for row in self.connection.execute(_SELECT, (cube.no,)):
            item = item_of(row[4:], cube_id)
            items.append(item)
            entries.append(WorkingEntry(item.id, row[1], row[2], moment(row[3])))
        return WorkingSet(cube_id, cube.working_version, tuple(entries), tuple(items))

    def put_state(self, cube_no: int, name: str, value: str) -> None:
        self.connection.execute(_PUT_STATE, (cube_no, name, value))

    def state(self, cube_id: str, name: str) -> str | None:
        row = self.connection.execute(_STATE, (cube_id, name)).fetchone()
        return None if row is None else str(row[0])
