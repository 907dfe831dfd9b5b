"""`SqliteStore`: the memory store in one file."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path

from memos.clock import Clock
from memos.memory.item import Capacities
from memos.memory.relational.store import VECTOR_CACHE_BYTES_MAX, WEB_LOGS_MAX, RelationalStore
from memos.memory.relational.verify import faults
from memos.memory.sqlite.backup import copy_database
from memos.memory.sqlite.connection import SqliteDatabase

BUSY_TIMEOUT_S = 10.0


class SqliteStore(RelationalStore):
    """Fulfils `memos.memory.store.MemoryStore` with one file. Usable at once; close it, or use `with`.

    Raises StoreUnavailable (cannot be written), StoreCorrupt, SchemaTooNew when it opens.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        capacities: Capacities | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        vector_cache_bytes_max: int = VECTOR_CACHE_BYTES_MAX,
        web_logs_max: int = WEB_LOGS_MAX,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._file = SqliteDatabase(Path(path), busy_timeout_s=busy_timeout_s)
        super().__init__(
            self._file,
            clock=clock,
            capacities=capacities,
            vector_cache_bytes_max=vector_cache_bytes_max,
            web_logs_max=web_logs_max,
            random_bytes=random_bytes,
        )

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def describe(self) -> dict[str, str]:
        """What doctor and health tell of the store."""
        return {
            "backend": f"SQLite {sqlite3.sqlite_version}",
            "place": str(self.path),
            "vectors": "every vector is compared, in memory",
            "durability": "write-ahead log, synchronous FULL",
        }

    def verify(self) -> list[str]:
        """Reads the whole file; one line per fault. A file that cannot be read to the end says so."""
        found: list[str] = []
        with self._file.read() as tables:
            try:
                found.extend(faults(tables))
            except sqlite3.DatabaseError as error:
                found.append(f"file: {error}")
        return found

    def backup(self, path: Path) -> int:
        """Copy the whole file, as it is at one moment, to a new file; returns its bytes. Writers go on."""
        with self._file.read() as tables:
            return copy_database(tables.connection, path)
