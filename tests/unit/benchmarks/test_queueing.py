"""The queueing model of the scale benchmark, against what is known without it."""

from __future__ import annotations

import random

import pytest
from benchmarks.scale.queueing import mean_wait_s, waiting_probability, workers_for
from benchmarks.scale.waiting import ideal_wait_s


def test_one_worker_is_the_textbook_case() -> None:
    """M/M/1: the probability is the load, the wait is load / (1 - load) services."""
    assert waiting_probability(0.7, 1) == pytest.approx(0.7)
    assert mean_wait_s(7, 0.1, 1) == pytest.approx(0.1 * 0.7 / 0.3)


@pytest.mark.parametrize(("workers", "load"), [(2, 1.2), (4, 2.4), (16, 10.0)])
def test_the_formula_is_what_a_simulation_gives(workers: int, load: float) -> None:
    """A simulated queue of 150,000 tasks waits within 8 % as long, or 0.003 services."""
    chance = random.Random(workers)
    tasks = 150_000
    gaps = [chance.expovariate(load) for _ in range(tasks)]
    services = [chance.expovariate(1.0) for _ in range(tasks)]
    waited = ideal_wait_s(gaps, services, workers)
    assert waited == pytest.approx(mean_wait_s(load, 1.0, workers), rel=0.08, abs=0.003)


def test_the_fewest_workers() -> None:
    """One less would wait longer than allowed."""
    enough = workers_for(40, 0.5, wait_s=0.05)
    assert mean_wait_s(40, 0.5, enough) <= 0.05 < mean_wait_s(40, 0.5, enough - 1)


@pytest.mark.parametrize(("load", "workers"), [(4.0, 4), (5.0, 4), (-1.0, 2), (0.5, 0)])
def test_a_load_that_grows_without_end_is_refused(load: float, workers: int) -> None:
    """There is no mean wait then."""
    with pytest.raises(ValueError, match="workers"):
        waiting_probability(load, workers)
