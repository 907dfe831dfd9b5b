"""The queue's file: one writing and one reading connection, opened, locked and closed.

Guarantees: a write is committed or rolled back whole; what `durable` writes commit survives a power cut
(synchronous=FULL), what others commit survives a killed process but may be undone, the newest first, by a
power cut (NORMAL). Reads see one moment. The file is readable by its owner only.

A closed file still answers: each use then opens a connection of its own and closes it again, so that work
that was running at the close can be settled.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memos.errors import QueueUnavailable
from memos.folder_lock import opening_alone
from memos.mem_scheduler.queues.sqlite.faults import translating
from memos.mem_scheduler.queues.sqlite.schema import check, migrate


class QueueFile:
    """`write` and `data_version` want the queue's lock held; `read` locks by itself."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._read_lock = threading.Lock()
        self._durable: bool | None = False  # None: not known
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        _prepare(path)
        with opening_alone(path, timeout_s=busy_timeout_s, unavailable=QueueUnavailable), translating(path):
            writer = self._connect()
            try:
                check(writer, path)  # before anything is written
                _set_wal(writer, path)
                migrate(writer, path)
            except BaseException:
                writer.close()
                raise
            self._writer = writer
            self._reader = self._connect()

    @contextmanager
    def write(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed when the block ends, rolled back when it raises."""
        with translating(self.path):
            connection = self._writer or self._connect()
            try:
                _end_transaction(connection)
                if durable != self._durable or connection is not self._writer:
                    self._durable = None  # whatever interrupts this, the next call says it again
                    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    self._durable = durable
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    _end_transaction(connection)
                    raise
            finally:
                if connection is not self._writer:
                    connection.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One moment of the whole file."""
        with self._read_lock, translating(self.path):
            connection = self._reader or self._connect()
            try:
                _end_transaction(connection)
                try:
                    connection.execute("BEGIN")
                    yield connection
                finally:
                    _end_transaction(connection)
            finally:
                if connection is not self._reader:
                    connection.close()

    def checkpoint(self) -> bool:
        """Bring everything into the file itself and empty the log beside it, where older pages stand.

        False while somebody still reads them. Wants the queue's lock held.
        """
        with self._read_lock, translating(self.path):
            connection = self._writer or self._connect()
            try:
                busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                if connection is not self._writer:
                    connection.close()
        return busy == 0

    def data_version(self) -> int:
        """A number that changes when another connection, of this process or another, has written."""
        if self._writer is None:
            return 0
        with translating(self.path):
            version: int = self._writer.execute("PRAGMA data_version").fetchone()[0]
        return version

    def close(self) -> None:
        """Close both connections. Safe to call twice. Wants the queue's lock held."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        with self._read_lock:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # transactions are begun by hand
            check_same_thread=False,  # one thread at a time, by lock
            cached_statements=256,
        )
        tune(connection)
        return connection


def tune(connection: sqlite3.Connection) -> None:
    """How every connection to a queue's file is set; a durable write raises `synchronous` to FULL."""
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # what is settled is overwritten, not only freed
    connection.execute("PRAGMA cache_size = -16384")  # 16 MiB
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA wal_autocheckpoint = 8000")  # 32 MiB: pages written often go home once
    connection.execute("PRAGMA journal_size_limit = 67108864")


def _end_transaction(connection: sqlite3.Connection) -> None:
    """Roll back what is open: a full disk does that by itself, an interrupted call left it to the next one."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _prepare(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Only a file that is not there is opened: closing a second descriptor of a database would drop
        # the locks that this process holds on it (POSIX).
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise QueueUnavailable(
            f"{path} cannot be written ({error.strerror or error}); make its folder writable, "
            "or point MEMOS_HOME elsewhere"
        ) from error


def _set_wal(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise QueueUnavailable(
            f"{path}: this file system cannot do write-ahead logging (mode {mode!r}); "
            "put the file on a local disk"
        )
