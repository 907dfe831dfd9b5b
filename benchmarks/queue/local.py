"""The queue in memory: its rate, the wake-up of a waiting claim, and what an idle runtime costs."""

from __future__ import annotations

import tempfile
import time

from benchmarks.queue.workload import BACKLOG, SUBMIT_SIZE, USERS, drain, messages
from memos.clock import SystemClock
from memos.mem_scheduler.queues.local import LocalQueue
from memos.runtime import Runtime, build
from memos.settings import Settings


def local_batch(rounds: int) -> list[float]:
    """Messages per second of each round: 10,000 messages in, claimed and finished to the last."""
    queue = LocalQueue(clock=SystemClock())
    ones = messages(SUBMIT_SIZE, USERS)
    rates = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(BACKLOG // SUBMIT_SIZE):
            queue.submit(ones)
        drain(queue)
        rates.append(BACKLOG / (time.perf_counter() - started))
        assert queue.depth(lanes=False).remaining == 0
    queue.close()
    return rates


def idle_cpu_percent(seconds: float) -> float:
    """CPU time of this process while a whole runtime with a started scheduler has nothing to do."""
    with tempfile.TemporaryDirectory() as home:
        settings = {"MEMOS_HOME": home, "MEMOS_MODELS__EMBEDDER": "none", "MEMOS_QUEUE__BACKEND": "local"}
        with build(Settings.load(settings), start=True) as runtime:
            return idle_percent(runtime, seconds)


def idle_percent(runtime: Runtime, seconds: float) -> float:
    """The same of a runtime that is there."""
    assert runtime.scheduler._running
    time.sleep(1.0)
    wall, cpu = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - wall) * 100
