"""How long tasks wait, measured beside what the model says, and beside the same tasks on workers without a scheduler.

Tasks come at random (Poisson), each of a user of its own so that lanes do not meet, and take an exponential time in
which their handler sleeps, as one does that waits for a model or a database. Ages are taken at the handler.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from dataclasses import dataclass

from benchmarks.scale.costs import LABEL, WAIT_S, installation
from benchmarks.scale.queueing import mean_wait_s
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.testing import run_until_idle

WORKERS = 8
SERVICE_S = 0.2


@dataclass(frozen=True, slots=True)
class Waiting:
    """Mean seconds between submit and start."""

    measured_s: float
    predicted_s: float  # M/M/c at the rate and service time that came up
    ideal_s: float  # these very tasks on workers that take each at once, in the order they came

    @property
    def over_s(self) -> float:
        """What the scheduler added."""
        return self.measured_s - self.ideal_s


def measure(utilisation: float, *, tasks: int, seed: int) -> Waiting:
    """`tasks` at a rate that keeps `WORKERS` workers busy for that share of the time."""
    chance = random.Random(seed)
    rate = utilisation * WORKERS / SERVICE_S
    gaps = [chance.expovariate(rate) for _ in range(tasks)]
    services = [chance.expovariate(1 / SERVICE_S) for _ in range(tasks)]
    submitted: dict[str, float] = {}
    waited: list[float] = []
    lock = threading.Lock()

    def handler(messages: list[ScheduleMessageItem]) -> None:
        for message in messages:
            age = time.perf_counter() - submitted[message.content]
            with lock:
                waited.append(age)
            time.sleep(services[int(message.content)])

    with installation(workers=WORKERS) as runtime:
        runtime.scheduler.register_handlers({LABEL: handler})
        due = time.perf_counter()
        for number, gap in enumerate(gaps):
            due += gap
            time.sleep(max(0.0, due - time.perf_counter()))
            submitted[str(number)] = time.perf_counter()
            runtime.scheduler.submit_messages(
                [
                    ScheduleMessageItem(
                        user_id=f"u{number}", mem_cube_id=f"u{number}", label=LABEL, content=str(number)
                    )
                ]
            )
        run_until_idle(runtime.scheduler, WAIT_S)
    # What was really offered: the generator's own gaps, not the rate they were drawn with.
    offered = tasks / sum(gaps)
    served = sum(services) / tasks
    return Waiting(
        sum(waited) / len(waited), mean_wait_s(offered, served, WORKERS), ideal_wait_s(gaps, services)
    )


def ideal_wait_s(gaps: list[float], services: list[float], workers: int = WORKERS) -> float:
    """The mean wait of these tasks where the first free worker takes the next one (Kiefer and Wolfowitz 1955)."""
    free = [0.0] * workers
    now = waited = 0.0
    for gap, service in zip(gaps, services, strict=True):
        now += gap
        start = max(now, free[0])
        waited += start - now
        heapq.heapreplace(free, start + service)
    return waited / len(gaps)
