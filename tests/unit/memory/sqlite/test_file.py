"""The file: made private, migrated forward, refused when it is not ours or not sound."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memos.errors import SchemaTooNew, StoreCorrupt, StoreUnavailable
from memos.memory.item import MemoryItem
from memos.memory.sqlite import SqliteStore
from memos.memory.sqlite.schema import Migration, migrate, migrations, statements
from memos.memory.store import AddItems, IndexedItem, ItemFilter, TouchItems
from memos.testing import ManualClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "here" / "memory.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(path, clock=ManualClock()) as opened:
        yield opened


def reopened(path: Path) -> SqliteStore:
    return SqliteStore(path, clock=ManualClock())


def added(*ids: str, text: str = "text") -> AddItems:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    return AddItems(
        tuple(
            IndexedItem(
                MemoryItem(id=item_id, cube_id="c", user_id="u", memory=text, created_at=at, updated_at=at),
                {"text": 1},
            )
            for item_id in ids
        )
    )


def test_file_and_folder_belong_to_their_owner_alone(store: SqliteStore, path: Path) -> None:
    """A folder made for the store has mode 0700, the file and its companions 0600."""
    store.apply([added("a")])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_data_and_store_id_survive_reopening(path: Path) -> None:
    """What was committed is there again, under the same store id; another file has another id."""
    with reopened(path) as first:
        first.apply([added("a")])
        store_id = first.store_id
    with reopened(path) as again, reopened(path.with_name("other.db")) as other:
        assert again.store_id == store_id != other.store_id
        assert [item.id for item in again.get(["a"])] == ["a"]


def test_every_commit_is_synced(store: SqliteStore) -> None:
    """The writer runs with WAL and synchronous=FULL: a commit that returned survives a power cut."""
    with store._database.write() as tables:
        assert tables.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert tables.connection.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert tables.connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_migrations_are_numbered_without_a_gap() -> None:
    """Steps run from 1 upwards, and each is made of whole statements."""
    steps = migrations()
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    for step in steps:
        parts = statements(step.text)
        assert "".join(parts).strip() == step.text.strip()
        assert all(sqlite3.complete_statement(part) for part in parts)


def test_a_migration_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    """A step that fails half-way leaves the file at the step before, ready to try again."""
    path = tmp_path / "m.db"
    connection = sqlite3.connect(path, isolation_level=None)
    good = Migration(1, "one", "CREATE TABLE one (a);\n")
    broken = Migration(2, "two", "CREATE TABLE two (a);\nCREATE TABLE one (a);\n")
    repaired = Migration(2, "two", "CREATE TABLE two (a);\n")
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(connection, path, [good, broken])
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("one",)]
    assert migrate(connection, path, [good, repaired]) == 2
    assert migrate(connection, path, [good, repaired]) == 2
    connection.close()


def test_a_file_of_a_newer_version_is_refused_untouched(path: Path) -> None:
    """A newer layout raises SchemaTooNew with the way out, and not a byte of the file changes."""
    reopened(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA user_version = 999")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match=r"999.*pip install -U"):
        reopened(path)
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    """A SQLite file with somebody else's tables is not written into."""
    path = tmp_path / "theirs.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match="another program"):
        reopened(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    """Rubbish raises StoreCorrupt naming file and way out, and stays as it is."""
    path = tmp_path / "rubbish.db"
    path.write_bytes(b"this is no database at all. " * 400)
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match=r"rubbish\.db.*backup"):
        reopened(path)
    assert path.read_bytes() == before


def test_a_damaged_page_is_a_typed_error(path: Path) -> None:
    """Damage inside the file comes out as StoreCorrupt from reads and as lines from `verify`."""
    with reopened(path) as store:
        store.apply([added(*[f"i{n}" for n in range(500)], text="long text " * 50)])
    size = path.stat().st_size
    with path.open("r+b") as file:
        for place in range(60 * 4096, size, 4096):
            file.seek(place)
            file.write(b"\xff" * 4096)
    with reopened(path) as store:
        with pytest.raises(StoreCorrupt, match="backup"):
            store.find(ItemFilter(), limit=1000)
        assert store.verify() != []


