"""What is asked of a store by id, in pages: the rows that are there, and whether an id was ever given out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memos.errors import ItemGone, ItemNotFound
from memos.memory.item import MemoryItem
from memos.memory.store import ItemFilter, MemoryStore

PAGE_SIZE = 500


def items_by_id(
    store: MemoryStore, ids: Sequence[str], *, cube_ids: tuple[str, ...] = ()
) -> Iterator[MemoryItem]:
    """The items of these distinct ids that a search by filter finds, in no order; of these cubes alone where some are
    named. Raises StoreError."""
    for start in range(0, len(ids), PAGE_SIZE):
        wanted = ItemFilter(cube_ids=cube_ids, ids=tuple(ids[start : start + PAGE_SIZE]))
        yield from store.find(wanted, limit=PAGE_SIZE).items


def was_stored(store: MemoryStore, item_id: str) -> bool:
    """Whether an item of this id is or was in the store: a deleted one counts. Raises StoreError."""
    try:
        store.get([item_id])
    except ItemNotFound:
        return False
    except ItemGone:
        return True
    return True
