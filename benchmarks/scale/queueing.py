"""M/M/c: how long a task waits when tasks come at random and c workers serve them.

Erlang's C formula (A. K. Erlang 1917; as in Kleinrock, Queueing Systems I, section 3.4). Times are in seconds, rates
a second. The scheduler fits the model where lanes are many: one lane runs one task at a time, and a user with a
backlog waits for himself, not for others.
"""

from __future__ import annotations


def waiting_probability(load: float, workers: int) -> float:
    """The share of tasks that find all workers busy; `load` = rate x service time, below `workers`."""
    _check(load, workers)
    blocked = 1.0  # Erlang B by its recursion, which does not overflow
    for number in range(1, workers + 1):
        blocked = load * blocked / (number + load * blocked)
    busy = load / workers
    return blocked / (1.0 - busy * (1.0 - blocked))


def mean_wait_s(rate: float, service_s: float, workers: int) -> float:
    """The mean time between a task's arrival and its start."""
    load = rate * service_s
    return waiting_probability(load, workers) * service_s / (workers - load)


def workers_for(rate: float, service_s: float, *, wait_s: float) -> int:
    """The fewest workers with a mean wait of at most `wait_s`."""
    workers = int(rate * service_s) + 1
    while mean_wait_s(rate, service_s, workers) > wait_s:
        workers += 1
    return workers


def _check(load: float, workers: int) -> None:
    if workers < 1 or not 0 <= load < workers:
        raise ValueError(f"a load of {load} needs more than {workers} workers, or is none")
