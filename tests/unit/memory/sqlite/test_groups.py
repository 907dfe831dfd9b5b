"""Writes of many threads share COMMITs: each is durable when it returns, whole, and nobody else's fault."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memos.errors import StoreUnavailable
from memos.memory.sqlite.groups import MEMBERS_MAX, SharedWriter


class Place:
    """A file with one table, its writer, and what the writer was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.05)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE kept (name TEXT UNIQUE)")
        self.said: list[str] = []
        connection.set_trace_callback(self.said.append)
        self.writer = SharedWriter(connection, path, timeout_s=30)

    def names(self) -> set[str]:
        """As another connection sees them: what is committed."""
        with sqlite3.connect(self.path) as other:
            return {row[0] for row in other.execute("SELECT name FROM kept")}

    def put(self, name: str, *, alone: bool = False) -> None:
        with self.writer.transaction(alone=alone) as connection:
            connection.execute("INSERT INTO kept VALUES (?)", (name,))

    def held(self, *bodies: Callable[[], None]) -> list[BaseException | None]:
        """Run each body on a thread of its own; all of them wait while the first transaction is open."""
        ended: list[BaseException | None] = [None] * len(bodies)

        def run(number: int, body: Callable[[], None]) -> None:
            try:
                body()
            except BaseException as error:
                ended[number] = error

        threads = [threading.Thread(target=run, args=(n, body)) for n, body in enumerate(bodies)]
        with self.writer.transaction() as connection:
            connection.execute("INSERT INTO kept VALUES ('first')")
            for thread in threads:
                thread.start()
            while self.writer._waiting < len(bodies):
                time.sleep(0.001)
        for thread in threads:
            thread.join()
        return ended


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "kept.db")
    yield made
    made.writer.connection.close()


def test_those_who_wait_share_a_commit(place: Place) -> None:
    """Ten writes behind an open one end with it in one COMMIT, and each is on disk when it returns."""
    seen: list[bool] = []

    def body(name: str) -> None:
        place.put(name)
        seen.append(name in place.names())

    assert place.held(*[lambda n=n: body(f"n{n}") for n in range(10)]) == [None] * 10
    assert seen == [True] * 10
    assert place.said.count("COMMIT") == 1
    assert len(place.names()) == 11


def test_nothing_is_on_disk_before_anybody_is_told(place: Place) -> None:
    """The first one does not return while its changes stand in an open transaction."""
    told: list[set[str]] = []

    def second() -> None:
        with place.writer.transaction() as connection:
            connection.execute("INSERT INTO kept VALUES ('second')")
            told.append(place.names())

    place.held(second)
    assert told == [set()] and place.names() == {"first", "second"}


def test_a_failing_member_takes_back_its_own(place: Place) -> None:
    """An error in the middle of a group costs its own changes, and the others are kept."""

    def fails() -> None:
        with place.writer.transaction() as connection:
            connection.execute("INSERT INTO kept VALUES ('mine')")
            connection.execute("INSERT INTO kept VALUES ('first')")

    ended = place.held(lambda: place.put("a"), fails, lambda: place.put("b"))
    assert ended[0] is None and ended[2] is None and ended[1] is not None
    assert place.names() == {"first", "a", "b"}


def test_a_failing_member_at_the_end_commits_the_others(place: Place) -> None:
    """Where nobody follows the one that fails, those before it are not left waiting."""

    def fails() -> None:
        with place.writer.transaction() as connection:
            connection.execute("INSERT INTO kept VALUES ('mine')")
            raise ValueError("no")

    [error] = place.held(fails)
    assert isinstance(error, ValueError) and place.names() == {"first"}


