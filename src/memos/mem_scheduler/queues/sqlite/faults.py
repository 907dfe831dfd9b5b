"""SQLite's errors in the queue's words: which file, what happened, what to do about it.

The text of a statement or of a message never gets into an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memos.errors import InvalidInput, QueueError, QueueUnavailable

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


def translate(error: sqlite3.Error, path: Path) -> QueueError:
    """The project's error for one of SQLite's."""
    code: int | None = error.__dict__.get("sqlite_errorcode")  # absent where Python raised it itself
    primary = -1 if code is None else code & 0xFF
    if primary in _BUSY:
        return QueueUnavailable(
            f"{path} is locked: another process has been writing for too long; nothing of this call was "
            "done, try again"
        )
    if primary == sqlite3.SQLITE_FULL:
        return QueueUnavailable(
            f"the disk that holds {path} is full (or the file reached its limit); nothing of this call was "
            "done and what was queued before is kept: free some space and try again"
        )
    if primary in _CORRUPT:
        return QueueError(
            f"{path} is not a healthy database ({error}); move the file away to start with an empty queue "
            "(chained tasks come back from the memory store), or restore it from a backup"
        )
    if primary in _UNWRITABLE:
        return QueueUnavailable(
            f"{path} cannot be opened for writing ({error}); check that the folder exists and is writable, "
            "or point MEMOS_HOME elsewhere"
        )
    if primary == sqlite3.SQLITE_IOERR:
        return QueueUnavailable(f"reading or writing {path} failed ({error}); check the disk, then try again")
    return QueueError(f"{path}: {error}")


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Errors of SQLite leave the block as `QueueError`, text that is not valid Unicode as InvalidInput."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except UnicodeEncodeError as error:
        raise InvalidInput("a text to be queued holds a lone surrogate; it is not valid text") from error
    except OverflowError as error:
        raise InvalidInput("a number to be queued is out of range (64 bits)") from error
