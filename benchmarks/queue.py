"""The task queue against its bars: `python -m benchmarks.queue [--quick] [--json FILE]`.

local_batch       messages/s through the queue in memory: submitted 500 at a time, claimed, finished as done
sqlite_batch      the queue in a file against bare SQLite: the same bodies inserted 500 to a transaction and
                  deleted in the same batches, one transaction each, all synchronous=FULL; share of its rate
sqlite_rate       messages/s of the queue in a file in that run (no bar: for information)
fair_lag          the furthest any backlogged user was from its fair share, in messages
idle_cpu_local    CPU of a started scheduler over 20 s without work, in percent of one core
idle_local_p50/99 from submit to the waiting claim's return, two threads, in ms (no bar: for information)
"""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.report import Bar, Options, Row, main
from memos.clock import SystemClock
from memos.mem_scheduler.queues.adaptive import BATCH_SIZE_MAX
from memos.mem_scheduler.queues.base import Done
from memos.mem_scheduler.queues.local import LocalQueue
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.queues.sqlite.codec import rest_of
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

LABEL = "benchmark"
USERS = 100
SUBMIT_SIZE = 500
LANES_MAX = 16
BODY = "x" * 100
BACKLOG = 10_000


def messages(count: int, users: int) -> list[ScheduleMessageItem]:
    return [
        ScheduleMessageItem(user_id=f"user-{n % users}", mem_cube_id="cube", label=LABEL, content=BODY)
        for n in range(count)
    ]


