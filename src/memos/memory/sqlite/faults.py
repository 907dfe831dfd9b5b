"""SQLite's errors in the project's words: which file, what happened, what to do about it.

The text of a statement or of a memory never gets into an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memos.errors import InvalidInput, StoreCorrupt, StoreError, StoreUnavailable

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


def translate(error: sqlite3.Error, path: Path) -> StoreError:
    """The project's error for one of SQLite's."""
    code = _primary_code(error)
    if code in _BUSY:
        return StoreUnavailable(
            f"{path} is locked: another process has been writing for too long; try again, "
            "or raise MEMOS_STORE__BUSY_TIMEOUT_S"
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailable(
            f"the disk that holds {path} is full (or the file reached its limit); nothing of this "
            "change was kept: free some space and try again"
        )
    if code in _CORRUPT:
        return StoreCorrupt(
            f"{path} is not a healthy database ({error}); restore it from a backup, or move the file "
            "away to start with an empty one"
        )
    if code in _UNWRITABLE:
        return StoreUnavailable(
            f"{path} cannot be opened for writing ({error}); check that the folder exists and is "
            "writable, or point MEMOS_STORE__PATH elsewhere"
        )
    if code == sqlite3.SQLITE_IOERR:
        return StoreUnavailable(f"reading or writing {path} failed ({error}); check the disk, then try again")
    return StoreError(f"{path}: {error}")


def _primary_code(error: sqlite3.Error) -> int:
    """The primary result code (the low byte); -1 for errors that Python raised itself."""
    code: int | None = error.__dict__.get("sqlite_errorcode")
    return -1 if code is None else code & 0xFF


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Errors of SQLite leave the block as `StoreError`, text that is not valid Unicode as InvalidInput."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except UnicodeEncodeError as error:
        raise InvalidInput("a text to be stored holds a lone surrogate; it is not valid text") from error
    except OverflowError as error:
        raise InvalidInput("a number to be stored is out of range (64 bits)") from error
