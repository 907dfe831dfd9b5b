"""Every move between the areas of memory, and every move that is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from memos.errors import InvalidInput
from memos.memory.convert import ACTIVE_TAG, ALLOWED, HOMES, Area, convert, is_active
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


def item_in(area: Area) -> MemoryItem:
    kind = MemoryKind(area.value) if area is not Area.ACTIVATION else MemoryKind.USER
    tags = ("pets", ACTIVE_TAG) if area is Area.ACTIVATION else ("pets",)
    return MemoryItem(
        "m1", "c1", "u1", "Max is a dog", kind=kind, tags=tags,
        created_at=NOW - timedelta(days=3), updated_at=NOW - timedelta(days=2),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("origin", "target"), [(a, b) for a, targets in ALLOWED.items() for b in sorted(targets)]
)
def test_allowed_moves(origin: Area, target: Area) -> None:
    """Each allowed move names both ends and its reason, and never touches text, sources or identity."""
    item = item_in(origin)
    done = convert(item, target, " because ", NOW, from_kind=origin)
    assert (done.from_kind, done.to_kind, done.reason) == (origin, target, "because")
    if target in HOMES:
        assert done.item.kind.value == target.value
    else:
        assert done.item.kind is item.kind
    assert is_active(done.item) is (target is Area.ACTIVATION)
    assert replace(done.item, kind=item.kind, tags=item.tags, updated_at=item.updated_at) == item
    assert done.changed is (done.item != item)
    assert done.item.updated_at == (NOW if done.changed else item.updated_at)


@pytest.mark.parametrize(
    ("origin", "target"), [(a, b) for a in Area for b in Area if b is not a and b not in ALLOWED[a]]
)
def test_refused_moves(origin: Area, target: Area) -> None:
    """A move outside the table is refused and the message names both ends."""
    with pytest.raises(InvalidInput, match=f"from {origin.value} to {target.value}"):
        convert(item_in(origin), target, "because", NOW, from_kind=origin)


def test_the_table_covers_every_area_and_never_a_loop() -> None:
    """Every area can be left and reached, and no move leads back to where it began."""
    assert set(ALLOWED) == set(Area)
    assert set().union(*ALLOWED.values()) == set(Area)
    assert all(area not in targets for area, targets in ALLOWED.items())


def test_working_memory_is_a_place_not_a_home() -> None:
    """A user memory that enters and leaves working memory is still a user memory, its row unchanged."""
    item = item_in(Area.USER)
    entered = convert(item, Area.WORKING, "recalled", NOW)
    assert entered.enters_working and not entered.changed and entered.item is item
    left = convert(entered.item, Area.USER, "pushed out", NOW, from_kind=Area.WORKING)
    assert left.leaves_working and not left.changed and left.item.kind is MemoryKind.USER


def test_an_item_written_to_working_memory_alone_gets_a_home_when_it_leaves() -> None:
    """An item of kind WORKING becomes long-term memory by leaving."""
    left = convert(item_in(Area.WORKING), MemoryKind.LONG_TERM, "pushed out", NOW)
    assert left.changed and left.leaves_working and left.item.kind is MemoryKind.LONG_TERM


def test_activation_is_a_marker_that_comes_and_goes() -> None:
    """Entering activation memory marks the item once, leaving it restores the item's tags."""
    item = item_in(Area.LONG_TERM)
    marked = convert(item, Area.ACTIVATION, "in use", NOW, from_kind=Area.WORKING).item
    assert is_active(marked) and marked.tags.count(ACTIVE_TAG) == 1 and marked.kind is item.kind
    again = convert(marked, Area.ACTIVATION, "in use", NOW, from_kind=Area.WORKING)
    assert not again.changed
    back = convert(marked, Area.LONG_TERM, "stale", NOW, from_kind=Area.ACTIVATION)
    assert back.item.tags == item.tags and back.item.kind is item.kind


def test_conversion_between_homes_keeps_the_marker() -> None:
    """A change of home says nothing about activation memory."""
    marked = replace(item_in(Area.LONG_TERM), tags=(ACTIVE_TAG,))
    assert is_active(convert(marked, Area.USER, "stable fact", NOW).item)


@pytest.mark.parametrize("status", [ItemStatus.ARCHIVED, ItemStatus.DELETED, ItemStatus.QUARANTINED])
def test_only_live_items_move(status: ItemStatus) -> None:
    """What is archived, deleted or held for review does not move, and the message says so."""
    with pytest.raises(InvalidInput, match=status.value):
        convert(replace(item_in(Area.USER), status=status), Area.LONG_TERM, "because", NOW)


def test_bad_values_are_named() -> None:
    """Unknown areas, a move to where it is, an empty reason, a naive time, a false origin: all refused."""
    item = item_in(Area.USER)
    with pytest.raises(InvalidInput, match="ParameterMemory"):
        convert(item, "ParameterMemory", "because", NOW)
    with pytest.raises(InvalidInput, match="already"):
        convert(item, Area.USER, "because", NOW)
    with pytest.raises(InvalidInput, match="reason is empty"):
        convert(item, Area.LONG_TERM, "  ", NOW)
    with pytest.raises(InvalidInput, match="at most"):
        convert(item, Area.LONG_TERM, "x" * 501, NOW)
    with pytest.raises(InvalidInput, match="time zone"):
        convert(item, Area.LONG_TERM, "because", NOW.replace(tzinfo=None))
    with pytest.raises(InvalidInput, match="lives in UserMemory"):
        convert(item, Area.PREFERENCE, "because", NOW, from_kind=Area.LONG_TERM)
    with pytest.raises(InvalidInput, match="cannot leave"):
        convert(item, Area.USER, "because", NOW, from_kind=Area.ACTIVATION)


def test_time_never_goes_back() -> None:
    """A clock behind the item's last change does not move `updated_at` backwards."""
    item = item_in(Area.USER)
    assert convert(item, Area.LONG_TERM, "b", NOW - timedelta(days=9)).item.updated_at == item.updated_at
