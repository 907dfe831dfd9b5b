"""Every queue, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.conformance.queue_model import BACKENDS

from memos.mem_scheduler.queues.base import TaskQueue
from memos.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=sorted(BACKENDS))
def make(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Callable[..., TaskQueue]]:
    """Build a queue with these bounds; it is closed after the test."""
    opened: list[TaskQueue] = []

    def build(**bounds: object) -> TaskQueue:
        opened.append(BACKENDS[request.param](clock, **bounds))
        return opened[-1]

    yield build
    for queue in opened:
        queue.close()


@pytest.fixture
def queue(make: Callable[..., TaskQueue]) -> TaskQueue:
    return make()
