"""An `ItemFilter` as SQL: a fixed fragment per condition, every value a parameter.

Time ranges are half open: `from` is included, `to` is not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from memos.errors import InvalidInput
from memos.memory.item import LIVE, ItemStatus, MemoryItem
from memos.memory.relational.entries import PARTICIPANT, TAG
from memos.memory.relational.rows import ITEM_COLUMNS, item_of, micros
from memos.memory.sqlite.chunks import marks
from memos.memory.store import ItemFilter, Page

VALUES_MAX = 10_000  # of one filter; SQLite takes 32,766 parameters a statement

# One cube by `=`, so that the index by time gives the order too.
_OF_CUBE = "item.cube_no = (SELECT no FROM cube WHERE id = ?)"
_OF_CUBES = "item.cube_no IN (SELECT no FROM cube WHERE id IN ({marks}))"
_MENTIONS = """
EXISTS (SELECT 1 FROM mention WHERE mention.cube_no = item.cube_no AND mention.sort = {sort}
        AND mention.live = item.live AND mention.item_no = item.no AND mention.name IN ({marks}))
"""
_COUNT = "SELECT count(*) FROM item WHERE {conditions}"
_PAGE = f"""
SELECT {ITEM_COLUMNS}, cube.id, item.no FROM item JOIN cube ON cube.no = item.cube_no
WHERE {{conditions}} ORDER BY item.created_at DESC, item.no DESC LIMIT ?
"""
_AFTER_CURSOR = "(item.created_at, item.no) < (?, ?)"
_NOS = "SELECT item.no FROM item WHERE {conditions}"


def _conditions(wanted: ItemFilter) -> tuple[list[str], list[Any]]:
    """Everything but the cubes."""
    fragments: list[str] = []
    values: list[Any] = []

    def among(column: str, given: Sequence[str]) -> None:
        if given:
            fragments.append(f"{column} IN ({marks(len(given))})")
            values.extend(given)

    def mentioning(sort: int, given: Sequence[str]) -> None:
        if given:
            fragments.append(_MENTIONS.format(sort=sort, marks=marks(len(given))))
            values.extend(given)

    if frozenset(wanted.statuses) <= LIVE:
        fragments.append("item.live = 1")
    if frozenset(wanted.statuses) != LIVE:
        among("item.status", [status.value for status in wanted.statuses])
    among("item.user_id", wanted.user_ids)
    among("item.kind", [kind.value for kind in wanted.kinds])
    among("item.id", wanted.ids)
    among("item.session_id", wanted.session_ids)
    among("item.scenario", wanted.scenarios)
    among("item.read", [state.value for state in wanted.read])
    among("item.content_hash", wanted.content_hashes)
    mentioning(PARTICIPANT, wanted.participants)
    mentioning(TAG, wanted.tags)
    if wanted.raw is not None:
        fragments.append("item.raw = ?")
        values.append(int(wanted.raw))
    for column, sign, bound in (
        ("created_at", ">=", wanted.created_from),
        ("created_at", "<", wanted.created_to),
        ("happened_at", ">=", wanted.happened_from),
        ("happened_at", "<", wanted.happened_to),
    ):
        if bound is not None:
            fragments.append(f"item.{column} {sign} ?")
            values.append(micros(bound))
    if len(values) + len(wanted.cube_ids) > VALUES_MAX:
        raise InvalidInput(f"a filter of {len(values)} values; at most {VALUES_MAX} are allowed: split it")
    return fragments, values


def find(connection: sqlite3.Connection, wanted: ItemFilter, *, limit: int, cursor: str | None) -> Page:
    """One page, newest first. No status asked for: every status but deleted."""
    fragments, values = _conditions(wanted)
    if not wanted.statuses:
        fragments.append("item.status <> ?")
        values.append(ItemStatus.DELETED.value)
    if wanted.cube_ids:
        one = len(wanted.cube_ids) == 1
        fragments.append(_OF_CUBE if one else _OF_CUBES.format(marks=marks(len(wanted.cube_ids))))
        values.extend(wanted.cube_ids)
    if limit < 1:
        raise InvalidInput(f"limit must be at least 1, not {limit}")
    total = connection.execute(_COUNT.format(conditions=" AND ".join(fragments)), values).fetchone()[0]
    if cursor is not None:
        fragments.append(_AFTER_CURSOR)
        values.extend(_read_cursor(cursor))
    rows = connection.execute(
        _PAGE.format(conditions=" AND ".join(fragments)), (*values, limit + 1)
    ).fetchall()
    items: list[MemoryItem] = [item_of(row, row[-2]) for row in rows[:limit]]
    more = f"{micros(items[-1].created_at)}:{rows[limit - 1][-1]}" if len(rows) > limit else None
    return Page(tuple(items), total, more)


def _read_cursor(cursor: str) -> tuple[int, int]:
    try:
        at, no = cursor.split(":")
        return int(at), int(no)
    except ValueError as error:
        raise InvalidInput(
            f"cursor {cursor!r} is not one that `find` gave; start again without it"
        ) from error


def select_live(
    connection: sqlite3.Connection, wanted: ItemFilter, *, cube_no: int, cube_id: str
) -> frozenset[int]:
    """The numbers of the cube's live items that pass the filter."""
    if wanted.cube_ids and cube_id not in wanted.cube_ids:
        return frozenset()
    fragments, values = _conditions(wanted)
    fragments += ["item.cube_no = ?", "item.live = 1"]
    values.append(cube_no)
    return frozenset(
        row[0] for row in connection.execute(_NOS.format(conditions=" AND ".join(fragments)), values)
    )
