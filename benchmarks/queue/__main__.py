"""Measures and prints every row; see the package for what each of them means."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.queue.fairness import fair_lag
from benchmarks.queue.kills import kill_rows
from benchmarks.queue.latency import wake_ms
from benchmarks.queue.local import idle_cpu_percent, local_batch
from benchmarks.queue.redis_rows import redis_rows
from benchmarks.queue.sqlite import sqlite_batch
from benchmarks.queue.workload import BACKLOG, BODY, LANES_MAX, SUBMIT_SIZE, USERS
from benchmarks.report import Bar, Options, Row, main
from memos.clock import SystemClock
from memos.mem_scheduler.queues.adaptive import BATCH_SIZE_MAX
from memos.mem_scheduler.queues.local import LocalQueue


def measure(options: Options) -> Sequence[Row]:
    return [*redis_rows(options), *kill_rows(options), *in_process_rows(options)]


def in_process_rows(options: Options) -> list[Row]:
    """The rows that need no server."""
    rates = local_batch(rounds=10 if options.quick else 50)
    files = list(sqlite_batch(rounds=5 if options.quick else 25))
    queue = LocalQueue(clock=SystemClock())
    lag = fair_lag(queue)
    wakes = statistics.quantiles(wake_ms(queue, 200 if options.quick else 1_000), n=100)
    queue.close()
    idle = None if options.quick else idle_cpu_percent(20.0)
    return [
        Row("fair_lag", Bar("<=", 2 * BATCH_SIZE_MAX), lag, "messages", "10 users with 10,000 each"),
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
            statistics.median(ours / floor for ours, floor in files),
            "of bare SQLite",
            f"median of {len(files)} rounds; floor {statistics.median(f for _, f in files):,.0f} messages/s",
        ),
        Row("sqlite_rate", None, statistics.median(ours for ours, _ in files), "messages/s"),
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
            "backend": "local, sqlite, redis",
            "users": USERS,
            "backlog": BACKLOG,
            "submit": SUBMIT_SIZE,
            "lanes_max": LANES_MAX,
            "batch": f"adaptive, at most {BATCH_SIZE_MAX}",
            "content": f"{len(BODY)} bytes",
        },
    )
