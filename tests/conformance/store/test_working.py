"""Working memory: replaced whole, versioned, and never naming an item that is not live."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from memos.errors import InvalidInput, VersionConflict
from memos.memory.item import Capacities, ItemStatus, MemoryKind, WorkingEntry, WorkingSet
from memos.memory.store import MemoryStore, PutState, ReplaceWorking, SetStatus
from memos.memory.working import Order
from memos.memory.working_record import STATE, WorkingRecord


def names(store: MemoryStore, cube_id: str = "cube") -> list[str]:
    return [entry.item_id for entry in store.working(cube_id).entries]


def replace_by(*item_ids: str, expected_version: int | None = None, cube_id: str = "cube") -> ReplaceWorking:
    entries = tuple(WorkingEntry(item_id) for item_id in item_ids)
    return ReplaceWorking(cube_id, entries, expected_version, "test")


def test_a_cube_without_a_set_reads_as_empty(store: MemoryStore) -> None:
    """A cube that never had a working set has version 0 and no entry."""
    assert store.working("nowhere") == WorkingSet("nowhere", 0, (), ())


def test_a_set_comes_back_in_order_with_its_items(store: MemoryStore, make: Any) -> None:
    """Entries keep order, score, reason and time of admission, each with its item."""
    store.apply([make.add("a", "b")])
    entries = (
        WorkingEntry("b", 0.75, "recalled for 'dog'", datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
        WorkingEntry("a", -1.5, "kept", datetime(2024, 1, 2, tzinfo=UTC)),
    )
    store.apply([ReplaceWorking("cube", entries, 0, "first")])
    working = store.working("cube")
    assert working == WorkingSet("cube", 1, entries, tuple(store.get(["b", "a"])))
    with store.read("cube") as view:
        assert view.working() == working


def test_the_set_is_replaced_whole(store: MemoryStore, make: Any) -> None:
    """A replacement leaves nothing of the set before, and an empty one empties it."""
    store.apply([make.add("a", "b", "c"), replace_by("a", "b")])
    store.apply([replace_by("c", "b")])
    assert names(store) == ["c", "b"]
    store.apply([replace_by()])
    assert names(store) == []
    assert store.working("cube").version == 3


def test_a_stale_version_is_refused(store: MemoryStore, make: Any) -> None:
    """Who read an older version gets VersionConflict and changes nothing; None writes over it."""
    store.apply([make.add("a", "b")])
    store.apply([replace_by("a", expected_version=0)])
    before = (names(store), store.seq("cube"), store.journal())
    with pytest.raises(VersionConflict, match="version 1, not 0"):
        store.apply([replace_by("b", expected_version=0)])
    assert (names(store), store.seq("cube"), store.journal()) == before
    store.apply([replace_by("b", expected_version=1)])
    store.apply([replace_by("a")])
    assert store.working("cube").version == 3


def test_of_writers_with_one_version_one_wins(store: MemoryStore, make: Any) -> None:
    """Of many threads that replace the same version exactly one succeeds."""
    store.apply([make.add(*[f"i{n}" for n in range(8)])])
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def replace_once(n: int) -> None:
        barrier.wait()
        try:
            store.apply([replace_by(f"i{n}", expected_version=0)])
            outcomes.append(f"i{n}")
        except VersionConflict:
            pass

    threads = [threading.Thread(target=replace_once, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert names(store) == outcomes


def test_what_cannot_stand_there_is_left_out(open_store: Any, make: Any) -> None:
    """Dead, foreign, unknown and repeated entries are left out; the rest is cut at the capacity."""
    store = open_store(capacities=Capacities(working=3))
    store.apply(
        [
            make.add("a", "b", "c", "d", "dead", "gone"),
            make.add("foreign", cube_id="other"),
            SetStatus(("dead",), ItemStatus.ARCHIVED, "old"),
            SetStatus(("gone",), ItemStatus.DELETED, "no"),
        ]
    )
    store.apply([replace_by("dead", "a", "foreign", "gone", "nope", "b", "a", "c", "d")])
    assert names(store) == ["a", "b", "c"]
    assert store.sizes("cube").working == 3
    assert store.verify() == []


@pytest.mark.parametrize("status", [ItemStatus.ARCHIVED, ItemStatus.DELETED, ItemStatus.QUARANTINED])
def test_an_item_that_is_not_live_leaves_the_set(store: MemoryStore, make: Any, status: ItemStatus) -> None:
    """With the change of status the item is gone from working memory, and coming back does not bring it
    in again; the version stays, so that a replacement under way is not refused."""
    store.apply([make.add("a", "b", "c"), replace_by("a", "b", "c", expected_version=0)])
    store.apply([SetStatus(("b",), status, "why")])
    assert names(store) == ["a", "c"]
    (row,) = store.journal(item_id="", limit=1) or [None]
    assert row is not None and row.op == "replace_working"
    assert row.before is not None and [one["id"] for one in row.before["entries"]] == ["a", "b", "c"]
    assert row.after is not None and [one["id"] for one in row.after["entries"]] == ["a", "c"]
    if status is not ItemStatus.DELETED:
        store.apply([SetStatus(("b",), ItemStatus.ACTIVATED, "back")])
    store.apply([replace_by("c", "a", expected_version=1)])
    assert names(store) == ["c", "a"]


def test_a_working_item_becomes_long_term_when_it_leaves(store: MemoryStore, make: Any) -> None:
    """An item of kind WorkingMemory lives on as LongTermMemory, with a journal row, however it leaves."""
    store.apply([make.add("a", "b", "c", kind=MemoryKind.WORKING), make.add("d")])
    store.apply([replace_by("a", "b", "c", "d")])
    assert store.sizes("cube").long_term == 1
    store.apply([replace_by("b", "c")])
    store.apply([SetStatus(("b",), ItemStatus.ARCHIVED, "old")])
    kinds = {item.id: item.kind for item in store.get(["a", "b", "c", "d"])}
    assert kinds == {
        "a": MemoryKind.LONG_TERM,
        "b": MemoryKind.LONG_TERM,
        "c": MemoryKind.WORKING,
        "d": MemoryKind.LONG_TERM,
    }
    assert [row.op for row in store.journal(item_id="a")] == ["convert", "add"]
    assert store.sizes("cube").long_term == 2


def test_items_of_kind_working_are_bounded(open_store: Any, make: Any) -> None:
    """Items of kind WorkingMemory that nobody puts into the set do not pile up."""
    store = open_store(capacities=Capacities(working=2))
    for n in range(6):
        store.apply([make.add(f"w{n}", kind=MemoryKind.WORKING)])
    with store.read("cube") as view:
        assert view.size == 4
    assert store.sizes("cube").archived == 2


def test_an_entry_needs_a_finite_score(store: MemoryStore, make: Any) -> None:
    """A score that is no number is refused and the set stays."""
    store.apply([make.add("a"), replace_by("a")])
    with pytest.raises(InvalidInput, match="score"):
        store.apply([ReplaceWorking("cube", (WorkingEntry("a", float("nan")),), None, "r")])
    assert store.working("cube").version == 1


def test_the_journal_tells_who_came_and_who_left(store: MemoryStore, make: Any) -> None:
    """A replacement's journal row holds both sets as ids with their reasons."""
    store.apply([make.add("a", "b"), replace_by("a")])
    store.apply([ReplaceWorking("cube", (WorkingEntry("b", 1.0, "recalled"),), 1, "new evidence")])
    (row,) = store.journal(limit=1)
    assert (row.op, row.item_id, row.reason) == ("replace_working", "", "new evidence")
    assert row.before == {"version": 1, "entries": [{"id": "a", "reason": ""}]}
    assert row.after == {"version": 2, "entries": [{"id": "b", "reason": "recalled"}]}


def test_a_deleted_item_leaves_the_order_too(store: MemoryStore, make: Any) -> None:
    """Neither places, ghosts nor heat name what was deleted, nor does a plan that was made before; an archived
    item may come back, so it stays."""
    order = Order(("a", "b", "c", "d", "never"), 2, {"c": 0.5, "a": 0.4}, ("a", "c"))
    record = WorkingRecord(order=order, before=order)
    store.apply([make.add("a", "b", "c", "d"), PutState("cube", STATE, record.to_json())])
    store.apply(
        [SetStatus(("a", "c"), ItemStatus.DELETED, "why"), SetStatus(("d",), ItemStatus.ARCHIVED, "old")]
    )

    def kept() -> WorkingRecord:
        return WorkingRecord.from_json(store.state("cube", STATE))

    left = Order(("b", "d", "never"), 1, {}, ())
    assert (kept().order, kept().before, kept().forgotten) == (left, left, 1)
    store.apply([PutState("cube", STATE, record.to_json())])  # a plan under way
    assert (kept().order, kept().before, kept().forgotten) == (left, left, 1)
