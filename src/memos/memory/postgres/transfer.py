"""The whole store as one SQLite file, and back: how a store is copied, and how one moves between backends."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from memos.memory.postgres.connection import PostgresDatabase
from memos.memory.relational.transfer import copy_store
from memos.memory.sqlite.backup import copy_database, restore_database
from memos.memory.sqlite.connection import SqliteDatabase

_BUSY_TIMEOUT_S = 10.0


def copy_to_file(database: PostgresDatabase, path: Path) -> int:
    """Write the store, as it is at one moment, to the new file `path`; returns its bytes. Writers go on.

    Raises InvalidInput when the file is there already, StoreUnavailable when it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="memos-copy-", ignore_cleanup_errors=True) as folder:
        between = Path(folder) / "store.db"
        with closing(SqliteDatabase(between, busy_timeout_s=_BUSY_TIMEOUT_S)) as file:
            with database.read() as source, file.write() as target:
                copy_store(source, target)
            file.checkpoint()
        with closing(sqlite3.connect(between)) as whole:
            return copy_database(whole, path)


def fill_from_file(database: PostgresDatabase, backup: Path) -> int:
    """Fill an empty store from what `memos backup` wrote, of this version or an older one; how many items.

    Raises InvalidInput when the store holds something or there is no such file, StoreCorrupt when the file is
    no healthy store, SchemaTooNew.
    """
    with tempfile.TemporaryDirectory(prefix="memos-fill-", ignore_cleanup_errors=True) as folder:
        between = Path(folder) / "store.db"
        restore_database(backup, between)
        with (
            closing(SqliteDatabase(between, busy_timeout_s=_BUSY_TIMEOUT_S)) as file,
            file.read() as source,
            database.write() as target,
        ):
            return copy_store(source, target)
