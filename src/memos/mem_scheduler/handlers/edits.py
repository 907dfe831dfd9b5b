"""What handlers do to stored items, as changes to hand to `HandlerContext.apply`.

Handlers read, compute and then apply once; these are the pieces they have in common: an item written
again (its text the same, so its vector stays), one that is retired with the reason and the time, a place
in working memory that passes from an item to the one that takes over from it. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from memos.errors import ItemGone, ItemNotFound
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.memory.extract import slot_tag
from memos.memory.item import ItemStatus, MemoryItem, WorkingEntry, WorkingSet
from memos.memory.learning import MERGED_FROM
from memos.memory.outdated import SUPERSEDED_BY, last_heir
from memos.memory.slots import fact_of
from memos.memory.store import IndexedItem, ItemFilter, MemoryStore, ReplaceWorking, UpdateItem
from memos.retrieval.keywords import analyse

PAGE_SIZE = 500
SLOT_MAX = 2_000  # items of one slot that are looked at, the newest
DERIVED_MAX = 2_000  # of a session


def present(store: MemoryStore, item_ids: Sequence[str]) -> list[MemoryItem]:
    """Those of the items that are stored and not deleted, each once, in the order asked for."""
    wanted = list(dict.fromkeys(item_ids))
    if not wanted:
        return []
    try:
        found = store.get(wanted)
    except (ItemGone, ItemNotFound):
        if len(wanted) == 1:
            return []
        found = [item for one in wanted for item in present(store, [one])]
    return list({item.id: item for item in found}.values())


def all_of(store: MemoryStore, wanted: ItemFilter, *, limit: int) -> list[MemoryItem]:
    """The newest `limit` items that pass the filter."""
    found: list[MemoryItem] = []
    cursor: str | None = None
    while len(found) < limit:
        page = store.find(wanted, limit=min(PAGE_SIZE, limit - len(found)), cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def indexed(ctx: HandlerContext, cube_id: str, items: Sequence[MemoryItem]) -> list[IndexedItem]:
    """New or reworded items of a cube with their index entries."""
    with ctx.services.store.read(cube_id) as view:
        known = view.participants()
    return list(ctx.services.indexer.index(items, participants=known))


def rewritten(before: MemoryItem, item: MemoryItem, reason: str) -> UpdateItem:
    """`item` in the place of `before`; the text is the same, and so its vector stays."""
    return UpdateItem(IndexedItem(item, analyse(item.memory)), before.version, reason)


def retired(
    item: MemoryItem, reason: str, *, by_id: str = "", valid_until: datetime | None = None
) -> UpdateItem:
    """The item out of recall and working memory, kept and readable. VersionConflict if it changed meanwhile."""
    extra = {**item.extra, SUPERSEDED_BY: by_id} if by_id else item.extra
    until = item.valid_until if valid_until is None else valid_until
    gone = replace(item, status=ItemStatus.ARCHIVED, valid_until=until, extra=extra)
    return rewritten(item, gone, reason)


def handed_over(working: WorkingSet, heirs: Mapping[str, str], reason: str) -> list[ReplaceWorking]:
    """The working set with each item of `heirs` replaced by its heir; nothing when none stands there.

    An heir that has a place already keeps the better of the two.
    """
    if not any(entry.item_id in heirs for entry in working.entries):
        return []
    entries: dict[str, WorkingEntry] = {}
    for entry in working.entries:
        heir = last_heir(entry.item_id, heirs)
        changed = entry if heir == entry.item_id else replace(entry, item_id=heir, reason=reason)
        entries.setdefault(heir, changed)
    return [ReplaceWorking(working.cube_id, tuple(entries.values()), working.version, reason)]


def same_slots(store: MemoryStore, cube_id: str, items: Iterable[MemoryItem]) -> list[MemoryItem]:
    """The live derived items that fill the slots which the facts among `items` fill, of the same users."""
    facts = [(item.user_id, fact) for item in items if (fact := fact_of(item)) is not None]
    wanted = {(user_id, fact.identity) for user_id, fact in facts}
    found: dict[str, MemoryItem] = {}
    for slot in dict.fromkeys(fact.slot for _, fact in facts):
        filled = ItemFilter(cube_ids=(cube_id,), raw=False, tags=(slot_tag(slot),))
        for item in all_of(store, filled, limit=SLOT_MAX):
            fact = fact_of(item)
            if fact is not None and (item.user_id, fact.identity) in wanted:
                found[item.id] = item
    return list(found.values())


def read_from(store: MemoryStore, cube_id: str, raw: Sequence[MemoryItem]) -> list[MemoryItem]:
    """The live derived items that have one of the raw items among their sources."""
    origins = {item.id for item in raw}
    sessions = {item.session_id for item in raw}
    found: dict[str, MemoryItem] = {}
    for session in sorted(sessions):
        wanted = ItemFilter(
            cube_ids=(cube_id,), raw=False, session_ids=(session,) if session else ()
        )  # a derived item keeps the session of the first turn that it was read from
        for item in all_of(store, wanted, limit=DERIVED_MAX):
            if any(source.item_id in origins for source in item.sources):
                found[item.id] = item
    return list(found.values())


def taken_over_by(item: MemoryItem) -> list[str]:
    """The ids of the items that this one took the place of."""
    before = item.extra.get(MERGED_FROM, ())
    return [before] if isinstance(before, str) else [str(one) for one in before]


def turns_of(store: MemoryStore, derived: Iterable[MemoryItem]) -> list[MemoryItem]:
    """The live raw items that the derived ones were read from."""
    ids = [source.item_id for item in derived for source in item.sources if source.item_id]
    return [item for item in present(store, ids) if item.raw and item.live]
