"""Connections to one file: a single writer, which threads share (`groups`), and a bounded pool of readers.

Guarantees: a write transaction is committed or rolled back whole; a reader's transaction is one
snapshot, fixed when it begins; errors come out as `StoreError`; the file is readable by its owner only.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from memos import tracing
from memos.errors import StoreUnavailable
from memos.folder_lock import opening_alone
from memos.memory.sqlite.faults import translating
from memos.memory.sqlite.groups import SharedWriter
from memos.memory.sqlite.schema import check, migrate
from memos.memory.sqlite.tables import SqliteTables

READERS_MAX = 64  # views open at the same time
READERS_IDLE_MAX = 8
_SNAPSHOT = "SELECT 1 FROM meta LIMIT 1"


class SqliteDatabase:
    """The file, its writer and its readers: fulfils `relational.tables.Database`. Thread-safe."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self.path = path
        self.name = str(path)
        self._busy_timeout_s = busy_timeout_s
        self._pool_lock = threading.Lock()
        self._idle: deque[sqlite3.Connection] = deque()
        self._places = threading.BoundedSemaphore(READERS_MAX)
        self._closed = False
        self._opened_by = os.getpid()
        _prepare_file(path)
        with opening_alone(path, timeout_s=busy_timeout_s, unavailable=StoreUnavailable), translating(path):
            self._writer = self._connect()
            try:
                check(self._writer, path)  # before anything is written
                _set_wal(self._writer, path)
                migrate(self._writer, path)
            except BaseException:
                self._writer.close()
                raise
        self._shared = SharedWriter(self._writer, path, timeout_s=busy_timeout_s, refuse=self._refuse_closed)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # transactions are begun by hand
            check_same_thread=False,  # one thread at a time, by lock and by pool
            cached_statements=256,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")  # a commit that returned survives a power cut
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not only freed
        connection.execute("PRAGMA cache_size = -16384")  # 16 MiB
        connection.execute("PRAGMA journal_size_limit = 67108864")
        return connection

    @contextmanager
    def write(self, *, alone: bool = False) -> Iterator[SqliteTables]:
        """One write transaction: committed when the block has ended, rolled back when it raises."""
        self._refuse_fork()
        with (
            tracing.span("store transaction", db_system_name="sqlite"),
            self._shared.transaction(alone=alone) as connection,
        ):
            yield SqliteTables(connection)

    def translating(self) -> AbstractContextManager[None]:
        """SQLite's errors leave the block as `StoreError`."""
        return translating(self.path)

    def checkpoint(self) -> bool:
        """Bring everything into the file itself and empty the log beside it, where older pages stand.

        False while a reader still needs them.
        """
        self._refuse_fork()
        with self._shared.exclusive() as connection:
            self._refuse_closed()
            busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            return busy == 0

    @contextmanager
    def read(self, cube_ids: Sequence[str] | None = None) -> Iterator[SqliteTables]:
        """One snapshot of the whole file for a block that is the store's own."""
        with translating(self.path), self.snapshot() as tables:
            yield tables

    @contextmanager
    def snapshot(self, cube_id: str = "") -> Iterator[SqliteTables]:
        """One snapshot of the whole file for a caller's block, whose own errors pass as they are."""
        self._refuse_fork()
        if not self._places.acquire(timeout=self._busy_timeout_s):
            raise StoreUnavailable(f"{self.path}: {READERS_MAX} views are open already; close some")
        try:
            with translating(self.path):
                connection = self._take()
            try:
                with translating(self.path):
                    connection.execute("BEGIN")
                    connection.execute(_SNAPSHOT).fetchall()
                yield SqliteTables(connection)
            finally:
                self._give_back(connection)
        finally:
            self._places.release()

    def _take(self) -> sqlite3.Connection:
        with self._pool_lock:
            self._refuse_closed()
            if self._idle:
                return self._idle.pop()
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        reusable = True
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            reusable = False  # the snapshot was only read: nothing is lost with the connection
        with self._pool_lock:
            if reusable and not self._closed and len(self._idle) < READERS_IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.path}: the store is closed; open it again")

    def _refuse_fork(self) -> None:
        """Before any lock: a lock that a thread of the parent held at the fork is never released here."""
        if os.getpid() != self._opened_by:
            raise StoreUnavailable(
                f"{self.path}: the store was opened before this process was forked; take the names from "
                "memos.api.routers.server_router anew, or build a runtime in the child"
            )

    def close(self) -> None:
        """Close everything that is not in use; what is, when it is given back. Safe to call twice.

        In a forked child it does nothing: closing there would drop the parent's locks on the file
        (https://www.sqlite.org/howtocorrupt.html, section 2.6).
        """
        if os.getpid() != self._opened_by:
            return
        with self._pool_lock:
            idle, self._closed = list(self._idle), True
            self._idle.clear()
        for connection in idle:
            connection.close()
        with self._shared.exclusive() as writer:  # a write that runs is let through
            writer.close()


def _prepare_file(path: Path) -> None:
    """Make the folder (0700) and the file (0600) where they are missing. Raises StoreUnavailable."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Only a file that is not there is opened: closing a second descriptor of a database would drop
        # the locks that this process holds on it (POSIX).
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be written ({error.strerror or error}); make its folder writable, "
            "or point MEMOS_HOME or MEMOS_STORE__PATH elsewhere"
        ) from error


def _set_wal(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnavailable(
            f"{path}: this file system cannot do write-ahead logging (mode {mode!r}); "
            "put the file on a local disk"
        )
