"""The faults, one function each: begin, last for `seconds`, heal. Each leaves every process running."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks.soak.site import Process, Site, until

DELAY_S = 0.15  # each way: 300 ms a round trip
REPLIES = 5
INSIDE_S = 30.0
_WAITING = """
SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'memos.mark'::regclass
"""

Strike = Callable[[Site, float], None]


def kill_postgres(site: Site, seconds: float) -> None:
    """SIGKILL to the server and all its processes; started again on the same data."""
    site.postgres.kill()
    time.sleep(seconds)
    site.postgres.start()


def kill_redis(site: Site, seconds: float) -> None:
    site.redis.kill()
    time.sleep(seconds)
    site.redis.start()


def kill_worker(site: Site, seconds: float) -> None:
    """SIGKILL to a worker that is inside of a commit."""
    with inside_a_step(site) as held:
        victim = held[0]
        victim.kill()
    time.sleep(seconds)
    site.restart(victim)


def kill_server(site: Site, seconds: float) -> None:
    victim = site.servers[0]
    victim.kill()
    time.sleep(seconds)
    site.restart(victim)


def cut_redis(site: Site, seconds: float) -> None:
    site.queue_line.refuse(True)
    time.sleep(seconds)
    site.queue_line.refuse(False)


def cut_postgres(site: Site, seconds: float) -> None:
    site.store_line.refuse(True)
    time.sleep(seconds)
    site.store_line.refuse(False)


def lose_commits(site: Site, seconds: float) -> None:
    """COMMIT is carried out and its reply never comes, several times."""
    until_s = time.monotonic() + seconds
    for _ in range(REPLIES):
        until(site.store_line.lose_reply(b"COMMIT").is_set, "a COMMIT")
    time.sleep(max(0.0, until_s - time.monotonic()))


def lose_queue_replies(site: Site, seconds: float) -> None:
    """A script is carried out and its reply never comes, several times."""
    until_s = time.monotonic() + seconds
    for _ in range(REPLIES):
        until(site.queue_line.lose_reply(b"FCALL").is_set, "a script")
    time.sleep(max(0.0, until_s - time.monotonic()))


def slow_both(site: Site, seconds: float) -> None:
    for line in (site.store_line, site.queue_line):
        line.slow(DELAY_S)
    time.sleep(seconds)
    for line in (site.store_line, site.queue_line):
        line.slow(0.0)


def stall_postgres(site: Site, seconds: float) -> None:
    """A black hole: what is sent meanwhile arrives when it ends."""
    site.store_line.stall(True)
    time.sleep(seconds)
    site.store_line.stall(False)


def stall_redis(site: Site, seconds: float) -> None:
    site.queue_line.stall(True)
    time.sleep(seconds)
    site.queue_line.stall(False)


def half_open_both(site: Site, seconds: float) -> None:
    """Every connection is dead and nobody was told; new ones work."""
    site.store_line.half_open()
    site.queue_line.half_open()
    time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Named:
    """A fault by its name."""

    name: str
    strike: Strike


ALL = tuple(
    Named(strike.__name__.replace("_", " "), strike)
    for strike in (
        kill_postgres,
        kill_redis,
        kill_worker,
        kill_server,
        cut_redis,
        cut_postgres,
        lose_commits,
        lose_queue_replies,
        slow_both,
        stall_postgres,
        stall_redis,
        half_open_both,
    )
)


@contextmanager
def inside_a_step(site: Site) -> Iterator[list[Process]]:
    """Every commit of a task waits for the length of the block; yields a worker that waits in one.

    The table of marks is written in the transaction of a task's effects and by nothing else.
    """
    with (
        psycopg.connect(site.postgres.url) as holder,
        psycopg.connect(site.postgres.url, autocommit=True) as looker,
        site.runtime() as runtime,
    ):
        holder.execute("LOCK TABLE memos.mark IN SHARE MODE")
        held: list[Process] = []

        def inside() -> bool:
            row = looker.execute(_WAITING).fetchone()
            waiting = 0 if row is None else row[0]
            holders = [one.instance for one in runtime.queue.leases()]
            for one in site.workers:
                others = sum(f":{one.pid}:" not in name for name in holders)
                if waiting > others:  # not all of those that wait can be somebody else's
                    held[:] = [one]
            return bool(held)

        until(inside, "a worker commits a task", INSIDE_S)
        yield held
        holder.rollback()
