"""The journal: a row for every change, with what was before and after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memos.memory.item import ItemStatus, MemoryKind, ReadState, WorkingEntry
from memos.memory.store import (
    JournalRow,
    MemoryStore,
    PutState,
    ReplaceWorking,
    SetRead,
    SetStatus,
    TouchItems,
    UpdateItem,
)
from memos.testing import ManualClock


def last(store: MemoryStore) -> JournalRow:
    return store.journal(limit=1)[0]


def test_each_kind_of_change_has_its_op(store: MemoryStore, make: Any, clock: ManualClock) -> None:
    """One walk of an item through everything that can happen to it, row by row."""
    store.apply([make.add("a", memory="first")])
    row = last(store)
    assert (row.op, row.item_id, row.cube_id, row.seq, row.reason) == ("add", "a", "cube", 1, "added")
    assert row.at.timestamp() == clock.now()
    assert row.before is None
    assert row.after is not None and row.after["memory"] == "first"

    (item,) = store.get(["a"])
    store.apply([UpdateItem(make.with_terms(replace(item, memory="second")), 1, "corrected")])
    row = last(store)
    assert (row.op, row.reason) == ("update", "corrected")
    assert row.before == {"memory": "first", "version": 1}
    assert row.after == {"memory": "second", "version": 2}

    (item,) = store.get(["a"])
    store.apply([UpdateItem(make.with_terms(replace(item, kind=MemoryKind.USER)), 2, "a fact")])
    row = last(store)
    assert row.op == "convert"
    assert row.before == {"kind": "LongTermMemory", "version": 2}
    assert row.after == {"kind": "UserMemory", "version": 3}

    ops = []
    for change in (
        TouchItems(("a",), "r"),
        SetRead(("a",), ReadState.DUE, "r"),
        SetStatus(("a",), ItemStatus.RESOLVING, "r"),
        SetStatus(("a",), ItemStatus.ARCHIVED, "r"),
        SetStatus(("a",), ItemStatus.ACTIVATED, "r"),
        SetStatus(("a",), ItemStatus.QUARANTINED, "r"),
        SetStatus(("a",), ItemStatus.ARCHIVED, "r"),
        SetStatus(("a",), ItemStatus.RESOLVING, "r"),
        SetStatus(("a",), ItemStatus.DELETED, "r"),
    ):
        store.apply([change])
        ops.append(last(store).op)
    assert ops == [
        "touch", "read", "update", "archive", "restore", "quarantine", "archive", "restore", "delete",
    ]  # fmt: skip
    row = last(store)
    assert row.before is not None and row.before["memory"] == "second"
    assert row.after is not None and row.after["status"] == "deleted" and "memory" not in row.after
    assert len(store.journal(item_id="a", limit=100)) == 12


def test_rows_are_newest_first_and_paged(store: MemoryStore, make: Any) -> None:
    """The journal is read backwards, by cube or item, from any row on."""
    store.apply([make.add("a", "b"), make.add("c", cube_id="other")])
    store.apply([TouchItems(("a",), "r")])
    rows = store.journal()
    assert [row.n for row in rows] == sorted((row.n for row in rows), reverse=True)
    assert [row.item_id for row in store.journal(cube_id="cube")] == ["a", "b", "a"]
    assert [row.op for row in store.journal(cube_id="cube", item_id="a")] == ["touch", "add"]
    assert store.journal(before=rows[1].n, limit=1) == [rows[2]]
    assert store.journal(cube_id="nowhere") == []
    assert store.journal(limit=0) == []


def test_the_rows_of_one_commit_bear_its_seq(store: MemoryStore, make: Any) -> None:
    """All rows of a call carry the seq that the call gave their cube."""
    store.apply([make.add("x", cube_id="other")])
    result = store.apply([make.add("a"), TouchItems(("a", "x"), "r")])
    assert result.seqs == {"cube": 1, "other": 2}
    assert [(row.cube_id, row.seq) for row in store.journal(limit=3)] == [
        ("other", 2),
        ("cube", 1),
        ("cube", 1),
    ]


def test_monitor_state_is_no_memory(store: MemoryStore) -> None:
    """`PutState` raises the seq and writes no journal row: it would be one for every query."""
    assert store.apply([PutState("cube", "window", {"q": 1})]).seqs == {"cube": 1}
    assert store.journal() == []


def test_the_journal_holds_together(store: MemoryStore, make: Any) -> None:
    """After many changes of all sorts `verify` finds nothing to say."""
    store.apply([make.add("a", "b", "c", tags=("t",), links=("Rex",), participants=("Ann",))])
    store.apply([ReplaceWorking("cube", (WorkingEntry("a"), WorkingEntry("b")), 0, "r")])
    store.apply([SetStatus(("a",), ItemStatus.ARCHIVED, "r"), SetStatus(("b",), ItemStatus.DELETED, "r")])
    store.apply([SetStatus(("a",), ItemStatus.ACTIVATED, "r")])
    assert store.verify() == []
