"""Write transactions of many threads that share a COMMIT, which is what a durable write waits for.

One thread at a time works on the connection. Whoever is done while others wait leaves the transaction open for
them, each behind a savepoint of its own, and waits; the last one, or the MEMBERS_MAX-th, commits for all. So a
write that is alone costs what it did, and under load a sync of the disk is divided by those who wait for it.

Guarantees: who leaves a transaction without an error is on disk; one that fails takes back its own changes and
nobody else's; when the COMMIT fails, it fails for everybody in it. Nobody waits for a group without somebody who
will end it: a thread that gives up waiting for its turn is counted off before the next one looks.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from memos.errors import StoreUnavailable
from memos.memory.sqlite.faults import translate, translating

MEMBERS_MAX = 32  # the oldest of a group waits for so many at most, and other processes for the file


class _Group:
    """Changes that are committed together."""

    __slots__ = ("failure", "members", "over")

    def __init__(self) -> None:
        self.members = 0
        self.over = threading.Event()
        self.failure: sqlite3.Error | None = None


class SharedWriter:
    """The one connection that writes. Thread-safe."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        timeout_s: float,
        refuse: Callable[[], None] = lambda: None,
    ) -> None:
        """`refuse` raises, in the turn of a thread, where nothing may be written any more."""
        self._refuse = refuse
        self.connection = connection
        self._path = path
        self._timeout_s = timeout_s
        self._turn = threading.Condition(threading.Lock())
        self._busy = False  # a thread works on the connection
        self._waiting = 0  # threads that will work on it next
        self._open: _Group | None = None

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[sqlite3.Connection]:
        """A write transaction: on disk when the block has ended, taken back when it raises.

        `alone`: shares no COMMIT, so that nobody waits for a long block. Raises StoreError.
        """
        self._enter()
        try:
            self._refuse()
            with translating(self._path):
                if alone:
                    self._commit()
                group = self._begin()
                try:
                    yield self.connection
                    if group.members:
                        self.connection.execute("RELEASE member")
                except BaseException:
                    self._undo(group)
                    raise
            group.members += 1
        finally:
            self._leave(stays_open=not alone)
        group.over.wait()
        if group.failure is not None:
            raise translate(group.failure, self._path) from group.failure

    @contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """The connection outside of any transaction, once what runs is through."""
        self._enter()
        try:
            self._commit()
            with translating(self._path):
                yield self.connection
        finally:
            self._leave(stays_open=False)

    # -- turns ------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        interrupt: BaseException | None = None
        with self._turn:
            self._waiting += 1
            try:
                there = self._turn.wait_for(lambda: not self._busy, self._timeout_s)
            except BaseException as error:  # Ctrl-C; the wake-up that it may have eaten is passed on below
                there, interrupt = not self._busy, error
            self._waiting -= 1
            self._busy = self._busy or there
        if there and interrupt is None:
            return
        if interrupt is None:
            raise StoreUnavailable(
                f"{self._path}: another thread has been writing for {self._timeout_s:g} s; try again"
            )
        if there:
            self._leave(stays_open=True)
        raise interrupt

    def _leave(self, *, stays_open: bool) -> None:
        """Let the next one work, with the group where it may join, else after a COMMIT."""
        while True:
            with self._turn:
                group = self._open
                joins = stays_open and self._waiting and group is not None and group.members < MEMBERS_MAX
                if group is None or joins:
                    self._busy = False
                    self._turn.notify()
                    return
            self._commit()

    # -- transactions, in the turn of the thread ----------------------------------------------------------

    def _begin(self) -> _Group:
        if self._open is None:
            self.connection.execute("BEGIN IMMEDIATE")
            self._open = _Group()
        elif self._open.members:
            self.connection.execute("SAVEPOINT member")
        return self._open

    def _undo(self, group: _Group) -> None:
        """Take back what this thread changed; where that cannot be done, what the whole group did."""
        try:
            if not self.connection.in_transaction:  # a full disk rolls back by itself, with all that is in it
                self._end(group, sqlite3.OperationalError("another change undid the transaction"))
            elif group.members:
                self.connection.execute("ROLLBACK TO member")
                self.connection.execute("RELEASE member")
            else:
                self.connection.execute("ROLLBACK")
                self._end(group, None)
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            self._end(group, error)

    def _commit(self) -> None:
        """End the open group, if there is one. Its members are told; this raises nothing of theirs."""
        group = self._open
        if group is None:
            return
        failure: sqlite3.Error | None = None
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            failure = error
            with contextlib.suppress(sqlite3.Error):
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
        finally:
            self._end(group, failure)

    def _end(self, group: _Group, failure: sqlite3.Error | None) -> None:
        group.failure = failure
        self._open = None
        group.over.set()
