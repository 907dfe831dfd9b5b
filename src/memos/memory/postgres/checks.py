"""What `verify` counts and looks up in the database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memos.memory.postgres.index import lexeme
from memos.memory.postgres.session import Session, index_key
from memos.memory.relational.rows import Stored

_ORPHANS = """
SELECT 'item_key', count(*) FROM item_key
WHERE NOT EXISTS (SELECT 1 FROM item WHERE item.cube_no = item_key.cube_no AND item.no = item_key.no
                  AND item.id = item_key.id)
UNION ALL
SELECT 'item', count(*) FROM item WHERE NOT EXISTS
    (SELECT 1 FROM item_key WHERE item_key.id = item.id AND item_key.no = item.no)
UNION ALL
SELECT 'vector', count(*) FROM vector WHERE NOT EXISTS
    (SELECT 1 FROM item WHERE item.cube_no = vector.cube_no AND item.no = vector.item_no)
UNION ALL
SELECT 'alias', count(*) FROM alias WHERE NOT EXISTS
    (SELECT 1 FROM item WHERE item.cube_no = alias.cube_no AND item.no = alias.item_no)
UNION ALL
SELECT 'working', count(*) FROM working WHERE NOT EXISTS
    (SELECT 1 FROM item WHERE item.cube_no = working.cube_no AND item.no = working.item_no)
UNION ALL
SELECT 'block_item', count(*) FROM block_item WHERE NOT EXISTS
    (SELECT 1 FROM item WHERE item.cube_no = block_item.cube_no AND item.no = block_item.item_no)
UNION ALL
SELECT 'prefix_item', count(*) FROM prefix_item WHERE NOT EXISTS
    (SELECT 1 FROM item WHERE item.cube_no = prefix_item.cube_no AND item.no = prefix_item.item_no)
UNION ALL
SELECT 'item without a cube', count(*) FROM item WHERE NOT EXISTS
    (SELECT 1 FROM cube WHERE cube.no = item.cube_no)
"""
_COUNTS = """
SELECT count(*) FILTER (WHERE live AND kind = 'LongTermMemory'), count(*) FILTER (WHERE live AND kind = 'UserMemory'),
       count(*) FILTER (WHERE live AND kind = 'PreferenceMemory'),
       count(*) FILTER (WHERE live AND kind = 'WorkingMemory'), count(*) FILTER (WHERE status = 'archived'),
       coalesce(sum(length) FILTER (WHERE live), 0)::bigint, coalesce(max(seq), 0)
FROM item WHERE cube_no = %(cube)s
"""
_BAD_PLACES = """
SELECT item_key.id FROM working JOIN item_key ON item_key.no = working.item_no
JOIN item ON item.cube_no = item_key.cube_no AND item.no = item_key.no
WHERE working.cube_no = %(cube)s AND (NOT item.live OR item.cube_no <> working.cube_no)
"""
_NOS = "SELECT no FROM item WHERE cube_no = %(cube)s AND no > %(after)s ORDER BY no LIMIT %(limit)s"
_LEXICON = "SELECT length, lexemes, counts FROM lexicon WHERE cube_no = %(cube)s AND item_no = %(no)s"
_TERMS_OF_CUBE = """
SELECT coalesce(sum(cardinality(lexemes)), 0)::bigint,
       coalesce(sum((SELECT sum(count) FROM unnest(counts) AS one (count))), 0)::bigint
FROM lexicon WHERE cube_no = %(cube)s
"""
_HAS_MENTION = """
SELECT 1 FROM mention
WHERE cube_no = %(cube)s AND sort = %(sort)s AND live = %(live)s AND key = %(key)s AND item_no = %(no)s
  AND name = %(name)s
"""
_MENTIONS_OF_CUBE = "SELECT count(*) FROM mention WHERE cube_no = %(cube)s"
_VECTOR_BYTES = "SELECT length(value) FROM vector WHERE cube_no = %(cube)s AND item_no = %(no)s"


@dataclass(frozen=True, slots=True)
class PostgresChecks:
    """Fulfils `VerifyTables`."""

    session: Session

    def integrity(self) -> Iterator[str]:
        """What foreign keys would say of partitioned tables; pages are the server's own to check."""
        for table, count in self.session.rows(_ORPHANS):
            if count:
                yield f"table {table}: {count} rows point to nothing"

    def counts(self, cube_no: int) -> list[int]:
        row = self.session.row(_COUNTS, cube=cube_no)
        return [] if row is None else list(row)

    def badly_placed(self, cube_no: int) -> list[str]:
        return [row[0] for row in self.session.rows(_BAD_PLACES, cube=cube_no)]

    def batch(self, cube_no: int, after: int, limit: int) -> list[int]:
        return [row[0] for row in self.session.rows(_NOS, cube=cube_no, after=after, limit=limit)]

    def has_mention(self, cube_no: int, sort: int, name: str, stored: Stored) -> bool:
        found = self.session.row(
            _HAS_MENTION,
            cube=cube_no,
            sort=sort,
            live=stored.item.live,
            key=index_key(name),
            no=stored.no,
            name=name,
        )
        return found is not None

    def terms_agree(self, cube_no: int, stored: Stored) -> bool:
        row = self.session.row(_LEXICON, cube=cube_no, no=stored.no)
        if row is None:
            return not stored.terms
        length, lexemes, counts = row
        wanted = {lexeme(cube_no, term): count for term, count in stored.terms.items()}
        return length == sum(wanted.values()) and dict(zip(lexemes, counts, strict=True)) == wanted

    def vector_bytes(self, cube_no: int, no: int) -> int | None:
        row = self.session.row(_VECTOR_BYTES, cube=cube_no, no=no)
        return None if row is None else int(row[0])

    def index_sizes(self, cube_no: int) -> tuple[int, int, int]:
        terms = self.session.row(_TERMS_OF_CUBE, cube=cube_no)
        named = self.session.row(_MENTIONS_OF_CUBE, cube=cube_no)
        assert terms is not None and named is not None
        return terms[0], terms[1], named[0]
