"""Items and aliases as rows of the file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from memos.memory.item import MemoryItem
from memos.memory.relational.rows import ITEM_COLUMNS, Stored, item_of
from memos.memory.sqlite import filters
from memos.memory.sqlite.chunks import chunks, marks
from memos.memory.store import ItemFilter, Page

_NEXT_NO = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'item'), 0) + 1"
_INSERT = """
INSERT INTO item (no, id, cube_no, user_id, kind, status, live, version, seq, raw, read, session_id, scenario,
                  position, turn_id, content_hash, created_at, updated_at, happened_at, valid_until, use_count,
                  used_at, has_vector, length, memory, body, terms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = """
UPDATE item SET id = ?, cube_no = ?, user_id = ?, kind = ?, status = ?, live = ?, version = ?, seq = ?, raw = ?,
                read = ?, session_id = ?, scenario = ?, position = ?, turn_id = ?, content_hash = ?,
                created_at = ?, updated_at = ?, happened_at = ?, valid_until = ?, use_count = ?, used_at = ?,
                has_vector = ?, length = ?, memory = ?, body = ?, terms = ?
WHERE no = ?
"""
_SELECT = f"""
SELECT {ITEM_COLUMNS}, item.no, item.terms, item.has_vector, cube.id
FROM item JOIN cube ON cube.no = item.cube_no WHERE item.{{column}} IN ({{marks}})
"""
_SELECT_IDS = "SELECT id FROM item WHERE id IN ({marks})"
_STRAYS = """
SELECT no FROM item
WHERE cube_no = ? AND kind = 'WorkingMemory' AND live = 1 AND no NOT IN (SELECT item_no FROM working)
"""
_LEAST_VALUABLE = """
SELECT no FROM item
WHERE cube_no = ? AND kind = ? AND live = 1 AND no < ? AND no NOT IN (SELECT item_no FROM working)
ORDER BY use_count, coalesce(used_at, created_at), no LIMIT ?
"""
_LEAST_VALUABLE_OF_ALL = """
SELECT no FROM item
WHERE cube_no = ? AND kind = ? AND live = 1 AND no < ?
ORDER BY use_count, coalesce(used_at, created_at), no LIMIT ?
"""
_ORIGINS = """
SELECT item.no, json_extract(source.value, '$.item_id'), json_extract(source.value, '$.type')
FROM item, json_each(item.body, '$.sources') AS source
WHERE item.cube_no = ? AND item.raw = 0 AND item.status <> 'deleted'
"""
_WITHOUT_VECTOR = f"""
SELECT {ITEM_COLUMNS}, cube.id FROM item JOIN cube ON cube.no = item.cube_no
WHERE item.live = 1 AND item.has_vector = 0 ORDER BY item.no LIMIT ?
"""
_ANY_VECTOR = "SELECT 1 FROM vector LIMIT 1"
_RAISE_SEQ_WHERE_VECTORS = """
UPDATE cube SET seq = seq + 1 WHERE no IN (SELECT cube_no FROM item WHERE has_vector = 1)
"""
_FORGET_VECTORS = """
UPDATE item SET has_vector = 0, seq = (SELECT seq FROM cube WHERE cube.no = item.cube_no) WHERE has_vector = 1
"""
_DELETE_VECTORS = "DELETE FROM vector"
_TARGETS = "SELECT id, item_no FROM alias WHERE id IN ({marks})"
_ALIASES_OF = "SELECT id FROM alias WHERE item_no IN ({marks})"
_PUT_ALIAS = (
    "INSERT INTO alias (id, item_no) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET item_no = excluded.item_no"
)
_MOVE_ALIASES = "UPDATE alias SET item_no = ? WHERE item_no = ?"
_DROP_ALIAS = "DELETE FROM alias WHERE id = ?"
_NO_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SqliteItems:
    """Fulfils `ItemTable`."""

    connection: sqlite3.Connection

    def numbers(self, count: int) -> range:
        first: int = self.connection.execute(_NEXT_NO).fetchone()[0]
        return range(first, first + count)

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self.connection.executemany(_INSERT, rows)

    def update(self, row: tuple[Any, ...]) -> None:
        no, *values = row
        self.connection.execute(_UPDATE, (*values, no))

    def by_id(self, item_ids: Sequence[str]) -> dict[str, Stored]:
        return {stored.item.id: stored for stored in self._find("id", item_ids)}

    def by_no(self, nos: Sequence[int]) -> list[Stored]:
        found = {stored.no: stored for stored in self._find("no", nos)}
        return [found[no] for no in nos if no in found]

    def _find(self, column: str, values: Sequence[str | int]) -> Iterator[Stored]:
        for part in chunks(values):
            query = _SELECT.format(column=column, marks=marks(len(part)))
            for row in self.connection.execute(query, part):
                no, terms, has_vector, cube_id = row[-4:]
                yield Stored(no, item_of(row, cube_id), json.loads(terms), bool(has_vector))

    def known(self, item_ids: Sequence[str]) -> list[str]:
        return [row[0] for row in self._each(_SELECT_IDS, item_ids)]

    def _each(self, query: str, values: Sequence[str | int]) -> Iterator[Any]:
        for part in chunks(values):
            yield from self.connection.execute(query.format(marks=marks(len(part))), part)

    def strays(self, cube_no: int) -> list[int]:
        return [row[0] for row in self.connection.execute(_STRAYS, (cube_no,))]

    def least_valuable(
        self, cube_no: int, kind: str, *, below: int | None, placed: bool, limit: int
    ) -> list[int]:
        query = _LEAST_VALUABLE_OF_ALL if placed else _LEAST_VALUABLE
        bound = _NO_MAX if below is None else below
        return [row[0] for row in self.connection.execute(query, (cube_no, kind, bound, limit))]

    def origins(self, cube_no: int) -> Iterator[tuple[int, str | None, str]]:
        yield from self.connection.execute(_ORIGINS, (cube_no,))

    def without_vector(self, limit: int) -> list[MemoryItem]:
        return [item_of(row, row[-1]) for row in self.connection.execute(_WITHOUT_VECTOR, (limit,))]

    def forget_vectors(self) -> None:
        for statement in (_RAISE_SEQ_WHERE_VECTORS, _FORGET_VECTORS, _DELETE_VECTORS):
            self.connection.execute(statement)

    def any_vector(self) -> bool:
        return self.connection.execute(_ANY_VECTOR).fetchone() is not None

    def find(self, wanted: ItemFilter, *, limit: int, cursor: str | None) -> Page:
        return filters.find(self.connection, wanted, limit=limit, cursor=cursor)

    def select_live(self, wanted: ItemFilter, *, cube_no: int, cube_id: str) -> frozenset[int]:
        return filters.select_live(self.connection, wanted, cube_no=cube_no, cube_id=cube_id)

    def alias_targets(self, ids: Sequence[str]) -> dict[str, int]:
        return dict(self._each(_TARGETS, ids))

    def aliases_of(self, nos: Sequence[int]) -> list[str]:
        return sorted(row[0] for row in self._each(_ALIASES_OF, nos))

    def put_alias(self, alias: str, no: int) -> None:
        self.connection.execute(_PUT_ALIAS, (alias, no))

    def move_aliases(self, old_no: int, new_no: int) -> None:
        self.connection.execute(_MOVE_ALIASES, (new_no, old_no))

    def drop_alias(self, alias: str) -> None:
        self.connection.execute(_DROP_ALIAS, (alias,))