def local_batch(rounds: int) -> list[float]:
    """Messages per second of each round: 10,000 messages in, claimed and finished to the last."""
    queue = LocalQueue(clock=SystemClock())
    ones = messages(SUBMIT_SIZE, USERS)
    rates = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(BACKLOG // SUBMIT_SIZE):
            queue.submit(ones)
        while batches := queue.claim((LABEL,), lanes_max=LANES_MAX, timeout_s=0):
            for batch in batches:
                queue.finish(batch, [Done()] * len(batch.deliveries))
        rates.append(BACKLOG / (time.perf_counter() - started))
        assert queue.depth(lanes=False).remaining == 0
    queue.close()
    return rates


def sqlite_batch(rounds: int) -> Iterator[tuple[float, float]]:
    """Messages per second of each round, ours and bare SQLite's, one after the other."""
    ones = messages(SUBMIT_SIZE, USERS)
    bodies = [(one.content + rest_of(one),) for one in ones]
    with tempfile.TemporaryDirectory() as folder:
        queue = SqliteQueue(Path(folder) / "queue.db", clock=SystemClock())
        with closing(sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)) as floor:
            floor.execute("PRAGMA journal_mode = WAL")
            floor.execute("PRAGMA synchronous = FULL")
            floor.execute("CREATE TABLE body (id INTEGER PRIMARY KEY, text TEXT)")
            for _ in range(rounds):
                started = time.perf_counter()
                for _ in range(BACKLOG // SUBMIT_SIZE):
                    queue.submit(ones)
                sizes = []
                while batches := queue.claim((LABEL,), lanes_max=LANES_MAX, timeout_s=0):
                    for batch in batches:
                        queue.finish(batch, [Done()] * len(batch.deliveries))
                        sizes.append(len(batch.deliveries))
                ours = time.perf_counter() - started
                assert sum(sizes) == BACKLOG
                yield BACKLOG / ours, BACKLOG / bare_sqlite(floor, bodies, sizes)
        queue.close()


def bare_sqlite(connection: sqlite3.Connection, bodies: list[tuple[str]], sizes: list[int]) -> float:
    """Seconds for the same bodies in and out again."""
    started = time.perf_counter()
    for _ in range(BACKLOG // len(bodies)):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO body (text) VALUES (?)", bodies)
        connection.execute("COMMIT")
    (first,) = connection.execute("SELECT min(id) FROM body").fetchone()
    for size in sizes:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM body WHERE id = ?", [(n,) for n in range(first, first + size)])
        connection.execute("COMMIT")
        first += size
    return time.perf_counter() - started


def fair_lag(users: int = 10, backlog: int = 10_000) -> float:
    """The largest |service - fair share| while every user has work."""
    queue = LocalQueue(clock=SystemClock())
    for _ in range(backlog // SUBMIT_SIZE):
        for user in range(users):
            queue.submit(
                [one.model_copy(update={"user_id": f"user-{user}"}) for one in messages(SUBMIT_SIZE, 1)]
            )
    served: Counter[str] = Counter({f"user-{n}": 0 for n in range(users)})
    worst = 0.0
    while max(served.values()) < backlog:
        for batch in queue.claim((LABEL,), lanes_max=1, timeout_s=0):
            queue.finish(batch, [Done()] * len(batch.deliveries))
            served[batch.lane.user_id] += len(batch.deliveries)
        share = sum(served.values()) / users
        worst = max(worst, *(abs(count - share) for count in served.values()))
    queue.close()
    return worst


def idle_wake_ms(samples: int) -> list[float]:
    """From just before the submit to the return of the claim that waits in another thread."""
    queue = LocalQueue(clock=SystemClock())
    (one,) = messages(1, 1)
    took: list[float] = []
    sent = [0.0]
    ready = threading.Semaphore(0)

    def consume() -> None:
        for _ in range(samples):
            ready.release()
            batches = queue.claim((LABEL,), lanes_max=1, timeout_s=60.0)
            took.append((time.perf_counter() - sent[0]) * 1_000)
            for batch in batches:
                queue.finish(batch, [Done()] * len(batch.deliveries))

    consumer = threading.Thread(target=consume)
    consumer.start()
    for _ in range(samples):
        ready.acquire()
        time.sleep(0.005)  # let the claim begin to wait
        sent[0] = time.perf_counter()
        queue.submit([one])
    consumer.join()
    queue.close()
    return took


def idle_cpu_percent(seconds: float) -> float:
    """CPU time of this process while a whole runtime with a started scheduler has nothing to do."""
    from memos.runtime import build
    from memos.settings import Settings

    with (
        tempfile.TemporaryDirectory() as home,
        build(Settings(home=Path(home), models={"embedder": "none"})) as runtime,
    ):
        assert runtime.scheduler._running
        time.sleep(1.0)
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(seconds)
        return (time.process_time() - cpu) / (time.perf_counter() - wall) * 100


def measure(options: Options) -> Sequence[Row]:
    rates = local_batch(rounds=10 if options.quick else 50)
    files = list(sqlite_batch(rounds=5 if options.quick else 25))
    shares = [ours / floor for ours, floor in files]
    lag = fair_lag()
    wakes = statistics.quantiles(idle_wake_ms(200 if options.quick else 1_000), n=100)
    idle = None if options.quick else idle_cpu_percent(20.0)
    return [
        Row(
            "local_batch",
            Bar(">=", 100_000, 300_000),
            statistics.harmonic_mean(rates),  # all messages by all seconds, collector pauses included
            "messages/s",
            f"{len(rates)} rounds; median {statistics.median(rates):,.0f}, slowest {min(rates):,.0f}, fastest {max(rates):,.0f}",
        ),
        Row(
            "sqlite_batch",
            Bar(">=", 0.4, 0.7),
            statistics.median(shares),
            "of bare SQLite",
            f"median of {len(shares)} rounds; floor {statistics.median(f for _, f in files):,.0f} messages/s",
        ),
        Row("sqlite_rate", None, statistics.median(ours for ours, _ in files), "messages/s"),
        Row("fair_lag", Bar("<=", 2 * BATCH_SIZE_MAX), lag, "messages", "10 users with 10,000 each"),
        Row(
            "idle_cpu_local",
            Bar("<=", 1.0),
            idle,
            "% of a core",
            "left out by --quick" if idle is None else "whole runtime, 20 s",
        ),
        Row("idle_local_p50", None, wakes[49], "ms"),
        Row("idle_local_p99", None, wakes[98], "ms"),
    ]


if __name__ == "__main__":
    main(
        "The task queue",
        measure,
        settings={
            "backend": "local, sqlite",
            "users": USERS,
            "backlog": BACKLOG,
            "submit": SUBMIT_SIZE,
            "lanes_max": LANES_MAX,
            "batch": f"adaptive, at most {BATCH_SIZE_MAX}",
            "content": f"{len(BODY)} bytes",
        },
    )
