"""What held, or was known, at a time: a hit that did not is left out, or gives its place to what held then.

    valid_at   true from then or before (`happened_at`), and not over by then (`valid_until`)
    known_at   learned by then (`created_at`); what only later turned out to be over still holds

A fact that another displaced is archived and in no index. It names what took its place, so what held at a
time is found by way of what holds now: `Timeline` follows that line back. A turn is what was said; it counts
from the day on which it was said and is never over. Pure but for reading the displaced facts, once a search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.outdated import SUPERSEDED_BY
from memos.memory.store import ItemFilter, MemoryStore
from memos.retrieval.request import Hit, RecallRequest, Way

PAST_MAX = 5_000  # displaced facts that are read, the newest
PAGE = 500
STAGE = "timeline"


@dataclass(frozen=True, slots=True)
class Timeline:
    """The displaced facts of some cubes by what displaced them, and the time that is asked about."""

    valid_at: datetime | None = None
    known_at: datetime | None = None
    displaced: Mapping[str, Sequence[MemoryItem]] = field(default_factory=dict)  # by the id of the heir

    def hits(self, hits: Iterable[Hit]) -> list[Hit]:
        """The hits that held, each once, and in the place of another what held before it did."""
        kept: dict[str, Hit] = {}
        for hit in hits:
            for item in self._held(hit.item):
                if item.id == hit.item.id:
                    kept[item.id] = hit
                elif item.id not in kept:
                    kept[item.id] = replace(hit, item=item, ways=(*hit.ways, Way(STAGE, hit.item.id)))
        return list(kept.values())

    def holds(self, item: MemoryItem, heir: MemoryItem | None = None) -> bool:
        """Whether it held at the time, as far as was known; `heir` is what displaced it."""
        if self.known_at is not None and item.created_at > self.known_at:
            return False
        at = self.valid_at or self.known_at
        if at is None:
            return item.live
        if self.valid_at is not None and (item.happened_at or item.created_at) > at:
            return False
        unforeseen = heir is not None and self.known_at is not None and heir.created_at > self.known_at
        return unforeseen or item.valid_until is None or at < item.valid_until

    def _held(self, item: MemoryItem) -> list[MemoryItem]:
        """The item, or those before it in its line that held instead."""
        if self.holds(item):
            return [item]
        found: list[MemoryItem] = []
        seen, line = {item.id}, [item]
        while line:  # ends: no item is looked at twice
            heir = line.pop()
            for earlier in self.displaced.get(heir.id, ()):
                if earlier.id in seen:
                    continue
                seen.add(earlier.id)
                if self.holds(earlier, heir):
                    found.append(earlier)
                else:
                    line.append(earlier)
        return sorted(found, key=lambda one: (one.happened_at or one.created_at, one.id), reverse=True)


def read_timeline(store: MemoryStore, request: RecallRequest) -> Timeline | None:
    """The timeline of a request that asks about a time; None for one that does not. Raises StoreError."""
    if request.valid_at is None and request.known_at is None:
        return None
    wanted = replace(
        request.filter or ItemFilter(), cube_ids=request.cube_ids, statuses=(ItemStatus.ARCHIVED,)
    )
    if request.kinds:
        wanted = replace(wanted, kinds=request.kinds)
    displaced: dict[str, list[MemoryItem]] = {}
    cursor: str | None = None
    looked_at = 0
    while looked_at < PAST_MAX:
        page = store.find(wanted, limit=PAGE, cursor=cursor)
        looked_at += len(page.items)
        for item in page.items:
            heir = item.extra.get(SUPERSEDED_BY)
            allowed = item.id not in request.exclude_ids and (
                request.predicate is None or request.predicate(item)
            )
            if isinstance(heir, str) and allowed:
                displaced.setdefault(heir, []).append(item)
        cursor = page.next_cursor
        if cursor is None:
            break
    return Timeline(request.valid_at, request.known_at, displaced)
