"""The places of working memory and the monitors' state, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memos.memory.item import WorkingEntry, WorkingSet
from memos.memory.postgres.session import Session
from memos.memory.relational.cubes import CubeRow
from memos.memory.relational.places import Place
from memos.memory.relational.rows import ITEM_COLUMNS, item_of, micros, moment

_SELECT = f"""
SELECT working.item_no, working.score, working.reason, working.admitted_at, {ITEM_COLUMNS}
FROM working CROSS JOIN LATERAL (
    SELECT * FROM item WHERE item.cube_no = working.cube_no AND item.no = working.item_no OFFSET 0
) AS item
WHERE working.cube_no = %(cube)s ORDER BY working.place
"""
_SELECT_PLACES = """
SELECT working.item_no, item.id, working.score, working.reason, working.admitted_at
FROM working CROSS JOIN LATERAL (
    SELECT * FROM item WHERE item.cube_no = working.cube_no AND item.no = working.item_no OFFSET 0
) AS item
WHERE working.cube_no = %(cube)s ORDER BY working.place
"""
_HAS = "SELECT 1 FROM working WHERE cube_no = %(cube)s AND item_no = %(no)s"
_CLEAR = "DELETE FROM working WHERE cube_no = %(cube)s"
_INSERT = """
INSERT INTO working (cube_no, place, item_no, score, reason, admitted_at)
VALUES (%(cube)s, %(place)s, %(no)s, %(score)s, %(reason)s, %(admitted_at)s)
"""
_PUT_STATE = """
INSERT INTO state (cube_no, name, value) VALUES (%(cube)s, %(name)s, %(value)s)
ON CONFLICT (cube_no, name) DO UPDATE SET value = excluded.value
"""
_STATE = """
SELECT value FROM state JOIN cube ON cube.no = state.cube_no WHERE cube.id = %(id)s AND state.name = %(name)s
"""


@dataclass(frozen=True, slots=True)
class PostgresWorking:
    """Fulfils `WorkingTable`."""

    session: Session

    def places(self, cube_no: int) -> list[Place]:
        return [
            Place(row[0], WorkingEntry(row[1], row[2], row[3], moment(row[4])))
            for row in self.session.rows(_SELECT_PLACES, cube=cube_no)
        ]

    def holds(self, cube_no: int, item_no: int) -> bool:
        return self.session.row(_HAS, cube=cube_no, no=item_no) is not None

    def write(self, cube_no: int, places: Sequence[Place]) -> None:
        self.session.run(_CLEAR, cube=cube_no)
        self.session.run_many(
            _INSERT,
            [
                {
                    "cube": cube_no,
                    "place": number,
                    "no": place.item_no,
                    "score": float(place.entry.score),
                    "reason": place.entry.reason,
                    "admitted_at": micros(place.entry.admitted_at),
                }
                for number, place in enumerate(places)
            ],
        )

    def read(self, cube_id: str, cube: CubeRow | None) -> WorkingSet:
        if cube is None:
            return WorkingSet(cube_id, 0, (), ())
        entries, items = [], []
        for row in self.session.rows(_SELECT, cube=cube.no):
            item = item_of(row[4:], cube_id)
            items.append(item)
            entries.append(WorkingEntry(item.id, row[1], row[2], moment(row[3])))
        return WorkingSet(cube_id, cube.working_version, tuple(entries), tuple(items))

    def put_state(self, cube_no: int, name: str, value: str) -> None:
        self.session.run(_PUT_STATE, cube=cube_no, name=name, value=value)

    def state(self, cube_id: str, name: str) -> str | None:
        row = self.session.row(_STATE, id=cube_id, name=name)
        return None if row is None else str(row[0])
