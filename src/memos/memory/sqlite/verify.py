"""`verify`: does the file hold together? One line per fault, none when all is well."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from memos.memory.sqlite.cubes import SELECT_CUBES, CubeRow
from memos.memory.sqlite.index import LINK, PARTICIPANT, TAG, get_binding
from memos.memory.sqlite.journal import broken_links
from memos.memory.sqlite.lookup import find_by_no
from memos.memory.sqlite.rows import Stored, fold

BATCH = 500

_NOS = "SELECT no FROM item WHERE cube_no = ? AND no > ? ORDER BY no LIMIT ?"
_POSTINGS_OF_CUBE = "SELECT count(*), coalesce(sum(tf), 0) FROM posting WHERE cube_no = ?"
_HAS_POSTING = "SELECT tf, length FROM posting WHERE cube_no = ? AND term = ? AND item_no = ?"
_MENTIONS_OF_CUBE = "SELECT count(*) FROM mention WHERE cube_no = ?"
_HAS_MENTION = (
    "SELECT 1 FROM mention WHERE cube_no = ? AND sort = ? AND live = ? AND name = ? AND item_no = ?"
)
_VECTOR_BYTES = "SELECT length(value) FROM vector WHERE item_no = ?"
_COUNTS = """
SELECT coalesce(sum(live AND kind = 'LongTermMemory'), 0), coalesce(sum(live AND kind = 'UserMemory'), 0),
       coalesce(sum(live AND kind = 'PreferenceMemory'), 0), coalesce(sum(live AND kind = 'WorkingMemory'), 0),
       coalesce(sum(status = 'archived'), 0), coalesce(sum(CASE WHEN live THEN length ELSE 0 END), 0),
       coalesce(max(seq), 0)
FROM item WHERE cube_no = ?
"""
_BAD_PLACES = """
SELECT item.id FROM working JOIN item ON item.no = working.item_no
WHERE working.cube_no = ? AND (item.live = 0 OR item.cube_no <> working.cube_no)
"""


def faults(connection: sqlite3.Connection) -> Iterator[str]:
    """Everything that does not agree, in one snapshot."""
    for row in connection.execute("PRAGMA integrity_check"):
        if row[0] != "ok":
            yield f"file: {row[0]}"
    for row in connection.execute("PRAGMA foreign_key_check"):
        yield f"table {row[0]}: row {row[1]} points to no row of {row[2]}"
    binding = get_binding(connection)
    vector_bytes = None if binding is None else 4 * binding.dim
    for row in connection.execute(SELECT_CUBES).fetchall():
        cube = CubeRow(*row)
        yield from _count_faults(connection, cube)
        yield from _index_faults(connection, cube, vector_bytes)
        for (item_id,) in connection.execute(_BAD_PLACES, (cube.no,)):
            yield f"cube {cube.id!r}: working memory names {item_id!r}, which is not a live item of it"
        yield from broken_links(connection, cube)


def _count_faults(connection: sqlite3.Connection, cube: CubeRow) -> Iterator[str]:
    *counted, newest = connection.execute(_COUNTS, (cube.no,)).fetchone()
    kept = [cube.long_term, cube.user, cube.preference, cube.working_only, cube.archived, cube.length]
    if counted != kept:
        yield f"cube {cube.id!r}: its counters {kept} do not match its items {counted}"
    if newest > cube.seq:
        yield f"cube {cube.id!r}: an item has seq {newest}, the cube only {cube.seq}"


def _index_faults(connection: sqlite3.Connection, cube: CubeRow, vector_bytes: int | None) -> Iterator[str]:
    postings = terms = mentions = 0
    last = 0
    while nos := [row[0] for row in connection.execute(_NOS, (cube.no, last, BATCH))]:
        last = nos[-1]
        for stored in find_by_no(connection, nos):
            names = _names(stored)
            mentions += len(names)
            for sort, name in names:
                where = (cube.no, sort, int(stored.item.live), name, stored.no)
                if connection.execute(_HAS_MENTION, where).fetchone() is None:
                    yield f"item {stored.item.id!r}: {name!r} is missing from the index of names"
            length = sum(stored.terms.values())
            if stored.item.live:
                postings += len(stored.terms)
                terms += length
                for term, count in stored.terms.items():
                    found = connection.execute(_HAS_POSTING, (cube.no, term, stored.no)).fetchone()
                    if found != (count, length):
                        yield f"item {stored.item.id!r}: the lexical index does not match its text"
                        break
            found = connection.execute(_VECTOR_BYTES, (stored.no,)).fetchone()
            if (found is not None) != stored.has_vector:
                yield f"item {stored.item.id!r}: its vector is missing or should not be there"
            elif found is not None and found[0] != vector_bytes:
                yield f"item {stored.item.id!r}: its vector has {found[0]} bytes, not {vector_bytes}"
    if connection.execute(_POSTINGS_OF_CUBE, (cube.no,)).fetchone() != (postings, terms):
        yield f"cube {cube.id!r}: the lexical index holds entries of no live item"
    if connection.execute(_MENTIONS_OF_CUBE, (cube.no,)).fetchone()[0] != mentions:
        yield f"cube {cube.id!r}: the index of names holds entries of no item"


def _names(stored: Stored) -> set[tuple[int, str]]:
    item = stored.item
    names = {(LINK, fold(link)) for link in item.links}
    names |= {(PARTICIPANT, name) for name in item.participants}
    names |= {(TAG, tag) for tag in item.tags}
    return {(sort, name) for sort, name in names if name}
