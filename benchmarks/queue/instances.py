"""Several worker processes on one queue: how the rate grows, and whether ordered lanes keep their order.

Run as a program (`python -m benchmarks.queue.instances LEDGER`) it is one instance: a whole runtime from the
environment's settings, whose handler sleeps 5 ms a message and then writes the message's number down.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from benchmarks.queue.redis_site import Site, redis_runtime
from benchmarks.queue.workload import SUBMIT_SIZE, USERS
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

LABEL = "slow_benchmark"
ORDERED = TaskPolicy(ordered=True, concurrency=1)
HANDLER_S = 0.005
READY_S = 60.0


def instance(ledger: Path) -> None:
    """Serve until stdin ends."""
    log = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def handler(batch: list[ScheduleMessageItem]) -> None:
        for one in batch:
            time.sleep(HANDLER_S)
            os.write(log, f"{one.user_id} {one.item_id}\n".encode())

    with redis_runtime() as runtime:
        runtime.scheduler.register_handlers({LABEL: (handler, ORDERED)})
        print("ready", flush=True)
        sys.stdin.readline()
        runtime.scheduler.start()
        sys.stdin.read()


def rate_of(count: int, queue: TaskQueue, site: Site, folder: Path, *, messages: int) -> tuple[float, int]:
    """(messages/s, violations of order) of `count` instances over a backlog in ordered lanes."""
    ledger = folder / f"ledger-{count}"
    ones = [
        ScheduleMessageItem(
            user_id=f"user-{n % USERS}", mem_cube_id="cube", label=LABEL, content="x", item_id=str(n)
        )
        for n in range(messages)
    ]
    for at in range(0, messages, SUBMIT_SIZE):
        queue.submit(ones[at : at + SUBMIT_SIZE])
    command = [sys.executable, "-m", "benchmarks.queue.instances", str(ledger)]
    workers = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **site.environment},
        )
        for _ in range(count)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None and worker.stdin is not None
            while (line := worker.stdout.readline()) != "ready\n":
                assert line, "an instance ended before it was ready"
        started = time.perf_counter()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        while ledger_lines(ledger) < messages and time.perf_counter() - started < READY_S:
            time.sleep(0.01)
        took = time.perf_counter() - started
        while queue.depth(lanes=False).running:
            time.sleep(0.01)
    finally:
        for worker in workers:
            worker.communicate(timeout=READY_S)
    return messages / took, _violations(ledger)


def ledger_lines(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def _violations(ledger: Path) -> int:
    """Messages that ran before an older one of their lane."""
    ran: dict[str, list[int]] = defaultdict(list)
    for line in ledger.read_text().splitlines():
        user, number = line.split()
        ran[user].append(int(number))
    return sum(later < earlier for numbers in ran.values() for earlier, later in pairwise(numbers))


if __name__ == "__main__":
    instance(Path(sys.argv[1]))
