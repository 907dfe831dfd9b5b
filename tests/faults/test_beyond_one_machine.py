"""Servers and workers over a private PostgreSQL and a private Redis, each killed, cut off, delayed and stalled while
users add, search and chat: nothing acknowledged is lost, nothing applied twice, nobody sees what another user said.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from benchmarks.soak import strikes
from benchmarks.soak.audit import audit, left, settled
from benchmarks.soak.clients import Crowd
from benchmarks.soak.site import Site, until
from tests.postgres import required
from tests.services import private_redis_is_there

LEASE_S = 2.0
SILENCE_S = 3.0  # after which a statement is given up; a connection that says nothing, a little later
SETTINGS = {
    "MEMOS_MODELS__EMBEDDER": "none",
    "MEMOS_QUEUE__REDIS_TIMEOUT_S": "1",
    "MEMOS_QUEUE__REDIS_CONNECT_TIMEOUT_S": "1",
    "MEMOS_QUEUE__REDIS_RECONNECT_S": "1",
    "MEMOS_STORE__STATEMENT_TIMEOUT_S": str(SILENCE_S),
    "MEMOS_STORE__POOL_TIMEOUT_S": "2",
    "MEMOS_STORE__CONNECT_TIMEOUT_S": "2",
    "MEMOS_LOG__LEVEL": "WARNING",
}
BEFORE, AFTER = 4, 4  # acknowledged adds before a fault, and after it
USERS = 3
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if not private_redis_is_there():
        pytest.skip("no redis-server on PATH")
    try:
        made = Site(settings=SETTINGS, lease_s=LEASE_S)
    except ImportError as error:
        if required():
            raise
        pytest.skip(str(error))
    with made:
        yield made


class Case:
    """Users at work around one fault, and the judgement afterwards."""

    def __init__(self, site: Site, name: str, *, timeout_s: float = 5.0) -> None:
        self.site = site
        users = [f"{name}{n}" for n in range(USERS)]
        self.crowd = Crowd(site.servers, users, timeout_s=timeout_s, patience_s=120.0, pause_s=0.05)

    def __enter__(self) -> Case:
        self.crowd.__enter__()
        self.more(BEFORE)
        return self

    def more(self, count: int) -> None:
        """Wait for so many more acknowledged adds."""
        wanted = self.crowd.ledger.adds + count
        until(
            lambda: self.crowd.ledger.adds >= wanted, lambda: f"{count} more adds; {self.crowd.ledger.errors}"
        )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.more(AFTER)
        finally:
            self.crowd.__exit__()
        if kind is None:
            self.judge()

    def judge(self) -> None:
        until(lambda: all(one.status_of("/ready") == 200 for one in self.site.servers), "ready again")
        with self.site.runtime() as runtime:
            until(lambda: settled(runtime), lambda: left(runtime))
            found = audit(runtime, self.crowd.ledger)
        assert (found.broken, found.examples) == ({}, [])
        assert found.acknowledged >= BEFORE + AFTER
        assert self.crowd.ledger.given_up["add"] == 0

    def says(self, page: str, status: int) -> None:
        """Every server comes to answer the page with that status."""
        until(
            lambda: [one.status_of(page) for one in self.site.servers] == [status] * len(self.site.servers),
            lambda: f"{page} {status}: {[one.status_of(page) for one in self.site.servers]}",
        )


def test_postgresql_is_killed(site: Site) -> None:
    """While it is away servers say so; once it is back on the same data all goes on by itself."""
    with Case(site, "pgkill") as case:
        site.postgres.kill()
        case.says("/ready", 503)
        case.says("/health", 503)
        site.postgres.start()
        case.says("/ready", 200)


def test_redis_is_killed(site: Site) -> None:
    """While it is away memory works and servers say that the queue does not."""
    with Case(site, "rekill") as case:
        site.redis.kill()
        case.says("/ready", 503)
        case.says("/health", 200)
        case.more(1)  # stored, and read later
        site.redis.start()
        case.says("/ready", 200)


def test_a_worker_is_killed_inside_a_step(site: Site) -> None:
    """Its transaction goes with it, and the other worker does what it held."""
    with Case(site, "wokill"):
        strikes.kill_worker(site, LEASE_S)


def test_a_server_is_killed(site: Site) -> None:
    """Clients go to the other one; what it had stored and not queued is read all the same."""
    with Case(site, "sekill"):
        strikes.kill_server(site, 0.5)


def test_redis_is_cut_off(site: Site) -> None:
    """Connections are reset and refused for a moment, again and again: calls wait, and are told nothing of it."""
    with Case(site, "recut") as case:
        for _ in range(3):
            strikes.cut_redis(site, 0.3)
            case.more(1)


def test_postgresql_is_cut_off(site: Site) -> None:
    """Connections are reset and refused for longer than a call waits."""
    with Case(site, "pgcut") as case:
        site.store_line.refuse(True)
        case.says("/ready", 503)
        time.sleep(SILENCE_S)
        site.store_line.refuse(False)


def test_commits_whose_reply_is_lost(site: Site) -> None:
    """What was committed and not answered is there once, whoever asks again."""
    with Case(site, "commit"):
        strikes.lose_commits(site, 0.0)


@pytest.mark.slow
def test_queue_replies_that_are_lost(site: Site) -> None:
    """What the queue took, gave or settled without an answer happened once."""
    with Case(site, "script"):
        strikes.lose_queue_replies(site, 0.0)


def test_both_are_far_away(site: Site) -> None:
    """300 ms a round trip to both: slow, and right."""
    with Case(site, "slow", timeout_s=60.0) as case:
        for line in (site.store_line, site.queue_line):
            line.slow(strikes.DELAY_S)
        try:
            case.more(1)
        finally:
            for line in (site.store_line, site.queue_line):
                line.slow(0.0)


@pytest.mark.slow
def test_both_fall_into_a_black_hole(site: Site) -> None:
    """Nothing is refused and nothing answered for longer than any time-out; then all of it arrives late."""
    with Case(site, "hole") as case:
        for line in (site.store_line, site.queue_line):
            line.stall(True)
        time.sleep(2 * SILENCE_S)
        for line in (site.store_line, site.queue_line):
            line.stall(False)
        case.says("/ready", 200)


@pytest.mark.slow
def test_connections_that_are_dead_and_do_not_say_so(site: Site) -> None:
    """A server that went without a word is noticed by the silence, and connections are made anew."""
    with Case(site, "halves"):
        strikes.half_open_both(site, 0.0)
