"""`verify`: does the store hold together? One line per fault, none when all is well."""

from __future__ import annotations

from collections.abc import Iterator

from memos.memory.relational.cubes import CubeRow
from memos.memory.relational.entries import get_binding, mentions
from memos.memory.relational.journal import broken_links
from memos.memory.relational.tables import Tables

BATCH = 500


def faults(tables: Tables) -> Iterator[str]:
    """Everything that does not agree, in one snapshot."""
    yield from tables.checks.integrity()
    binding = get_binding(tables.meta)
    vector_bytes = None if binding is None else 4 * binding.dim
    for cube in tables.cubes.all():
        yield from _count_faults(tables, cube)
        yield from _index_faults(tables, cube, vector_bytes)
        for item_id in tables.checks.badly_placed(cube.no):
            yield f"cube {cube.id!r}: working memory names {item_id!r}, which is not a live item of it"
        yield from broken_links(tables.journal.chain(cube.no), cube)


def _count_faults(tables: Tables, cube: CubeRow) -> Iterator[str]:
    *counted, newest = tables.checks.counts(cube.no)
    kept = [cube.long_term, cube.user, cube.preference, cube.working_only, cube.archived, cube.length]
    if counted != kept:
        yield f"cube {cube.id!r}: its counters {kept} do not match its items {counted}"
    if newest > cube.seq:
        yield f"cube {cube.id!r}: an item has seq {newest}, the cube only {cube.seq}"


def _index_faults(tables: Tables, cube: CubeRow, vector_bytes: int | None) -> Iterator[str]:
    checks = tables.checks
    postings = terms = named = 0
    last = 0
    while nos := checks.batch(cube.no, last, BATCH):
        last = nos[-1]
        for stored in tables.items.by_no(nos):
            for sort, name in mentions(stored.item):
                named += 1
                if not checks.has_mention(cube.no, sort, name, stored):
                    yield f"item {stored.item.id!r}: {name!r} is missing from the index of names"
            if stored.item.live:
                postings += len(stored.terms)
                terms += sum(stored.terms.values())
                if not checks.terms_agree(cube.no, stored):
                    yield f"item {stored.item.id!r}: the lexical index does not match its text"
            found = checks.vector_bytes(cube.no, stored.no)
            if (found is not None) != stored.has_vector:
                yield f"item {stored.item.id!r}: its vector is missing or should not be there"
            elif found is not None and found != vector_bytes:
                yield f"item {stored.item.id!r}: its vector has {found} bytes, not {vector_bytes}"
    *lexical, kept_names = checks.index_sizes(cube.no)
    if lexical != [postings, terms]:
        yield f"cube {cube.id!r}: the lexical index holds entries of no live item"
    if kept_names != named:
        yield f"cube {cube.id!r}: the index of names holds entries of no item"
