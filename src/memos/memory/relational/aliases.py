"""Aliases: ids that were given out and now stand for another item.

An alias points at an item itself, never at another alias: when the item it points at is merged on, the
alias moves on with it. An id whose own item is live means that item, whatever was said of it before.
"""

from __future__ import annotations

from collections.abc import Sequence

from memos.errors import InvalidInput, ItemGone, ItemNotFound
from memos.memory.item import ItemStatus
from memos.memory.relational.rows import Stored
from memos.memory.relational.tables import ItemTable


def resolved(items: ItemTable, item_ids: Sequence[str]) -> dict[str, Stored]:
    """id asked for -> the item it stands for, of those that stand for one; deleted items as tombstones."""
    wanted = list(dict.fromkeys(item_ids))
    found = items.by_id(wanted)
    away = [one for one in wanted if one not in found or _has_left(found[one])]
    targets = items.alias_targets(away)
    for stored in items.by_no(list(dict.fromkeys(targets.values()))):
        for alias in [name for name, no in targets.items() if no == stored.no]:
            found[alias] = stored
    return found


def family(items: ItemTable, item_ids: Sequence[str]) -> list[str]:
    """The ids of all rows that hold what `item_ids` stand for: the items, and those merged into them.

    An id that stands for nothing is passed on, so that the caller refuses it by name.
    """
    own = items.by_id(list(dict.fromkeys(item_ids)))
    meant = resolved(items, item_ids)
    ids = [meant[one].item.id if one in meant else one for one in item_ids]
    nos = list(dict.fromkeys(stored.no for stored in meant.values()))
    merged = items.aliases_of(nos)
    kept = items.by_id(merged)
    rows = [one for one in merged if one in kept and _has_left(kept[one])]
    return list(dict.fromkeys([*ids, *(one for one in item_ids if one in own), *rows]))


def put(items: ItemTable, alias: str, item_id: str) -> Stored:
    """Let `alias` stand for `item_id`, and everything that stood for `alias` too; returns the item meant."""
    found = resolved(items, (item_id,))
    if item_id not in found:
        raise ItemNotFound(f"no item {item_id!r} was ever stored here; {alias!r} cannot stand for it")
    target = found[item_id]
    if target.item.status is ItemStatus.DELETED:
        raise ItemGone(f"item {item_id!r} was deleted; {alias!r} cannot stand for it")
    if target.item.id == alias:
        raise InvalidInput(f"item {alias!r} cannot be its own alias; name the item that takes its place")
    own = items.by_id((alias,)).get(alias)
    if own is not None and own.item.cube_id != target.item.cube_id:
        raise InvalidInput(
            f"item {alias!r} is in cube {own.item.cube_id!r}, {item_id!r} in {target.item.cube_id!r}; "
            "an alias stays in its cube"
        )
    items.drop_alias(target.item.id)
    items.put_alias(alias, target.no)
    if own is not None:
        items.move_aliases(own.no, target.no)
    return target


def _has_left(stored: Stored) -> bool:
    return not stored.item.live and stored.item.status is not ItemStatus.DELETED