@pytest.mark.parametrize("place", ["file-as-folder", "folder-as-file", "no-such-root"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    """A path that cannot be opened raises StoreUnavailable with the path and the setting to change."""
    if place == "file-as-folder":
        (tmp_path / "file").write_text("x")
        path = tmp_path / "file" / "memory.db"
    elif place == "folder-as-file":
        path = tmp_path / "folder"
        path.mkdir()
    else:
        path = Path("/proc/nowhere/memory.db")
    with pytest.raises(StoreUnavailable, match=f"{path}.*MEMOS_STORE__PATH"):
        reopened(path)


def test_a_read_only_file_is_named(path: Path) -> None:
    """A file that SQLite may not write raises StoreUnavailable on the write, and reads go on."""
    with reopened(path) as store:
        store.apply([added("a")])
        store._database._writer.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreUnavailable, match="writable"):
            store.apply([added("b")])
        store._database._writer.execute("PRAGMA query_only = OFF")
        assert [item.id for item in store.find(ItemFilter()).items] == ["a"]


def test_a_full_disk_undoes_the_whole_change(store: SqliteStore) -> None:
    """When the disk is full the call raises StoreUnavailable and nothing of it is kept; later writes work."""
    store.apply([added("a")])
    before = (store.seq("c"), store.journal(), store.marks(limit=9))
    writer = store._database._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages + 20}")
    big = added(*[f"b{n}" for n in range(400)], text="a long text " * 100)
    with pytest.raises(StoreUnavailable, match=r"full.*free some space"):
        store.apply_once("K", [TouchItems(("a",), "used"), big])
    assert (store.seq("c"), store.journal(), store.marks(limit=9)) == before
    assert store.verify() == []
    writer.execute("PRAGMA max_page_count = 1000000")
    assert store.apply_once("K", [TouchItems(("a",), "used"), big]).fresh
    assert store.find(ItemFilter()).total == 401
    assert store.verify() == []


def test_a_locked_file_is_waited_for_and_then_named(path: Path) -> None:
    """A write waits for another process up to the time-out, then raises StoreUnavailable, unchanged."""
    other = None
    with SqliteStore(path, clock=ManualClock(), busy_timeout_s=0.05) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="MEMOS_STORE__BUSY_TIMEOUT_S"):
            store.apply([added("a")])
        assert store.find(ItemFilter()).total == 0  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        store.apply([added("a")])
        assert store.find(ItemFilter()).total == 1


def test_a_writing_thread_is_waited_for_and_then_named(path: Path) -> None:
    """A second thread's write is bounded by the same time-out."""
    with SqliteStore(path, clock=ManualClock(), busy_timeout_s=0.05) as store:
        errors: list[Exception] = []

        def write() -> None:
            try:
                store.apply([added("a")])
            except StoreUnavailable as error:
                errors.append(error)

        with store._database.write():
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
        assert "another thread" in str(errors[0])


def test_too_many_open_views_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers are bounded: one view too many raises StoreUnavailable, and a closed one makes room."""
    monkeypatch.setattr("memos.memory.sqlite.connection.READERS_MAX", 2)
    with SqliteStore(path, clock=ManualClock(), busy_timeout_s=0.02) as store, store.read("a"):
        with store.read("b"), pytest.raises(StoreUnavailable, match="views"), store.read("c"):
            pass
        with store.read("c") as view:
            assert view.size == 0


def test_a_closed_store_says_so(path: Path) -> None:
    """After close every call raises StoreUnavailable; closing again does nothing, and an open view ends well."""
    store = reopened(path)
    store.apply([added("a")])
    with store.read("c") as view:
        store.close()
        assert view.size == 1
        assert len(view.items([1])) == 1
    store.close()
    for call in (
        lambda: store.get(["a"]),
        lambda: store.apply([added("b")]),
        lambda: store.read("c").__enter__(),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            call()


def test_errors_of_the_callers_block_pass_as_they_are(store: SqliteStore) -> None:
    """What a caller raises inside `with store.read(...)` is not taken for a fault of the store."""
    with pytest.raises(OverflowError, match="mine"), store.read("c"):
        raise OverflowError("mine")


def test_processes_may_open_a_new_file_together(path: Path) -> None:
    """Several processes that make the same file at once agree on one layout and one store id."""
    program = (
        "import sys; from pathlib import Path; from memos.clock import SystemClock;"
        "from memos.memory.sqlite import SqliteStore;"
        "sys.stdin.read(1); store = SqliteStore(Path(sys.argv[1]), clock=SystemClock());"
        "print(store.store_id); print(store.verify()); store.close()"
    )
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for _ in range(3)
    ]
    for process in starting:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    answers = {process.communicate()[0] for process in starting}
    assert [process.returncode for process in starting] == [0, 0, 0]
    assert len(answers) == 1
    assert answers.pop().endswith("[]\n")
