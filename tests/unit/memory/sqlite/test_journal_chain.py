"""The journal cannot be rewritten unseen."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memos.memory.item import ItemStatus, MemoryItem, WorkingEntry
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems, Cause, IndexedItem, ReplaceWorking, SetStatus
from memos.testing import ManualClock

TRIGGERS = ("journal_keeps_rows", "journal_changes_only_by_redaction")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    items = [
        MemoryItem(
            id=f"i{n}", cube_id=f"c{n % 2}", user_id="u", memory=f"text {n}", created_at=at, updated_at=at
        )
        for n in range(6)
    ]
    with SqliteStore(tmp_path / "m.db", clock=ManualClock()) as opened:
        cause = Cause("K", "T", "add", "trace", "u")
        opened.apply([AddItems(tuple(IndexedItem(item, {"text": 1}) for item in items))], cause=cause)
        opened.apply(
            [ReplaceWorking("c0", (WorkingEntry("i0"), WorkingEntry("i2")), 0, "recalled")], cause=cause
        )
        opened.apply([SetStatus(("i2",), ItemStatus.ARCHIVED, "old")], cause=cause)
        assert opened.verify() == []
        yield opened


@pytest.fixture
def edit(store: SqliteStore) -> Iterator[Callable[[str], None]]:
    """Runs SQL on the file as somebody with a text editor for databases would: past the triggers."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    for name in TRIGGERS:
        connection.execute(f"DROP TRIGGER {name}")
    yield lambda statement: connection.execute(statement) and None
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal SET reason = 'another' WHERE n = 3",
        "UPDATE journal SET after = NULL WHERE n = 3",
        "UPDATE journal SET after = '{}' WHERE n = 1",
        "UPDATE journal SET user_id = 'somebody' WHERE n = 2",
        "UPDATE journal SET op = 'touch' WHERE n = 4",
        "UPDATE journal SET at = at + 1 WHERE n = 1",
        "UPDATE journal SET seq = 7 WHERE n = 1",
        "UPDATE journal SET item_id = 'i9' WHERE n = 1",
        "UPDATE journal SET task_id = 'U' WHERE n = 1",
        "UPDATE journal SET trace_id = 'U' WHERE n = 1",
        "UPDATE journal SET payload = zeroblob(32) WHERE n = 5",
        "UPDATE journal SET chain = zeroblob(32) WHERE n = 5",
        "DELETE FROM journal WHERE n = 3",
        "DELETE FROM journal WHERE n = (SELECT max(n) FROM journal)",
        "DELETE FROM journal WHERE cube_no = 1",
        "INSERT INTO journal SELECT 99, cube_no, seq, at, op, item_id, message_key, task_id, label, trace_id, "
        "user_id, reason, before, after, salt, payload, chain, NULL FROM journal WHERE n = 1",
        'UPDATE journal SET redacted_at = 1, after = \'{"memory": "forged"}\', payload = zeroblob(32) WHERE n = 1',
    ],
)
def test_every_edit_is_detected(store: SqliteStore, edit: Callable[[str], None], statement: str) -> None:
    """Whatever column of a row is changed, and whatever row is taken or added, `verify` says so."""
    edit(statement)
    assert any("journal" in fault for fault in store.verify())


def test_the_file_itself_refuses_edits(store: SqliteStore) -> None:
    """Triggers refuse to delete or to change a row, for any program that opens the file."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    for statement in (
        "DELETE FROM journal",
        "UPDATE journal SET reason = 'x' WHERE n = 1",
        "UPDATE journal SET redacted_at = 1 WHERE n = 1",
        "UPDATE journal SET redacted_at = 1, before = NULL, after = NULL, reason = '', user_id = '', "
        "salt = NULL, op = 'touch' WHERE n = 1",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()
    assert store.verify() == []


def test_a_redacted_row_keeps_the_chain(store: SqliteStore) -> None:
    """Wiping what a row says, as erasure does, is allowed, seen as such, and breaks no link."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute(
        "UPDATE journal SET redacted_at = 1, before = NULL, after = NULL, reason = '', user_id = '', salt = NULL "
        "WHERE item_id = 'i0'"
    )
    connection.close()
    assert store.verify() == []
    (row,) = store.journal(item_id="i0")
    assert (row.op, row.before, row.after, row.reason, row.cause.user_id) == ("add", None, None, "", "")
    assert row.cause.task_id == "T"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE cube SET long_term = long_term + 1 WHERE id = 'c0'", "counters"),
        ("UPDATE cube SET seq = 0 WHERE id = 'c0'", "has seq"),
        ("DELETE FROM posting WHERE item_no = 1", "lexical index does not match"),
        ("UPDATE posting SET tf = 5 WHERE item_no = 1", "lexical index does not match"),
        ("INSERT INTO posting VALUES (1, 'ghost', 77, 1, 1)", "no live item"),
        ("INSERT INTO mention VALUES (1, 1, 1, 'ghost', 1)", "index of names"),
        ("UPDATE item SET has_vector = 1 WHERE no = 1", "vector"),
        ("UPDATE working SET item_no = 3", "not a live item"),
        ("UPDATE working SET item_no = 2", "not a live item"),
        ("INSERT INTO vector VALUES (1, zeroblob(8))", "vector"),
    ],
)
def test_indexes_that_do_not_match_are_found(store: SqliteStore, statement: str, said: str) -> None:
    """`verify` names an index, a counter or a place in working memory that contradicts the items."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute(statement)
    connection.close()
    assert any(said in fault for fault in store.verify())
