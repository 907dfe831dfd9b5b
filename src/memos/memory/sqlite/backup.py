"""Whole copies of the file: out of a running store, and back into an empty place.

A copy is made by SQLite's backup interface in one step over a read transaction, so it is one moment of the
store however much is written meanwhile, and needs neither its write-ahead log nor a pause. The new file
appears under its name only when it is complete and on disk, is readable by its owner alone, and never
takes the place of another.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from memos.errors import InvalidInput, StoreCorrupt, StoreUnavailable
from memos.memory.sqlite.faults import translating
from memos.memory.sqlite.schema import APPLICATION_ID

_SIDE_FILES = ("-wal", "-shm", "-journal")


def copy_database(source: sqlite3.Connection, path: Path) -> int:
    """Copy what `source` sees to the new file `path`; returns its bytes.

    Raises InvalidInput when the file is there already, StoreUnavailable when it cannot be written.
    """
    with _claimed(path) as partial:
        with translating(partial), closing(sqlite3.connect(partial)) as target:
            source.backup(target)
            # One file that needs no other: it becomes a write-ahead one again when a store opens it.
            target.execute("PRAGMA journal_mode = DELETE").fetchall()
        return partial.stat().st_size


def restore_database(backup: Path, path: Path) -> int:
    """Put a copy that `copy_database` made in the place of a store that is not there; returns its bytes.

    Raises InvalidInput when `path` (or what a store left beside it) exists or `backup` does not,
    StoreCorrupt when the copy is no healthy store.
    """
    if not backup.is_file():
        raise InvalidInput(f"{backup} is not a file; give one that `memos backup` wrote")
    left = [side for side in (Path(f"{path}{suffix}") for suffix in _SIDE_FILES) if side.exists()]
    if left:
        raise InvalidInput(f"{left[0]} is left of another store: move it away first")
    with (
        translating(backup),
        closing(sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro", uri=True)) as source,
    ):
        found = source.execute("PRAGMA application_id").fetchone()[0]
        if found != APPLICATION_ID:
            raise StoreCorrupt(f"{backup} is a database of another program (application id {found:#x})")
        [(verdict,)] = source.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise StoreCorrupt(f"{backup} is damaged ({verdict}); take an older copy")
        return copy_database(source, path)


@contextmanager
def _claimed(path: Path) -> Iterator[Path]:
    """A partial file beside `path`, which becomes `path` when the block ends and is gone when it raises."""
    if not path.name:
        raise InvalidInput(f"{str(path)!r} is not the name of a file; give the name of a new file")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The name is taken first: whoever else makes the file meanwhile is refused, not overwritten.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        if path.exists():
            raise InvalidInput(f"{path} exists already; give the name of a new file") from error
        raise StoreUnavailable(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except BaseException as error:
        for unfinished in (partial, path):
            with contextlib.suppress(OSError):
                unfinished.unlink()
        if isinstance(error, OSError):
            raise StoreUnavailable(f"{path} cannot be written: {error.strerror or error}") from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