def test_a_failing_commit_fails_for_everybody(place: Place) -> None:
    """Where the COMMIT cannot be done nothing is kept and every member is told; the next write works."""
    reader = sqlite3.connect(place.path)
    place.writer.connection.execute("PRAGMA foreign_keys = ON")
    place.writer.connection.execute("CREATE TABLE owner (id INTEGER PRIMARY KEY)")
    place.writer.connection.execute(
        "CREATE TABLE owned (id INTEGER REFERENCES owner (id) DEFERRABLE INITIALLY DEFERRED)"
    )

    def breaks() -> None:
        with place.writer.transaction() as connection:
            connection.execute("INSERT INTO owned VALUES (7)")  # found at COMMIT

    ended: list[BaseException | None] = []

    def outer() -> None:
        ended.extend(place.held(lambda: place.put("a"), breaks))

    with pytest.raises(Exception, match="FOREIGN KEY"):
        outer()
    assert place.names() == set()
    place.put("later")
    assert place.names() == {"later"}
    reader.close()


def test_a_group_is_bounded(place: Place) -> None:
    """Of many who wait the MEMBERS_MAX-th commits, so that the oldest do not wait for all."""
    many = 2 * MEMBERS_MAX
    place.held(*[lambda n=n: place.put(f"n{n}") for n in range(many)])
    assert len(place.names()) == many + 1
    assert 3 <= place.said.count("COMMIT") <= 4


def test_alone_shares_nothing(place: Place) -> None:
    """A long block commits what was open before it, and is over before the next one begins."""
    place.held(lambda: place.put("long", alone=True), lambda: place.put("after"))
    assert place.names() == {"first", "long", "after"}
    order = [one for one in place.said if one == "COMMIT" or one.startswith("INSERT")]
    at = next(number for number, one in enumerate(order) if "'long'" in one)
    assert order[at + 1] == "COMMIT" and (at == 0 or order[at - 1] == "COMMIT")


def test_exclusive_is_outside_of_transactions(place: Place) -> None:
    """Whoever needs the connection itself finds no transaction open, and what was done on disk."""

    def looks() -> None:
        with place.writer.exclusive() as connection:
            assert not connection.in_transaction
            assert "first" in place.names()

    assert place.held(looks, lambda: place.put("a")) == [None, None]
    assert place.names() == {"first", "a"}


def test_who_waits_too_long_leaves_nobody_behind(place: Place) -> None:
    """A thread whose time is over is refused, and the one before it commits for itself."""
    place.writer._timeout_s = 0.05
    refused = threading.Event()

    def waits() -> None:
        with pytest.raises(StoreUnavailable, match="another thread"):
            place.put("late")
        refused.set()

    with place.writer.transaction() as connection:
        connection.execute("INSERT INTO kept VALUES ('slow')")
        thread = threading.Thread(target=waits)
        thread.start()
        assert refused.wait(30)
    thread.join()
    assert place.names() == {"slow"} and place.writer._waiting == 0


def test_an_interrupted_wait_passes_its_turn_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a thread that was just called ends the group that it was left with."""
    plain = place.writer._turn.wait_for

    def interrupted(predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        there = plain(predicate, timeout)
        if threading.current_thread().name == "struck":
            raise KeyboardInterrupt
        return there

    monkeypatch.setattr(place.writer._turn, "wait_for", interrupted)

    def struck() -> None:
        threading.current_thread().name = "struck"
        with pytest.raises(KeyboardInterrupt):
            place.put("never")

    assert place.held(struck) == [None]
    assert place.names() == {"first"}
    place.put("later")
    assert place.names() == {"first", "later"}


def test_many_threads_at_random(place: Place) -> None:
    """Under load every write that returned is there and every one that raised is not."""
    kept: set[str] = set()
    lock = threading.Lock()

    def work(number: int) -> None:
        for turn in range(40):
            name = f"{number}-{turn}"
            try:
                with place.writer.transaction(alone=turn % 17 == 0) as connection:
                    connection.execute("INSERT INTO kept VALUES (?)", (name,))
                    if (number + turn) % 5 == 0:
                        raise ValueError(name)
            except ValueError:
                continue
            with lock:
                kept.add(name)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.names() == kept and len(kept) == 12 * 40 * 4 // 5
