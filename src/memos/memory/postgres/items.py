"""Items and aliases as rows of the database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from memos.memory.item import MemoryItem
from memos.memory.postgres import filters, vector_index
from memos.memory.postgres.session import Session
from memos.memory.relational.rows import ITEM_COLUMNS, Stored, item_of
from memos.memory.store import ItemFilter, Page

_COLUMNS = (
    "no", "id", "cube_no", "user_id", "kind", "status", "live", "version", "seq", "raw", "read", "session_id",
    "scenario", "position", "turn_id", "content_hash", "created_at", "updated_at", "happened_at", "valid_until",
    "use_count", "used_at", "has_vector", "length", "memory", "body", "terms",
)  # fmt: skip
_NUMBERS = "SELECT nextval('item_no') FROM generate_series(1, %(count)s)"
_INSERT_KEY = "INSERT INTO item_key (id, cube_no, no) VALUES (%(id)s, %(cube_no)s, %(no)s)"
_INSERT = """
INSERT INTO item (no, id, cube_no, user_id, kind, status, live, version, seq, raw, read, session_id, scenario,
                  position, turn_id, content_hash, created_at, updated_at, happened_at, valid_until, use_count,
                  used_at, has_vector, length, memory, body, terms)
VALUES (%(no)s, %(id)s, %(cube_no)s, %(user_id)s, %(kind)s, %(status)s, %(live)s, %(version)s, %(seq)s, %(raw)s,
        %(read)s, %(session_id)s, %(scenario)s, %(position)s, %(turn_id)s, %(content_hash)s, %(created_at)s,
        %(updated_at)s, %(happened_at)s, %(valid_until)s, %(use_count)s, %(used_at)s, %(has_vector)s, %(length)s,
        %(memory)s, %(body)s, %(terms)s)
"""
_UPDATE = """
UPDATE item SET user_id = %(user_id)s, kind = %(kind)s, status = %(status)s, live = %(live)s,
                version = %(version)s, seq = %(seq)s, raw = %(raw)s, read = %(read)s,
                session_id = %(session_id)s, scenario = %(scenario)s, position = %(position)s,
                turn_id = %(turn_id)s, content_hash = %(content_hash)s, created_at = %(created_at)s,
                updated_at = %(updated_at)s, happened_at = %(happened_at)s, valid_until = %(valid_until)s,
                use_count = %(use_count)s, used_at = %(used_at)s, has_vector = %(has_vector)s,
                length = %(length)s, memory = %(memory)s, body = %(body)s, terms = %(terms)s
WHERE cube_no = %(cube_no)s AND no = %(no)s
"""
# By LATERAL and OFFSET an item is looked up by its key, whatever the planner thinks of tables it has no statistics of yet.
_BY_ID = f"""
SELECT {ITEM_COLUMNS}, item.no, item.terms, item.has_vector, cube.id
FROM item_key
CROSS JOIN LATERAL (
    SELECT * FROM item WHERE item.cube_no = item_key.cube_no AND item.no = item_key.no OFFSET 0
) AS item
JOIN cube ON cube.no = item.cube_no
WHERE item_key.id = ANY (%(ids)s)
"""
_BY_NO = f"""
SELECT {ITEM_COLUMNS}, item.no, item.terms, item.has_vector, cube.id
FROM item_key
CROSS JOIN LATERAL (
    SELECT * FROM item WHERE item.cube_no = item_key.cube_no AND item.no = item_key.no OFFSET 0
) AS item
JOIN cube ON cube.no = item.cube_no
WHERE item_key.no = ANY (%(nos)s)
"""
_KNOWN = "SELECT id FROM item_key WHERE id = ANY (%(ids)s)"
_STRAYS = """
SELECT no FROM item
WHERE cube_no = %(cube)s AND kind = 'WorkingMemory' AND live
  AND no NOT IN (SELECT item_no FROM working WHERE cube_no = %(cube)s)
ORDER BY no
"""
_LEAST_VALUABLE = """
SELECT no FROM item
WHERE cube_no = %(cube)s AND kind = %(kind)s AND live AND no < %(below)s
  AND no NOT IN (SELECT item_no FROM working WHERE cube_no = %(cube)s)
