"""A store moves over and back: rows, numbers, versions, chains, marks, followups, logs, and what recall finds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.postgres import BOUNDS, Schemas

from memos.errors import InvalidInput
from memos.memory.activation.index import PutPrefix
from memos.memory.item import ItemStatus, MemoryKind, Source, WorkingEntry
from memos.memory.postgres import PostgresStore
from memos.memory.postgres.connection import PostgresDatabase
from memos.memory.postgres.transfer import fill_from_file
from memos.memory.sqlite import SqliteStore
from memos.memory.store import (
    AddAlias,
    MemoryStore,
    PutState,
    ReplaceWorking,
    SetStatus,
    TouchItems,
    UpdateItem,
)
from memos.testing import ManualClock

from .items import add, block, followup, indexed, prefix, web_log

TABLES = ("meta", "cube", "item", "posting", "mention", "vector", "alias", "working", "state", "journal", "mark",
          "outbox", "web_log", "block", "block_cube", "block_item", "prefix", "prefix_item")  # fmt: skip


def fill(store: MemoryStore) -> None:
    """Something of everything that a store keeps."""
    store.bind_embedder("m", 4)
    unit = np.eye(4, dtype=np.float32)
    full = indexed(
        "a",
        memory="Ann's boat is called Petrel \U0001f6a3",
        vector=unit[0],
        links=("Petrel",),
        participants=("Ann",),
        tags=("boat",),
        session_id="s",
        position=3,
        sources=(Source("chat", message_id="m1"),),
        extra={"n": [1, {"deep": None}]},
    )
    store.apply_once(
        "P", [add("b", "c", "d", "e"), add("x", cube_id="other", user_id="bob")], logs=[web_log("1")]
    )
    store.apply([replace(add("a"), items=(full,))])
    store.apply([UpdateItem(indexed("b", memory="another text", vector=unit[1]), 1, "corrected")])
    store.apply(
        [SetStatus(("c",), ItemStatus.ARCHIVED, "old"), SetStatus(("d",), ItemStatus.DELETED, "gone")]
    )
    store.apply([ReplaceWorking("cube", (WorkingEntry("b", 0.5, "why"), WorkingEntry("a", 0.1)), 0, "r")])
    store.apply([AddAlias("old-name", "a", "merged"), PutState("cube", "window", {"q": [1]})])
    store.apply([TouchItems(("a",), "used"), add("w", kind=MemoryKind.WORKING)])
    store.apply_once("Q", [], followups=[followup("F", "Q"), followup("G", "Q")], logs=[web_log("2")])
    store.tick(["G"])
    store.put_block(block("b", "a"))  # type: ignore[attr-defined]
    store.apply([PutPrefix(prefix("b", "a"), "built")])
    store.erase("bob")  # type: ignore[attr-defined]


def contents(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as connection:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}")) for table in TABLES}


def recalled(store: MemoryStore) -> list[Any]:
    with store.read("cube") as view:
        return [
            view.seq,
            view.search_text({"boat": 1.0, "text": 0.5}, limit=9),
            view.search_vector(np.eye(4, dtype=np.float32)[0], limit=9),
            view.search_links(["petrel"], limit=9),
            view.working(),
            view.facets(range(1, 20)),
        ]


def test_an_installation_moves_over_and_back(schemas: Schemas, tmp_path: Path) -> None:
    """From a file to PostgreSQL and to a file again: every row of every table is what it was."""
    first, backup, back = (tmp_path / name for name in ("first.db", "backup.db", "back.db"))
    with closing(SqliteStore(first, clock=ManualClock())) as store:
        fill(store)
        held = store.block("ns"), store.prefixes()
        before, store_id, journal = recalled(store), store.store_id, store.journal()
        store.backup(backup)
    with schemas.lent() as address:
        with closing(PostgresDatabase(address, BOUNDS)) as database:
            assert fill_from_file(database, backup) == 7
        with closing(PostgresStore(address, clock=ManualClock(), bounds=BOUNDS)) as moved:
            assert moved.store_id == store_id
            assert recalled(moved) == before
            assert moved.journal() == journal
            assert moved.get(["old-name"])[0].id == "a"
            assert (moved.block("ns"), moved.prefixes()) == held
            assert [one.key for one in moved.pending_followups()] == ["F"]
            assert not moved.apply_once("P", []).fresh
            assert moved.verify() == []
            moved.backup(back)
            with pytest.raises(InvalidInput, match="exists already"):
                moved.backup(back)
            moved.put_block(block(namespace="second"))
            moved.apply([add("later")])  # numbers go on where they were
            assert moved.journal(limit=1)[0].n == journal[0].n + 1
            assert moved.verify() == []
    assert contents(back) == contents(backup)


def test_only_an_empty_store_is_filled(schemas: Schemas, tmp_path: Path) -> None:
    """A store that holds something is refused and keeps what it has."""
    with closing(SqliteStore(tmp_path / "first.db", clock=ManualClock())) as store:
        store.apply([add("a")])
        store.backup(tmp_path / "backup.db")
    with (
        schemas.lent() as address,
        closing(PostgresStore(address, clock=ManualClock(), bounds=BOUNDS)) as there,
    ):
        there.apply([add("b")])
        with (
            closing(PostgresDatabase(address, BOUNDS)) as database,
            pytest.raises(InvalidInput, match="empty"),
        ):
            fill_from_file(database, tmp_path / "backup.db")
        assert [item.id for item in there.get(["b"])] == ["b"]
