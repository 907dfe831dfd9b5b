"""What ended while a call was under way is settled together, and nothing waits for company."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from memos.mem_scheduler.current import BatchRun
from memos.mem_scheduler.dispatcher import Ended
from memos.mem_scheduler.queues.base import Batch, Done, Lane
from memos.mem_scheduler.settler import MESSAGES_MAX, Settler
from memos.mem_scheduler.workers import GOES_ON, WorkerPool


def ended(number: int, messages: int = 1) -> Ended:
    batch = Batch(Lane("user", "cube", "free"), 0, number, (), 0.0)
    return Ended(batch, BatchRun((), asked_to_stop=lambda _: False), [Done()] * messages)


class Calls:
    """Records the epochs of each call; the first one waits for `go`."""

    def __init__(self) -> None:
        self.settled: list[list[int]] = []
        self.after: list[list[int]] = []
        self.under_way, self.go = threading.Event(), threading.Event()
        self.fail = False

    def settle(self, together: Sequence[Ended]) -> None:
        self.settled.append([one.batch.epoch for one in together])
        self.under_way.set()
        assert self.go.wait(10.0)
        if self.fail:
            raise ValueError("broken")

    def then(self, together: Sequence[Ended]) -> None:
        self.after.append([one.batch.epoch for one in together])


def test_a_batch_alone_is_settled_by_the_thread_that_ended_it() -> None:
    """When `take` returns it is done: no other thread is needed."""
    calls = Calls()
    calls.go.set()
    settler = Settler(calls.settle, then=calls.then)
    settler.take(ended(1))
    settler.take(ended(2))
    assert calls.settled == calls.after == [[1], [2]]


def test_what_ends_meanwhile_goes_into_the_next_call() -> None:
    """Those who hand over do not wait; the one that settles goes on with all of theirs, a bounded number a call."""
    calls = Calls()
    settler = Settler(calls.settle, then=calls.then)
    first = threading.Thread(target=settler.take, args=(ended(1),))
    first.start()
    assert calls.under_way.wait(10.0)
    settler.take(ended(2))
    settler.take(ended(3, MESSAGES_MAX - 1))
    settler.take(ended(4))
    settler.take(ended(5, 2 * MESSAGES_MAX))
    assert calls.settled == [[1]]
    calls.go.set()
    first.join(10.0)
    assert calls.settled == calls.after == [[1], [2, 3], [4], [5]]


def test_a_call_that_fails_stops_nobody() -> None:
    """Its batches are let go all the same, and later ones are settled."""
    calls = Calls()
    calls.go.set()
    calls.fail = True
    settler = Settler(calls.settle, then=calls.then)
    settler.take(ended(1))
    calls.fail = False
    settler.take(ended(2))
    assert calls.after == [[1], [2]]


def test_a_pool_with_unsettled_jobs_takes_as_many_again() -> None:
    """Jobs that returned and are not at their end count as running for `wait_idle`, and are bounded by the size."""
    pool = WorkerPool(2)
    for _ in range(4):
        assert pool.wait_free(lambda: False)
        assert pool.submit(lambda: GOES_ON)
        with pool._place_free:
            assert pool._place_free.wait_for(lambda: pool._busy == 0, 10.0)
    assert pool.free == 0
    assert not pool.submit(lambda: GOES_ON)
    assert not pool.wait_idle(0.0)
    pool.end(3)
    assert pool.free == 2
    pool.end(1)
    assert pool.wait_idle(0.0)
    pool.close()
