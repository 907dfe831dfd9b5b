"""Derived items go with what they were read from."""

from __future__ import annotations

from typing import Any

import pytest

from memos.errors import ItemGone
from memos.memory.item import ItemStatus, Source, WorkingEntry
from memos.memory.store import ItemFilter, MemoryStore, ReplaceWorking, SetStatus

DELETED, ARCHIVED = ItemStatus.DELETED, ItemStatus.ARCHIVED


def read_from(*item_ids: str) -> dict[str, Any]:
    """The fields of an item that was derived from these."""
    return {"raw": False, "sources": tuple(Source(type="item", item_id=one) for one in item_ids)}


def kept(store: MemoryStore, cube_id: str = "cube") -> set[str]:
    """The ids that still say something."""
    statuses = tuple(status for status in ItemStatus if status is not DELETED)
    return {item.id for item in store.find(ItemFilter(cube_ids=(cube_id,), statuses=statuses)).items}


def test_what_was_read_from_a_deleted_item_is_deleted(store: MemoryStore, make: Any) -> None:
    """Its facts leave rows, indexes and working memory with it; so does what was derived from those."""
    store.apply(
        [
            make.add("raw", "other"),
            make.add("fact", **read_from("raw")),
            make.add("old fact", status=ARCHIVED, **read_from("raw")),
            make.add("summary", **read_from("fact")),
            make.add("theirs", **read_from("other")),
            ReplaceWorking("cube", (WorkingEntry("fact"), WorkingEntry("theirs")), 0, "r"),
        ]
    )
    store.apply([SetStatus(("raw",), DELETED, "asked for")])
    assert kept(store) == {"other", "theirs"}
    assert [item.id for item in store.working("cube").items] == ["theirs"]
    for gone in ("raw", "fact", "old fact", "summary"):
        with pytest.raises(ItemGone):
            store.get([gone])
    (row,) = [one for one in store.journal(item_id="fact") if one.op == "delete"]
    assert row.reason == "asked for; what it was read from is gone"
    assert store.verify() == []


def test_a_fact_stays_while_one_source_stays(store: MemoryStore, make: Any) -> None:
    """It goes with the last one, whether they go together or one after the other."""
    store.apply([make.add("a", "b", "c", "d")])
    store.apply([make.add("one", **read_from("a", "b")), make.add("two", **read_from("c", "d"))])
    store.apply([SetStatus(("a",), DELETED, "r")])
    assert kept(store) == {"b", "c", "d", "one", "two"}
    store.apply([SetStatus(("b",), DELETED, "r")])
    assert kept(store) == {"c", "d", "two"}
    store.apply([SetStatus(("c", "d"), DELETED, "r")])
    assert kept(store) == set()


def test_a_fact_that_names_no_item_stays(store: MemoryStore, make: Any) -> None:
    """Sources that are turns or documents are not looked for among the items; other cubes are not touched."""
    turn = (Source(type="chat", message_id="raw"), Source(type="document", name="raw"))
    store.apply([make.add("raw"), make.add("fact", raw=False, sources=turn)])
    store.apply([make.add("far", cube_id="c2", **read_from("raw"))])
    store.apply([SetStatus(("raw",), DELETED, "r")])
    assert kept(store) == {"fact"}
    assert kept(store, "c2") == {"far"}


def test_deleting_the_fact_leaves_its_source(store: MemoryStore, make: Any) -> None:
    """Taking away what was concluded does not take away what was said."""
    store.apply([make.add("raw"), make.add("fact", **read_from("raw"))])
    store.apply([SetStatus(("fact",), DELETED, "r")])
    assert kept(store) == {"raw"}


def test_a_summary_goes_with_any_of_its_parts(store: MemoryStore, make: Any) -> None:
    """It may say what the deleted part said; a summary that is archived goes as well."""
    parts = tuple(Source(type="part", item_id=one) for one in ("a", "b", "c"))
    store.apply(
        [
            make.add("a", "b", "c", "d"),
            make.add("summary", raw=False, sources=parts),
            make.add("old summary", raw=False, sources=parts, status=ARCHIVED),
            make.add("another", raw=False, sources=parts[1:]),
        ]
    )
    store.apply([SetStatus(("a",), DELETED, "asked for")])
    assert kept(store) == {"b", "c", "d", "another"}
    with pytest.raises(ItemGone):
        store.get(["summary"])
    assert store.verify() == []
