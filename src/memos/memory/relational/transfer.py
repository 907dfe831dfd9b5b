"""Moving a whole store from one database to another: every row, with its numbers, versions and chains.

The source is read in one snapshot, the target is filled in one transaction and has to be empty. What the two
keep differently (indexes of terms and names) is made anew by the target from the items.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from memos.errors import InvalidInput, StoreCorrupt
from memos.memory.relational import serving
from memos.memory.relational.rows import Stored
from memos.memory.relational.tables import Tables
from memos.memory.relational.verify import faults

BATCH = 500
NOT_MOVED = frozenset({"partitions", "vector_index_dim"})  # what describes a database, not the store
_BLOCKS = ("block", "block_cube", "block_item", "prefix", "prefix_item")  # each after what it points to
_AFTER_ITEMS = ("alias", "state", "journal", "mark", "outbox", "web_log", *_BLOCKS)


def copy_store(source: Tables, target: Tables) -> int:
    """Copy everything; returns how many items there are, tombstones included.

    Raises InvalidInput when the target holds something, StoreCorrupt when the copy does not hold together.
    """
    if not target.copying.is_empty():
        raise InvalidInput("the store to be filled holds memories already; give an empty one")
    for name, value in source.copying.dump("meta"):
        if name not in NOT_MOVED and not name.startswith(serving.PREFIX):
            target.meta.put(name, value)
    for rows in _batches(source.copying.dump("cube")):
        target.copying.load("cube", rows)
    count = 0
    for rows in _batches(source.copying.dump("item")):
        count += len(rows)
        target.items.insert(rows)
        by_cube: dict[int, list[Stored]] = {}
        cubes = {row[0]: row[2] for row in rows}
        for stored in source.items.by_no(list(cubes)):
            by_cube.setdefault(cubes[stored.no], []).append(stored)
        for cube_no, items in by_cube.items():
            target.indexes.put_entries(cube_no, items)
    for rows in _batches(source.copying.dump("vector")):
        target.indexes.put_vectors([(row[0], row[1], row[2]) for row in rows])
    for table in _AFTER_ITEMS:
        for rows in _batches(source.copying.dump(table)):
            target.copying.load(table, rows)
    for cube in source.cubes.all():
        target.working.write(cube.no, source.working.places(cube.no))
    target.copying.restart_numbers()
    found = list(faults(target))
    if found:
        raise StoreCorrupt(f"the copy would not hold together ({found[0]}); nothing was kept")
    return count


def _batches(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch
