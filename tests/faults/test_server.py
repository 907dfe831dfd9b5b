"""A private redis-server and its wire, struck while processes work: what is kept, and what is not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.faults.conftest import made_site, redis_settings
from tests.faults.processes import Site, until

from memos.chaos import labels
from memos.chaos.ledger import Accepted, Ended, Stood, Tried, now
from memos.chaos.nursery import Nursery
from memos.chaos.proxy import Proxy
from memos.chaos.redis_server import PrivateRedis

KINDS = (labels.ORDERED, labels.PLAIN, labels.EFFECT, labels.RELAY)
pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on PATH")


@pytest.fixture(params=[True, False], ids=["aof", "no-aof"])
def own(request: pytest.FixtureRequest) -> Iterator[PrivateRedis]:
    """A server for one test, which may be killed."""
    with PrivateRedis(aof=request.param) as made:
        yield made


def some_ran(site: Site, count: int) -> None:
    until(lambda: sum(isinstance(one, Ended) for one in site.events()) >= count)


def test_a_killed_server(own: PrivateRedis, tmp_path: Path, nursery: Nursery, request) -> None:
    """With an append-only file nothing is lost. Without one what waited is gone, and said so here; effects
    still happen once, what they chained comes back from the store, and new work goes on."""
    kept = "no-aof" not in request.node.name
    for site in made_site(tmp_path, nursery, redis_settings(own, tmp_path)):
        site.submit(80, *KINDS)
        worker = site.worker(handler_s=0.02)
        some_ran(site, 3)
        begun = now()
        own.kill()
        own.start()
        site.write(Stood(begun, now() + 1.0, 0, "server killed"))
        if not kept:
            site.kill(worker)  # the next one finds what is chained in the store and not in the queue
            site.worker()
        site.submit(20, *KINDS)
        site.drain()
        found = site.verdict()
        assert found.effects_twice == found.effects_lost == found.overlaps == 0
        if kept:
            assert (found.broken, found.examples) == ({}, [])
        else:
            assert found.lost > 0  # and those of an ordered lane leave a gap, which the order counts
        assert found.done > 0


@pytest.mark.parametrize("what", ["cut", "slow", "client_kill", "script_flush"])
def test_a_bad_wire(server: PrivateRedis, tmp_path: Path, nursery: Nursery, what: str) -> None:
    """Cut and slow connections, thrown-out clients and scripts: nothing lost, nothing twice, in order."""
    settings = redis_settings(server, tmp_path)
    with Proxy("127.0.0.1", server.port) as proxy:
        settings["MEMSCHEDULER_REDIS_PORT"] = str(proxy.port)
        for site in made_site(tmp_path, nursery, settings):
            site.submit(60, *KINDS)
            for _ in range(2):
                site.worker(handler_s=0.01)
            for round_ in range(3):
                some_ran(site, 2 + 2 * round_)
                begun = now()
                match what:
                    case "cut":
                        proxy.cut()
                    case "slow":
                        proxy.slow(0.01)
                    case "client_kill":
                        server.ask("CLIENT KILL TYPE normal")
                    case _:
                        server.ask("SCRIPT FLUSH")
                        server.ask("FUNCTION FLUSH")
                site.write(Stood(begun, now() + 1.0, 0, what))
            site.drain()
            proxy.slow(0)
            found = site.verdict()
            assert (found.broken, found.examples) == ({}, [])
            assert found.submitted >= 60


def test_a_full_server(server: PrivateRedis, tmp_path: Path, nursery: Nursery) -> None:
    """A server at its memory limit refuses new work, and a worker that starts then drains it to the last
    message."""
    for site in made_site(tmp_path, nursery, redis_settings(server, tmp_path)):
        first = site.worker(handler_s=0.02)  # its labels are known from here on
        # A user's handler that submits is refused as well, and retried until there is room: not part of this.
        site.submit(60, labels.ORDERED, labels.PLAIN, labels.EFFECT)
        some_ran(site, 3)
        site.kill(first)
        submitter = site.submitter(0, labels.PLAIN)
        until(partial(has_answer, site, submitter))
        try:
            assert server.ask("CONFIG SET maxmemory 1mb") == "+OK"
            site.worker()
            until(partial(open_submits, site))
            site.kill(submitter)
            site.drain()
        finally:
            server.ask("CONFIG SET maxmemory 0")
        found = site.verdict()
        assert (found.broken, found.examples) == ({}, [])
        assert found.unanswered > 0


def has_answer(site: Site, pid: int) -> bool:
    return any(isinstance(one, Accepted) and one.pid == pid for one in site.events())


def open_submits(site: Site) -> bool:
    """Whether something was tried and refused; the newest try may only not be answered yet."""
    tried = [one for one in site.events() if isinstance(one, Tried)][:-1]
    answered = {item for one in site.events() if isinstance(one, Accepted) for item in one.items}
    return bool({item for one in tried for item in one.items} - answered)
