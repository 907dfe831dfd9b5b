"""An `ItemFilter` as SQL: a fixed fragment per condition, every value a parameter.

Time ranges are half open: `from` is included, `to` is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from memos.errors import InvalidInput
from memos.memory.item import LIVE, MemoryItem
from memos.memory.postgres.session import Session, index_key
from memos.memory.relational.entries import PARTICIPANT, TAG
from memos.memory.relational.rows import ITEM_COLUMNS, item_of, micros
from memos.memory.store import ItemFilter, Page

VALUES_MAX = 10_000  # of one filter, as in every store

_OF_CUBES = "item.cube_no = ANY (ARRAY(SELECT no FROM cube WHERE id = ANY (%(cube_ids)s)))"
# Of one cube in a form of its own: it is one partition, whose rows an index gives in order.
_OF_CUBE = "item.cube_no = (SELECT no FROM cube WHERE id = %(cube_id)s)"
_OF_CUBE_NO = "item.cube_no = %(cube_no)s"
_LIVE = "item.live"
_STATUSES = "item.status = ANY (%(statuses)s)"
_NOT_DELETED = "item.status <> 'deleted'"
_USERS = "item.user_id = ANY (%(user_ids)s)"
_KINDS = "item.kind = ANY (%(kinds)s)"
_IDS = "item.id = ANY (%(ids)s)"
_SESSIONS = "item.session_id = ANY (%(session_ids)s)"
_SCENARIOS = "item.scenario = ANY (%(scenarios)s)"
_READ = "item.read = ANY (%(read)s)"
_HASHES = "item.content_hash = ANY (%(content_hashes)s)"
_PARTICIPANTS = f"""
EXISTS (SELECT 1 FROM mention WHERE mention.cube_no = item.cube_no AND mention.sort = {PARTICIPANT}
        AND mention.live = item.live AND mention.item_no = item.no AND mention.key = ANY (%(participants)s))
"""
_TAGS = f"""
EXISTS (SELECT 1 FROM mention WHERE mention.cube_no = item.cube_no AND mention.sort = {TAG}
        AND mention.live = item.live AND mention.item_no = item.no AND mention.key = ANY (%(tags)s))
"""
_RAW = "item.raw = %(raw)s"
_CREATED_FROM = "item.created_at >= %(created_from)s"
_CREATED_TO = "item.created_at < %(created_to)s"
_HAPPENED_FROM = "item.happened_at >= %(happened_from)s"
_HAPPENED_TO = "item.happened_at < %(happened_to)s"
_AFTER_CURSOR = "(item.created_at, item.no) < (%(at)s, %(after)s)"

_COUNT: LiteralString = "SELECT count(*) FROM item WHERE {conditions}"
_PAGE: LiteralString = f"""
SELECT {ITEM_COLUMNS}, cube.id, item.no FROM item JOIN cube ON cube.no = item.cube_no
WHERE {{conditions}} ORDER BY item.created_at DESC, item.no DESC LIMIT %(limit)s
"""
_NOS: LiteralString = "SELECT item.no FROM item WHERE {conditions}"


def _conditions(wanted: ItemFilter) -> tuple[list[LiteralString], dict[str, Any]]:
    """Everything but the cubes."""
    values: dict[str, Any] = {}
    fragments: list[LiteralString] = []
    given = 0

    def among(fragment: LiteralString, name: str, chosen: Sequence[str]) -> None:
        nonlocal given
        if chosen:
            fragments.append(fragment)
            values[name] = list(chosen)
            given += len(chosen)

    def bound(fragment: LiteralString, name: str, value: Any) -> None:
        if value is not None:
            fragments.append(fragment)
            values[name] = value

    if frozenset(wanted.statuses) <= LIVE:
        fragments.append(_LIVE)
    if frozenset(wanted.statuses) != LIVE:
        among(_STATUSES, "statuses", [status.value for status in wanted.statuses])
    among(_USERS, "user_ids", wanted.user_ids)
    among(_KINDS, "kinds", [kind.value for kind in wanted.kinds])
    among(_IDS, "ids", wanted.ids)
    among(_SESSIONS, "session_ids", wanted.session_ids)
    among(_SCENARIOS, "scenarios", wanted.scenarios)
    among(_READ, "read", [state.value for state in wanted.read])
    among(_HASHES, "content_hashes", wanted.content_hashes)
    among(_PARTICIPANTS, "participants", [index_key(name) for name in wanted.participants])
    among(_TAGS, "tags", [index_key(name) for name in wanted.tags])
    bound(_RAW, "raw", wanted.raw)
    bound(_CREATED_FROM, "created_from", micros(wanted.created_from))
    bound(_CREATED_TO, "created_to", micros(wanted.created_to))
    bound(_HAPPENED_FROM, "happened_from", micros(wanted.happened_from))
    bound(_HAPPENED_TO, "happened_to", micros(wanted.happened_to))
    if given + len(wanted.cube_ids) > VALUES_MAX:
        raise InvalidInput(f"a filter of {given} values; at most {VALUES_MAX} are allowed: split it")
    return fragments, values


def _all(fragments: list[LiteralString]) -> LiteralString:
    return " AND ".join(fragments) or "true"


def find(session: Session, wanted: ItemFilter, *, limit: int, cursor: str | None) -> Page:
    """One page, newest first. No status asked for: every status but deleted."""
    fragments, values = _conditions(wanted)
    if not wanted.statuses:
        fragments.append(_NOT_DELETED)
    if len(wanted.cube_ids) == 1:
        fragments.append(_OF_CUBE)
        values["cube_id"] = wanted.cube_ids[0]
    elif wanted.cube_ids:
        fragments.append(_OF_CUBES)
        values["cube_ids"] = list(wanted.cube_ids)
    if limit < 1:
        raise InvalidInput(f"limit must be at least 1, not {limit}")
    counted = session.row(_COUNT.format(conditions=_all(fragments)), **values)
    if cursor is not None:
        fragments.append(_AFTER_CURSOR)
        values["at"], values["after"] = _read_cursor(cursor)
    rows = session.rows(_PAGE.format(conditions=_all(fragments)), **values, limit=limit + 1)
    items: list[MemoryItem] = [item_of(row, row[-2]) for row in rows[:limit]]
    more = f"{micros(items[-1].created_at)}:{rows[limit - 1][-1]}" if len(rows) > limit else None
    return Page(tuple(items), 0 if counted is None else counted[0], more)


def _read_cursor(cursor: str) -> tuple[int, int]:
    try:
        at, no = cursor.split(":")
        return int(at), int(no)
    except ValueError as error:
        raise InvalidInput(
            f"cursor {cursor!r} is not one that `find` gave; start again without it"
        ) from error


def select_live(session: Session, wanted: ItemFilter, *, cube_no: int, cube_id: str) -> frozenset[int]:
    """The numbers of the cube's live items that pass the filter."""
    if wanted.cube_ids and cube_id not in wanted.cube_ids:
        return frozenset()
    fragments, values = _conditions(wanted)
    fragments += [_OF_CUBE_NO, _LIVE]
    rows = session.rows(_NOS.format(conditions=_all(fragments)), **values, cube_no=cube_no)
    return frozenset(row[0] for row in rows)