ORDER BY use_count, coalesce(used_at, created_at), no LIMIT %(limit)s
"""
_LEAST_VALUABLE_OF_ALL = """
SELECT no FROM item
WHERE cube_no = %(cube)s AND kind = %(kind)s AND live AND no < %(below)s
ORDER BY use_count, coalesce(used_at, created_at), no LIMIT %(limit)s
"""
_ORIGINS = """
SELECT item.no, source.value ->> 'item_id', source.value ->> 'type'
FROM item, json_array_elements(item.body::json -> 'sources') AS source
WHERE item.cube_no = %(cube)s AND NOT item.raw AND item.status <> 'deleted'
"""
_WITHOUT_VECTOR = f"""
SELECT {ITEM_COLUMNS}, cube.id FROM item JOIN cube ON cube.no = item.cube_no
WHERE item.live AND NOT item.has_vector ORDER BY item.no LIMIT %(limit)s
"""
_ANY_VECTOR = "SELECT 1 FROM vector LIMIT 1"
_RAISE_SEQ_WHERE_VECTORS = """
UPDATE cube SET seq = seq + 1 WHERE no IN (SELECT cube_no FROM item WHERE has_vector)
"""
_FORGET_VECTORS = """
UPDATE item SET has_vector = false, seq = cube.seq FROM cube WHERE cube.no = item.cube_no AND item.has_vector
"""
_DELETE_VECTORS = "DELETE FROM vector"
_TARGETS = "SELECT id, item_no FROM alias WHERE id = ANY (%(ids)s)"
_ALIASES_OF = "SELECT id FROM alias WHERE item_no = ANY (%(nos)s) ORDER BY id"
_PUT_ALIAS = """
INSERT INTO alias (id, cube_no, item_no) SELECT %(id)s, cube_no, no FROM item_key WHERE no = %(no)s
ON CONFLICT (id) DO UPDATE SET cube_no = excluded.cube_no, item_no = excluded.item_no
"""
_MOVE_ALIASES = "UPDATE alias SET item_no = %(new)s WHERE item_no = %(old)s"
_DROP_ALIAS = "DELETE FROM alias WHERE id = %(id)s"
_NO_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class PostgresItems:
    """Fulfils `ItemTable`."""

    session: Session

    def numbers(self, count: int) -> list[int]:
        return sorted(row[0] for row in self.session.rows(_NUMBERS, count=count))

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        named = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        self.session.run_many(
            _INSERT_KEY, [{"id": row["id"], "cube_no": row["cube_no"], "no": row["no"]} for row in named]
        )
        self.session.run_many(_INSERT, named)

    def update(self, row: tuple[Any, ...]) -> None:
        self.session.run(_UPDATE, **dict(zip(_COLUMNS, row, strict=True)))

    def by_id(self, item_ids: Sequence[str]) -> dict[str, Stored]:
        if not item_ids:
            return {}
        return {row[0]: _stored(row) for row in self.session.rows(_BY_ID, ids=list(item_ids))}

    def by_no(self, nos: Sequence[int]) -> list[Stored]:
        if not nos:
            return []
        found = {row[-4]: _stored(row) for row in self.session.rows(_BY_NO, nos=list(nos))}
        return [found[no] for no in nos if no in found]

    def known(self, item_ids: Sequence[str]) -> list[str]:
        return [row[0] for row in self.session.rows(_KNOWN, ids=list(item_ids))]

    def strays(self, cube_no: int) -> list[int]:
        return [row[0] for row in self.session.rows(_STRAYS, cube=cube_no)]

    def least_valuable(
        self, cube_no: int, kind: str, *, below: int | None, placed: bool, limit: int
    ) -> list[int]:
        query = _LEAST_VALUABLE_OF_ALL if placed else _LEAST_VALUABLE
        bound = _NO_MAX if below is None else below
        return [row[0] for row in self.session.rows(query, cube=cube_no, kind=kind, below=bound, limit=limit)]

    def origins(self, cube_no: int) -> Iterator[tuple[int, str | None, str]]:
        yield from self.session.rows(_ORIGINS, cube=cube_no)

    def without_vector(self, limit: int) -> list[MemoryItem]:
        return [item_of(row, row[-1]) for row in self.session.rows(_WITHOUT_VECTOR, limit=limit)]

    def forget_vectors(self) -> None:
        for statement in (_RAISE_SEQ_WHERE_VECTORS, _FORGET_VECTORS, _DELETE_VECTORS):
            self.session.run(statement)
        vector_index.clear(self.session)

    def any_vector(self) -> bool:
        return self.session.row(_ANY_VECTOR) is not None

    def find(self, wanted: ItemFilter, *, limit: int, cursor: str | None) -> Page:
        return filters.find(self.session, wanted, limit=limit, cursor=cursor)

    def select_live(self, wanted: ItemFilter, *, cube_no: int, cube_id: str) -> frozenset[int]:
        return filters.select_live(self.session, wanted, cube_no=cube_no, cube_id=cube_id)

    def alias_targets(self, ids: Sequence[str]) -> dict[str, int]:
        return {row[0]: row[1] for row in self.session.rows(_TARGETS, ids=list(ids))} if ids else {}

    def aliases_of(self, nos: Sequence[int]) -> list[str]:
        return [row[0] for row in self.session.rows(_ALIASES_OF, nos=list(nos))] if nos else []

    def put_alias(self, alias: str, no: int) -> None:
        self.session.run(_PUT_ALIAS, id=alias, no=no)

    def move_aliases(self, old_no: int, new_no: int) -> None:
        self.session.run(_MOVE_ALIASES, old=old_no, new=new_no)

    def drop_alias(self, alias: str) -> None:
        self.session.run(_DROP_ALIAS, id=alias)


def _stored(row: Sequence[Any]) -> Stored:
    no, terms, has_vector, cube_id = row[-4:]
    return Stored(no, item_of(row, cube_id), json.loads(terms), has_vector)
