"""Aliases: an id that was given out stays good after its item was merged into another."""

from __future__ import annotations

from typing import Any

import pytest

from memos.errors import InvalidInput, ItemGone, ItemNotFound
from memos.memory.item import ItemStatus, WorkingEntry
from memos.memory.store import (
    AddAlias,
    ItemFilter,
    MemoryStore,
    ReplaceWorking,
    SetStatus,
    TouchItems,
)

ARCHIVED, DELETED, ACTIVATED = ItemStatus.ARCHIVED, ItemStatus.DELETED, ItemStatus.ACTIVATED


def merge(store: MemoryStore, one: str, into: str) -> None:
    """What a merge does to the item that goes."""
    store.apply([SetStatus((one,), ARCHIVED, f"merged into {into}"), AddAlias(one, into, "merged")])


def ids(store: MemoryStore, *wanted: str) -> list[str]:
    return [item.id for item in store.get(wanted)]


def test_an_alias_gives_the_item_it_stands_for(store: MemoryStore, make: Any) -> None:
    """`get` answers ids of merged items, mixed with others and repeated, in the order asked for."""
    store.apply([make.add("a", "b", "c")])
    merge(store, "a", "b")
    assert ids(store, "a", "c", "b", "a") == ["b", "c", "b", "b"]
    assert [item.id for item in store.find(ItemFilter(ids=("a",), statuses=(ARCHIVED,))).items] == ["a"]


def test_aliases_follow_when_their_item_is_merged_on(store: MemoryStore, make: Any) -> None:
    """Ids merged twice, in either order, name the last item; a chain of any length is one step."""
    store.apply([make.add(*(f"i{n}" for n in range(6)))])
    for n in range(5):
        merge(store, f"i{n}", f"i{n + 1}")
    assert ids(store, *(f"i{n}" for n in range(6))) == ["i5"] * 6


def test_an_alias_of_an_alias_is_one_of_its_item(store: MemoryStore, make: Any) -> None:
    """An item may be named by an old id of it."""
    store.apply([make.add("a", "b", "c")])
    merge(store, "a", "b")
    merge(store, "c", "a")
    assert ids(store, "c") == ["b"]


def test_an_id_without_an_item_can_be_an_alias(store: MemoryStore, make: Any) -> None:
    """An id from elsewhere resolves, and cannot be given to a new item afterwards."""
    store.apply([make.add("a")])
    store.apply([AddAlias("theirs", "a", "imported")])
    assert ids(store, "theirs") == ["a"]
    with pytest.raises(InvalidInput, match="theirs"):
        store.apply([make.add("theirs")])


def test_a_deleted_item_is_gone_by_all_its_names(store: MemoryStore, make: Any) -> None:
    """Deleting the item wipes those merged into it, and every id answers that it is gone."""
    store.apply([make.add("a", "b", "c")])
    merge(store, "a", "b")
    store.apply([SetStatus(("b",), DELETED, "asked for")])
    for one in ("a", "b"):
        with pytest.raises(ItemGone):
            store.get([one])
    left = store.find(ItemFilter(cube_ids=("cube",), statuses=tuple(ItemStatus))).items
    assert {item.id: item.memory for item in left} == {"a": "", "b": "", "c": "c"}
    assert store.verify() == []


def test_deleting_by_an_alias_deletes_the_item(store: MemoryStore, make: Any) -> None:
    """Who holds only the old id takes away what it says, wherever that stands by now."""
    store.apply([make.add("a", "b")])
    merge(store, "a", "b")
    store.apply([SetStatus(("a",), DELETED, "asked for")])
    assert store.find(ItemFilter(cube_ids=("cube",))).total == 0
    with pytest.raises(ItemGone):
        store.get(["b"])
    store.apply([make.add("c")])
    store.apply([AddAlias("x", "c", "imported"), SetStatus(("x",), DELETED, "asked for")])
    with pytest.raises(ItemGone):
        store.get(["x"])


def test_an_item_that_came_back_means_itself(store: MemoryStore, make: Any) -> None:
    """A merged item that is restored is got under its own id, and may take the other one in."""
    store.apply([make.add("a", "b")])
    merge(store, "a", "b")
    store.apply([SetStatus(("a",), ACTIVATED, "they differ")])
    assert ids(store, "a", "b") == ["a", "b"]
    merge(store, "b", "a")
    assert ids(store, "a", "b") == ["a", "a"]
    store.apply([SetStatus(("a",), DELETED, "asked for")])
    for one in ("a", "b"):
        with pytest.raises(ItemGone):
            store.get([one])


def test_use_of_an_alias_counts_for_its_item(store: MemoryStore, make: Any) -> None:
    """Touching both names of one item counts once."""
    store.apply([make.add("a", "b")])
    merge(store, "a", "b")
    store.apply([TouchItems(("a", "b"), "quoted")])
    assert store.get(["b"])[0].use_count == 1


def test_a_merged_item_keeps_no_place(store: MemoryStore, make: Any) -> None:
    """Working memory names only the item that is live."""
    store.apply([make.add("a", "b"), ReplaceWorking("cube", (WorkingEntry("a"), WorkingEntry("b")), 0, "r")])
    merge(store, "a", "b")
    assert [item.id for item in store.working("cube").items] == ["b"]


def test_an_alias_is_journalled(store: MemoryStore, make: Any) -> None:
    """The journal of the old id tells what it stands for; `seq` rises and the chain holds."""
    store.apply([make.add("a", "b")])
    before = store.seq("cube")
    store.apply([AddAlias("a", "b", "the same")])
    row = store.journal(item_id="a")[0]
    assert (row.op, row.reason, row.before) == ("alias", "the same", None)
    assert row.after == {"item_id": "b"}
    assert store.seq("cube") == before + 1
    assert store.verify() == []


@pytest.mark.parametrize(
    ("alias", "item_id", "error"),
    [
        ("a", "a", InvalidInput),
        ("a", "other", InvalidInput),  # of another cube
        ("a", "nowhere", ItemNotFound),
        ("a", "dead", ItemGone),
        ("", "a", InvalidInput),
        ("nul\0", "a", InvalidInput),
    ],
)
def test_a_wrong_alias_is_refused(
    store: MemoryStore, make: Any, alias: str, item_id: str, error: type[Exception]
) -> None:
    """Nothing is changed, and the error names the id."""
    store.apply([make.add("a", "dead"), make.add("other", cube_id="c2")])
    store.apply([SetStatus(("dead",), DELETED, "r")])
    before = store.seq("cube")
    with pytest.raises(error):
        store.apply([AddAlias(alias, item_id, "r")])
    assert store.seq("cube") == before
    assert ids(store, "a") == ["a"]


def test_an_alias_cannot_turn_in_a_circle(store: MemoryStore, make: Any) -> None:
    """An item cannot be made an alias of what already stands for it."""
    store.apply([make.add("a", "b")])
    merge(store, "a", "b")
    with pytest.raises(InvalidInput, match="own alias"):
        store.apply([AddAlias("b", "a", "r")])
    assert ids(store, "a", "b") == ["b", "b"]
