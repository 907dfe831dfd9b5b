"""The Redis queue against the floors of its server, ours and the floor's taken in turn in every round.

submit and cycle go through the queue itself, several batches settled in one call as a scheduler does it;
drain goes through a whole scheduler with its production defaults (16 workers, heartbeat, status, metrics)
and a no-op handler, as a user would have it.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.queue.redis_floors import Floor
from benchmarks.queue.redis_site import redis_runtime
from benchmarks.queue.workload import BACKLOG, LABEL, SUBMIT_SIZE, USERS, drain_together, messages
from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

DRAIN_S = 120.0


@dataclass
class Compared:
    """Rates of ours and of the floor, round by round."""

    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)

    def round(self, ours: Callable[[], float], floor: Callable[[], float]) -> None:
        self.floor.append(floor())
        self.ours.append(ours())

    @property
    def share(self) -> float:
        return statistics.median(a / b for a, b in zip(self.ours, self.floor, strict=True))

    @property
    def note(self) -> str:
        return f"{statistics.median(self.ours):,.0f} of {statistics.median(self.floor):,.0f} messages/s"


@dataclass
class Rates:
    """All of them, and what stayed in Redis after the last message."""

    submit_batch: Compared = field(default_factory=Compared)
    submit_single: Compared = field(default_factory=Compared)
    drain: Compared = field(default_factory=Compared)
    drain_queue: Compared = field(default_factory=Compared)
    cycle: Compared = field(default_factory=Compared)
    cycle_4_lanes: Compared = field(default_factory=Compared)


def measure_rates(queue: TaskQueue, floor: Floor, *, rounds: int) -> Rates:
    """Submit, claim and finish through the queue alone."""
    rates = Rates()
    ones = messages(SUBMIT_SIZE, USERS)
    single, few = messages(1, 1), messages(SUBMIT_SIZE, 4)
    for _ in range(rounds):
        rates.submit_single.round(
            lambda: _timed(1_000, lambda: queue.submit(single)), lambda: floor.submit_single(1_000)
        )
        queue.clear()
        floor.drain()
        rates.submit_batch.round(
            lambda: SUBMIT_SIZE * _timed(BACKLOG // SUBMIT_SIZE, lambda: queue.submit(ones)),
            lambda: floor.submit_batch(BACKLOG),
        )
        rates.drain_queue.round(lambda: _drained(queue), floor.drain)
        rates.cycle.round(lambda: _cycle(queue, ones), lambda: floor.cycle(BACKLOG))
        rates.cycle_4_lanes.round(lambda: _cycle(queue, few), lambda: floor.cycle(BACKLOG))
    return rates


def measure_drain(floor: Floor, *, rounds: int) -> Compared:
    """Through the scheduler: from its start to the last finish of 10,000 messages."""
    compared = Compared()
    for _ in range(rounds):
        floor.submit_batch(BACKLOG)
        compared.round(_scheduled, floor.drain)
    return compared


def _scheduled() -> float:
    seen = 0
    lock = threading.Lock()
    done = threading.Event()

    def handler(batch: list[ScheduleMessageItem]) -> None:
        nonlocal seen
        with lock:
            seen += len(batch)
            if seen >= BACKLOG:
                done.set()

    with redis_runtime() as runtime:
        runtime.scheduler.register_handlers({LABEL: handler})
        ones = messages(SUBMIT_SIZE, USERS)
        for _ in range(BACKLOG // SUBMIT_SIZE):
            runtime.queue.submit(ones)
        started = time.perf_counter()
        runtime.scheduler.start()
        if not done.wait(DRAIN_S):
            raise TimeoutError(f"{seen} of {BACKLOG} messages ran within {DRAIN_S:.0f} s")
        while runtime.queue.depth(lanes=False).running:
            time.sleep(0.001)
        rate = BACKLOG / (time.perf_counter() - started)
        assert seen == BACKLOG
        return rate


def _timed(count: int, call: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - started)


def _drained(queue: TaskQueue) -> float:
    started = time.perf_counter()
    count = drain_together(queue)
    rate = count / (time.perf_counter() - started)
    assert count == BACKLOG
    return rate


def _cycle(queue: TaskQueue, ones: list[ScheduleMessageItem]) -> float:
    started = time.perf_counter()
    for _ in range(BACKLOG // SUBMIT_SIZE):
        queue.submit(ones)
        assert drain_together(queue) == SUBMIT_SIZE
    return BACKLOG / (time.perf_counter() - started)
