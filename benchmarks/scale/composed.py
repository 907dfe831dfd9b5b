"""What a turn and a message cost each part of an installation of several processes: program, PostgreSQL and Redis.

Both servers are private ones: PostgreSQL with fsync on and the settings it comes with, Redis with an append-only file as
`deploy/compose.yaml` has it. The program is this process, its scheduler included. PostgreSQL's time counts all of its
processes, Redis' is that of its one thread.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks.api.parts import REDIS, environment_of
from benchmarks.postgres_server import PrivatePostgres
from benchmarks.processes import cpu_s
from benchmarks.scale import costs
from benchmarks.scale.machines import Turn
from memos.chaos.redis_server import PrivateRedis
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import Runtime
from memos.testing import run_until_idle


@dataclass(frozen=True, slots=True)
class Parts:
    """CPU ms of one of something."""

    search: Turn
    turn: Turn
    message: Turn  # submitted alone, done by a handler that does nothing


def measure(items: int, *, searches: int, turns: int, messages: int, seed: int) -> Parts:
    """In a cube of `items`. ImportError or ConfigError where a server cannot be started."""
    chance = random.Random(seed)
    with (
        PrivatePostgres(fsync=True, settings=()) as postgres,
        PrivateRedis(options=REDIS) as redis,
        costs.installation(environment=environment_of(postgres.url, redis.port)) as runtime,
    ):
        costs.fill(runtime, "cube", items, chance)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")  # as autovacuum does within a minute

        def of(count: int, work: Callable[[int], object]) -> Turn:
            work(max(2, count // 5))  # statements are prepared, the cache of vectors is filled
            pids = (postgres.pid, redis.pid)
            program, servers = time.process_time(), [cpu_s(pid) for pid in pids]
            work(count)
            taken = [time.process_time() - program] + [
                cpu_s(pid) - before for pid, before in zip(pids, servers, strict=True)
            ]
            return Turn(*(1_000 * seconds / count for seconds in taken))

        return Parts(
            of(searches, lambda count: costs.recall_ms(runtime, ["cube"], queries=count, chance=chance)),
            of(turns, lambda count: costs.turn_ms(runtime, "cube", turns=count, chance=chance)),
            of(messages, lambda count: _messages(runtime, count)),
        )


def _messages(runtime: Runtime, count: int) -> None:
    runtime.scheduler.register_handlers({costs.LABEL: lambda messages: None})
    for number in range(count):
        name = f"u{number % 100}"
        runtime.scheduler.submit_messages(
            [ScheduleMessageItem(user_id=name, mem_cube_id=name, label=costs.LABEL, content="x")]
        )
    run_until_idle(runtime.scheduler, costs.WAIT_S)


@contextmanager
def store_beside() -> Iterator[str]:
    """The address of a PostgreSQL to be measured beside SQLite: the one that is named, else one of our own, else ''."""
    if named := os.environ.get(costs.STORE_URL, ""):
        yield named
        return
    try:
        server = PrivatePostgres(fsync=True, settings=())
    except ImportError:
        yield ""
        return
    with server:
        yield server.url
