"""Backups: one moment of a store that is being written, and back again."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from memos.clock import SystemClock
from memos.errors import InvalidInput, StoreCorrupt, StoreUnavailable
from memos.memory.item import MemoryItem
from memos.memory.sqlite import SqliteStore
from memos.memory.sqlite.backup import restore_database
from memos.memory.store import AddItems, IndexedItem, ItemFilter, ReplaceWorking, WorkingEntry


def opened(path: Path) -> SqliteStore:
    return SqliteStore(path, clock=SystemClock())


def pair(number: int) -> AddItems:
    """Two items that are only ever written together."""
    items = (
        MemoryItem(id=f"{side}-{number}", cube_id="c", user_id="u", memory=f"{side} {number}")
        for side in ("left", "right")
    )
    return AddItems(tuple(IndexedItem(one, {"word": 1}) for one in items))


def ids(store: SqliteStore) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = store.find(ItemFilter(), limit=1_000, cursor=cursor)
        found += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_a_backup_is_the_store(tmp_path: Path) -> None:
    """The copy opens as a store with the same items, working set, journal and id; it is one private file."""
    with opened(tmp_path / "memory.db") as store:
        store.apply([pair(1), ReplaceWorking("c", (WorkingEntry("left-1", 0.5, "why"),), 0, "set up")])
        size = store.backup(tmp_path / "copies" / "one.db")
        store.apply([pair(2)])
        with opened(tmp_path / "copies" / "one.db") as copy:
            assert sorted(ids(copy)) == ["left-1", "right-1"]
            assert copy.store_id == store.store_id
            assert copy.working("c") == store.working("c")
            assert copy.journal() == store.journal(limit=100)[2:]
            assert copy.verify() == []
    assert [file.name for file in (tmp_path / "copies").iterdir()] == ["one.db"]
    assert size == (tmp_path / "copies" / "one.db").stat().st_size
    assert (tmp_path / "copies" / "one.db").stat().st_mode & 0o077 == 0


def test_backups_while_a_writer_writes(tmp_path: Path) -> None:
    """Copies taken in the middle of many writes are whole: no half transaction, none that came back late."""
    with opened(tmp_path / "memory.db") as store:
        store.apply([pair(0)])
        stop, failures = threading.Event(), []
        written = [0]

        def write() -> None:
            try:
                while not stop.is_set():
                    store.apply([pair(written[0] + 1)])
                    written[0] += 1
            except BaseException as error:  # the thread's own: told to the test below
                failures.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        spans = []
        try:
            for number in range(8):
                before = written[0]
                while written[0] == before and not failures:  # the writer is in the middle of it
                    stop.wait(0.001)
                at_least = written[0]
                store.backup(tmp_path / f"{number}.db")
                spans.append((at_least, written[0] + 1))
        finally:
            stop.set()
            writer.join()
        assert failures == []
        for number, (at_least, at_most) in enumerate(spans):
            with opened(tmp_path / f"{number}.db") as copy:
                found = ids(copy)
                pairs = {one.partition("-")[2] for one in found}
                assert len(found) == 2 * len(pairs)
                assert at_least <= len(pairs) - 1 <= at_most
                assert copy.verify() == []
        assert store.verify() == []


def test_a_backup_takes_the_place_of_nothing(tmp_path: Path) -> None:
    """A name that is taken, the store's own included, is refused and untouched."""
    (tmp_path / "taken.db").write_bytes(b"mine")
    with opened(tmp_path / "memory.db") as store:
        store.apply([pair(1)])
        for name in ("taken.db", "memory.db"):
            with pytest.raises(InvalidInput, match="exists already"):
                store.backup(tmp_path / name)
        assert store.verify() == []
    assert (tmp_path / "taken.db").read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["/", "."])
def test_a_backup_needs_the_name_of_a_file(tmp_path: Path, place: str) -> None:
    """A path without a file name is refused, named."""
    with opened(tmp_path / "memory.db") as store, pytest.raises(InvalidInput, match="name of a new file"):
        store.backup(Path(place))


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A folder that cannot be made and a closed store are typed errors, and no file is left."""
    store = opened(tmp_path / "memory.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        store.backup(tmp_path / "file" / "below.db")
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.backup(tmp_path / "late.db")
    assert not (tmp_path / "late.db").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the copy cannot reach the disk, the error is typed and neither name is there."""

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with opened(tmp_path / "memory.db") as store:
        monkeypatch.setattr("memos.memory.sqlite.backup._sync", full)
        with pytest.raises(StoreUnavailable, match="No space left"):
            store.backup(tmp_path / "copies" / "one.db")
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_backup_is_restored(tmp_path: Path) -> None:
    """Into an empty place a backup becomes the store that it was, and can be written."""
    with opened(tmp_path / "memory.db") as store:
        store.apply([pair(1)])
        store.backup(tmp_path / "copy.db")
    restore_database(tmp_path / "copy.db", tmp_path / "new home" / "memory.db")
    with opened(tmp_path / "new home" / "memory.db") as restored:
        restored.apply([pair(2)])
        assert len(ids(restored)) == 4
        assert restored.verify() == []
    with opened(tmp_path / "copy.db") as copy:
        assert len(ids(copy)) == 2


def test_nothing_is_restored_over_a_store(tmp_path: Path) -> None:
    """Where a store is, or what one left behind, a restore is refused and changes nothing."""
    with opened(tmp_path / "memory.db") as store:
        store.apply([pair(1)])
        store.backup(tmp_path / "copy.db")
        with pytest.raises(InvalidInput, match=r"memory\.db"):
            restore_database(tmp_path / "copy.db", tmp_path / "memory.db")
        store.apply([pair(2)])
        assert len(ids(store)) == 4
    (tmp_path / "gone.db-wal").write_bytes(b"old")
    with pytest.raises(InvalidInput, match=r"gone\.db-wal"):
        restore_database(tmp_path / "copy.db", tmp_path / "gone.db")
    assert not (tmp_path / "gone.db").exists()


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    """A missing, foreign, empty or damaged file is a typed error; no store appears."""
    with opened(tmp_path / "memory.db") as store:
        store.apply([pair(number) for number in range(200)])
        store.backup(tmp_path / "copy.db")
    with pytest.raises(InvalidInput, match="not a file"):
        restore_database(tmp_path / "missing.db", tmp_path / "new.db")
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE t (a)")
    foreign.close()
    (tmp_path / "empty.db").write_bytes(b"")
    (tmp_path / "text.db").write_bytes(b"no database at all " * 500)
    shutil.copy(tmp_path / "copy.db", tmp_path / "damaged.db")
    with (tmp_path / "damaged.db").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 8 * 4096)
    for name in ("foreign.db", "empty.db", "text.db", "damaged.db"):
        with pytest.raises(StoreCorrupt):
            restore_database(tmp_path / name, tmp_path / "new.db")
        assert not (tmp_path / "new.db").exists()
