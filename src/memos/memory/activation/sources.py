"""Which memories a cache was made of, and which of them no longer say what they said then.

A cache holds the text it was read from. So it keeps, for each memory in that text, the id, the version of the
row and a digest of its text, and is asked again each time it is to be used: a memory that was deleted, erased,
archived, held for review, corrected or edited since makes the cache one that nobody may use. A row's version
rises with each use of it as well, so the digest decides. Memories that were never in the store are the program's own
and are not asked after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from memos.memory.activation.layout import digest_of
from memos.memory.item import MemoryItem
from memos.memory.lookup import PAGE_SIZE, items_by_id, was_stored
from memos.memory.store import ItemFilter, MemoryStore
from memos.memory.textual import TextualMemoryItem
from memos.retrieval.corrected import corrections_of


@dataclass(frozen=True, slots=True)
class CacheSource:
    """One memory in a cache, as it was then."""

    item_id: str
    version: int
    digest: str

    @classmethod
    def of(cls, memory: TextualMemoryItem) -> CacheSource:
        """A memory as a program holds it."""
        return cls(memory.id, memory.metadata.version, digest_of(memory.memory))


class CacheSources(Protocol):
    """Where memories come from that caches are made of."""

    def within(self, text: str) -> tuple[CacheSource, ...]:
        """The memories whose whole text stands in `text`. Raises StoreError."""
        ...

    def changed(self, sources: Sequence[CacheSource]) -> frozenset[str]:
        """The ids of those that went or say something else now. Raises StoreError."""
        ...


class CubeSources:
    """The memories of one cube in a store. Thread-safe."""

    def __init__(self, store: MemoryStore, cube_id: str) -> None:
        self._store = store
        self._cube_id = cube_id

    def within(self, text: str) -> tuple[CacheSource, ...]:
        return tuple(
            CacheSource(item.id, item.version, digest_of(item.memory))
            for item in self._live()
            if item.memory in text
        )

    def _live(self) -> Iterator[MemoryItem]:
        wanted, cursor = ItemFilter(cube_ids=(self._cube_id,)), None
        while True:  # ends: a cube holds no more than its capacities
            page = self._store.find(wanted, limit=PAGE_SIZE, cursor=cursor)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def changed(self, sources: Sequence[CacheSource]) -> frozenset[str]:
        ids = list(dict.fromkeys(one.item_id for one in sources))
        now = {item.id: item for item in items_by_id(self._store, ids)}
        return frozenset(one.item_id for one in sources if not self._stands(one, now.get(one.item_id)))

    def _stands(self, source: CacheSource, item: MemoryItem | None) -> bool:
        if item is None:
            return not was_stored(self._store, source.item_id)
        return not corrections_of(item) and digest_of(item.memory) == source.digest
