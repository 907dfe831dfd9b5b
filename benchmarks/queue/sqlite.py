"""The queue in a file, beside bare SQLite: the same bodies, batches, pragmas and durability in the same rounds."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.queue.workload import BACKLOG, SUBMIT_SIZE, USERS, drain, messages
from memos.clock import SystemClock
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.queues.sqlite.codec import body_lines
from memos.mem_scheduler.queues.sqlite.file import tune


def sqlite_batch(rounds: int) -> Iterator[tuple[float, float]]:
    """Messages per second of each round, ours and bare SQLite's, one after the other."""
    ones = messages(SUBMIT_SIZE, USERS)
    bodies = [(line.decode(),) for line in body_lines(ones)]
    with tempfile.TemporaryDirectory() as folder:
        queue = SqliteQueue(Path(folder) / "queue.db", clock=SystemClock())
        with closing(sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)) as floor:
            floor.execute("PRAGMA journal_mode = WAL")
            tune(floor)
            floor.execute("CREATE TABLE body (id INTEGER PRIMARY KEY, text TEXT)")
            for _ in range(rounds):
                started = time.perf_counter()
                for _ in range(BACKLOG // SUBMIT_SIZE):
                    queue.submit(ones)
                sizes = drain(queue)
                ours = time.perf_counter() - started
                assert sum(sizes) == BACKLOG
                yield BACKLOG / ours, BACKLOG / _bare(floor, bodies, sizes)
        queue.close()


def _bare(connection: sqlite3.Connection, bodies: list[tuple[str]], sizes: list[int]) -> float:
    """Seconds for the same bodies in and out again."""
    started = time.perf_counter()
    connection.execute("PRAGMA synchronous = FULL")  # as a submit of ours
    for _ in range(BACKLOG // len(bodies)):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO body (text) VALUES (?)", bodies)
        connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous = NORMAL")  # as a finish of ours
    (first,) = connection.execute("SELECT min(id) FROM body").fetchone()
    for size in sizes:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM body WHERE id = ?", [(n,) for n in range(first, first + size)])
        connection.execute("COMMIT")
        first += size
    return time.perf_counter() - started
