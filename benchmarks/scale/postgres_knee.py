"""How many adds and searches a second one core of PostgreSQL carries, and how long they wait on the way there.

The server is kept on one core and this process on the others; what the program sends is recorded once (`wire`) and played
with arrivals at random (Poisson) at growing shares of the rate that the core can carry. The knee is the last rate at which
the 99th percentile stays within five times that of light load and no queue is left behind. The server has fsync on and the
settings that it comes with. Searches ask a cube of 10,000 memories, adds go to cubes of eight users.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from benchmarks.postgres_server import PrivatePostgres
from benchmarks.processes import cpu_s
from benchmarks.scale import costs
from benchmarks.scale.wire import Player, Recorder, Stream
from memos.evaluation.metrics import percentile
from memos.memory.postgres import PostgresStore
from memos.retrieval.request import RecallRequest
from memos.runtime import Runtime

STREAMS = 8
WARM = 8  # tasks until psycopg has prepared its statements
SEARCHES, ADDS = 10, 30  # of a stream, beyond the warm ones
SHARES = (0.5, 0.7, 0.8, 0.9)
LIGHT = 0.1
KNEE = 5.0  # times the 99th percentile of light load
LEFT_BEHIND = 1.15  # of the time in which tasks arrived: a longer one has left a queue behind
ITEMS, ITEMS_A_USER = 10_000, 100


@dataclass(frozen=True, slots=True)
class Step:
    """One rate. Times in ms."""

    share: float
    rate: float
    p50_ms: float
    p99_ms: float
    mean_ms: float
    busy: float  # share of the core that the server used
    left_behind: bool


@dataclass(frozen=True, slots=True)
class Knee:
    """What a kind of task came to."""

    cpu_ms: float  # of the server for one task, when it is full
    most: float  # tasks a second when all are there at once
    light: Step
    steps: tuple[Step, ...]

    @property
    def knee(self) -> Step:
        """The last step before it; the lightest, if none was."""
        within = self.light
        for step in self.steps:
            if step.left_behind or step.p99_ms > KNEE * self.light.p99_ms:
                break
            within = step
        return within

    def model_ms(self, step: Step) -> float:
        """The mean by M/M/1: what light load takes, and the core's time stretched by how busy it is.

        One core that is shared among its tasks takes as long on average as one that takes them in turn.
        """
        busy = step.rate * self.cpu_ms / 1_000
        return self.light.mean_ms + self.cpu_ms * busy / (1 - busy) if busy < 1 else float("inf")


def measure(*, seed: int) -> dict[str, Knee]:
    """`search` and `add`. ImportError where there is no PostgreSQL to be started."""
    chance = random.Random(seed)
    mine = os.sched_getaffinity(0)
    core = {min(mine)}
    with PrivatePostgres(fsync=True, settings=(), cores=core) as server:
        before, streams = _recorded(server, chance)
        os.sched_setaffinity(0, mine - core or mine)
        try:
            return {
                kind: _ramp(server, before, streams[kind], again=kind == "search", chance=chance)
                for kind in ("search", "add")
            }
        finally:
            os.sched_setaffinity(0, mine)


def _recorded(server: PrivatePostgres, chance: random.Random) -> tuple[str, dict[str, list[Stream]]]:
    """The name of a database as it was before the adds, and what searching and adding sends."""
    _copy(server, "template1", "bench")
    url = _at(server, "bench")
    with costs.opened({"MEMOS_STORE__URL": url}, start=False) as runtime:
        costs.fill(runtime, "cube", ITEMS, chance)
        for user in range(STREAMS):
            costs.fill(runtime, f"u{user}", ITEMS_A_USER, chance)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    _copy(server, "bench", "before")
    with (
        Recorder(url) as recorder,
        costs.opened({"MEMOS_STORE__URL": recorder.url}, start=False) as runtime,
    ):
        recorder.end_stream()
        streams: dict[str, list[Stream]] = {"search": [], "add": []}
        for user in range(STREAMS):
            for kind, count in (("search", SEARCHES), ("add", ADDS)):
                _new_connections(runtime)
                for _ in range(WARM + count):
                    if kind == "search":
                        asked = RecallRequest(query=costs.sentence(chance), cube_ids=("cube",))
                        runtime.retriever.search(asked)
                    else:
                        said = [{"role": "user", "content": costs.sentence(chance)}]
                        name = f"u{user}"
                        runtime.chat.writer.write(said, user_id=name, cube_ids=[name], read="later")
                    recorder.end_task()
                streams[kind].append(recorder.end_stream())
    return "before", streams


def _new_connections(runtime: Runtime) -> None:
    """So that a stream has connections of its own."""
    assert isinstance(runtime.store, PostgresStore)
    for pool in (runtime.store._server._work, runtime.store._server._views):
        pool.drain()


def _ramp(
    server: PrivatePostgres, before: str, streams: Sequence[Stream], *, again: bool, chance: random.Random
) -> Knee:
    count = sum(len(stream.tasks) - WARM for stream in streams)
    with _database(server, before, streams) as player:
        used = cpu_s(server.pid)
        most = player.replay([0.0] * count, again=again)
        cpu_ms = 1_000 * (cpu_s(server.pid) - used) / count
    rate = 1_000 / cpu_ms  # what one core can compute
    steps = []
    for share in (LIGHT, *SHARES):
        arrivals = _poisson(share * rate, count // 2 if share == LIGHT else count, chance)
        with _database(server, before, streams) as player:
            used = cpu_s(server.pid)
            found = player.replay(arrivals, again=again)
            busy = (cpu_s(server.pid) - used) / found.lasted_s
        took = sorted(1_000 * one for one in found.took_s)
        steps.append(
            Step(
                share,
                len(took) / arrivals[-1],
                percentile(took, 0.5),
                percentile(took, 0.99),
                sum(took) / len(took),
                busy,
                found.lasted_s > LEFT_BEHIND * arrivals[-1] + took[-1] / 1_000,
            )
        )
    return Knee(cpu_ms, count / most.lasted_s, steps[0], tuple(steps[1:]))


def _poisson(rate: float, count: int, chance: random.Random) -> list[float]:
    at, arrivals = 0.0, []
    for _ in range(count):
        at += chance.expovariate(rate)
        arrivals.append(at)
    return arrivals


@contextmanager
def _database(server: PrivatePostgres, before: str, streams: Sequence[Stream]) -> Iterator[Player]:
    """A copy of the database as it was, with the streams at its door."""
    name = f"copy_{time.monotonic_ns()}"
    _copy(server, before, name)
    try:
        with Player(_at(server, name), streams, warm=WARM) as player:
            yield player
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _copy(server: PrivatePostgres, source: str, name: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(source))
        )


def _at(server: PrivatePostgres, database: str) -> str:
    return server.url.rpartition("/")[0] + f"/{database}"
