"""Aliases: ids that were given out and now stand for another item.

An alias points at an item itself, never at another alias: when the item it points at is merged on, the
alias moves on with it. An id whose own item is live means that item, whatever was said of it before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from memos.errors import InvalidInput, ItemGone, ItemNotFound
from memos.memory.item import ItemStatus
from memos.memory.sqlite.lookup import chunks, find_by_id, find_by_no, marks
from memos.memory.sqlite.rows import Stored

_TARGETS = "SELECT id, item_no FROM alias WHERE id IN ({marks})"
_NAMES = "SELECT id FROM alias WHERE item_no IN ({marks}) ORDER BY id"
_PUT = (
    "INSERT INTO alias (id, item_no) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET item_no = excluded.item_no"
)
_MOVE = "UPDATE alias SET item_no = ? WHERE item_no = ?"
_DROP = "DELETE FROM alias WHERE id = ?"


def resolved(connection: sqlite3.Connection, item_ids: Sequence[str]) -> dict[str, Stored]:
    """id asked for -> the item it stands for, of those that stand for one; deleted items as tombstones."""
    wanted = list(dict.fromkeys(item_ids))
    found = find_by_id(connection, wanted)
    away = [one for one in wanted if one not in found or _has_left(found[one])]
    targets = _targets(connection, away)
    for stored in find_by_no(connection, list(dict.fromkeys(targets.values()))):
        for alias in [name for name, no in targets.items() if no == stored.no]:
            found[alias] = stored
    return found


def family(connection: sqlite3.Connection, item_ids: Sequence[str]) -> list[str]:
    """The ids of all rows that hold what `item_ids` stand for: the items, and those merged into them.

    An id that stands for nothing is passed on, so that the caller refuses it by name.
    """
    own = find_by_id(connection, list(dict.fromkeys(item_ids)))
    meant = resolved(connection, item_ids)
    ids = [meant[one].item.id if one in meant else one for one in item_ids]
    nos = list(dict.fromkeys(stored.no for stored in meant.values()))
    merged = [
        row[0]
        for part in chunks(nos)
        for row in connection.execute(_NAMES.format(marks=marks(len(part))), part)
    ]
    kept = find_by_id(connection, merged)
    rows = [one for one in merged if one in kept and _has_left(kept[one])]
    return list(dict.fromkeys([*ids, *(one for one in item_ids if one in own), *rows]))


def put(connection: sqlite3.Connection, alias: str, item_id: str) -> Stored:
    """Let `alias` stand for `item_id`, and everything that stood for `alias` too; returns the item meant."""
    found = resolved(connection, (item_id,))
    if item_id not in found:
        raise ItemNotFound(f"no item {item_id!r} was ever stored here; {alias!r} cannot stand for it")
    target = found[item_id]
    if target.item.status is ItemStatus.DELETED:
        raise ItemGone(f"item {item_id!r} was deleted; {alias!r} cannot stand for it")
    if target.item.id == alias:
        raise InvalidInput(f"item {alias!r} cannot be its own alias; name the item that takes its place")
    own = find_by_id(connection, (alias,)).get(alias)
    if own is not None and own.item.cube_id != target.item.cube_id:
        raise InvalidInput(
            f"item {alias!r} is in cube {own.item.cube_id!r}, {item_id!r} in {target.item.cube_id!r}; "
            "an alias stays in its cube"
        )
    connection.execute(_DROP, (target.item.id,))
    connection.execute(_PUT, (alias, target.no))
    if own is not None:
        connection.execute(_MOVE, (target.no, own.no))
    return target


def taken(connection: sqlite3.Connection, item_ids: Sequence[str]) -> list[str]:
    """Those of the ids that are aliases."""
    return list(_targets(connection, item_ids))


def _has_left(stored: Stored) -> bool:
    return not stored.item.live and stored.item.status is not ItemStatus.DELETED


def _targets(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, int]:
    return {
        name: no
        for part in chunks(ids)
        for name, no in connection.execute(_TARGETS.format(marks=marks(len(part))), part)
    }
