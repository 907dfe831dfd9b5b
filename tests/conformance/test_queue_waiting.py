"""Waiting without polling, and many threads at once."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from tests.conformance.queue_model import BACKENDS, message

from memos.clock import SystemClock
from memos.errors import LeaseLost
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Batch, Done, Release, Retry, TaskQueue
from memos.testing import ManualClock

Waiting = Future[list[Batch]]
JOIN_S = 30.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=sorted(BACKENDS))
def queue(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[TaskQueue]:
    built = BACKENDS[request.param](clock)
    yield built
    built.close()


@pytest.fixture
def start(queue: TaskQueue, clock: ManualClock) -> Iterator[Callable[..., Waiting]]:
    """Start a claim in a thread and return when it waits."""
    with ThreadPoolExecutor(4) as pool:

        def begin(*labels: str, timeout_s: float = 100.0, lanes_max: int = 1) -> Waiting:
            waiting = clock.waiting
            found = pool.submit(queue.claim, set(labels), lanes_max=lanes_max, timeout_s=timeout_s)
            clock.until_waiting(waiting + 1)
            return found

        yield begin
        queue.close()


def keys(found: Waiting) -> list[str]:
    return [delivery.key for batch in found.result(JOIN_S) for delivery in batch.deliveries]


def test_a_submit_wakes_a_waiting_claim(queue: TaskQueue, start: Callable[..., Waiting]) -> None:
    """No time passes between the submit and the claim's return."""
    found = start("query")
    sent = queue.submit([message()])
    assert keys(found) == sent


def test_a_claim_returns_empty_when_its_time_is_over(
    clock: ManualClock, start: Callable[..., Waiting]
) -> None:
    """`timeout_s` bounds the wait."""
    found = start("query", timeout_s=5.0)
    clock.advance(5.0)
    assert keys(found) == []


def test_wake_lets_waiting_claims_return(queue: TaskQueue, start: Callable[..., Waiting]) -> None:
    """All of them, at once, without work."""
    found = [start("query"), start("other")]
    queue.wake()
    assert [keys(one) for one in found] == [[], []]


def test_the_waiter_that_serves_the_label_is_woken(
    queue: TaskQueue, clock: ManualClock, start: Callable[..., Waiting]
) -> None:
    """Work of a label is not lost on a waiter that serves another."""
    other = start("other")
    right = start("query")
    sent = queue.submit([message("query")])
    assert keys(right) == sent
    assert not other.done()
    queue.wake()
    assert keys(other) == []


def test_a_claim_that_leaves_work_wakes_one_more(queue: TaskQueue, start: Callable[..., Waiting]) -> None:
    """Two lanes and two waiters: both get one, though it was one submit."""
    first, second = start("query"), start("query")
    sent = queue.submit([message(user="a"), message(user="b")])
    assert sorted(keys(first) + keys(second)) == sent


def test_a_finish_wakes_the_waiter_of_the_next_message(
    queue: TaskQueue, start: Callable[..., Waiting]
) -> None:
    """The lane that becomes free is claimed at once."""
    sent = queue.submit([message(), message()])
    (batch,) = queue.claim({"query"}, lanes_max=1, timeout_s=0)
    found = start("query")
    queue.finish(batch, [Done()])
    assert keys(found) == sent[1:]


def test_a_lost_lease_is_noticed_without_any_traffic(
    queue: TaskQueue, clock: ManualClock, start: Callable[..., Waiting]
) -> None:
    """Reclaim does not wait for new messages (taskiq-redis): a claim that waits wakes for the expiry."""
    sent = queue.submit([message()])
    queue.claim({"query"}, lanes_max=1, timeout_s=0)
    found = start("query")
    clock.advance(29.0)
    assert not found.done()
    clock.advance(1.0)
    assert keys(found) == sent


def test_a_delay_that_begins_while_claims_wait_is_kept(
    queue: TaskQueue, clock: ManualClock, start: Callable[..., Waiting]
) -> None:
    """A due time that is earlier than what the waiters know of wakes one of them to look again."""
    found = start("query")
    sent = queue.submit([message()], delay_s=3.0)
    clock.until_waiting(1)
    clock.advance(3.0)
    assert keys(found) == sent


def test_a_due_time_is_passed_on_when_its_waiter_leaves(
    queue: TaskQueue, clock: ManualClock, start: Callable[..., Waiting]
) -> None:
    """The claim that knew of the next due time returns with other work: another one takes it over."""
    knows = start("query", "other")
    rest = start("other")
    late = queue.submit([message("other")], delay_s=3.0)
    sent = queue.submit([message("query")])
    assert keys(knows) == sent
    clock.advance(3.0)
    assert keys(rest) == late


def test_what_a_woken_claim_leaves_is_passed_on(queue: TaskQueue, start: Callable[..., Waiting]) -> None:
    """One waiter is called for two lanes and takes the more urgent: the other lane wakes the next."""
    both = start("query", "background_label")
    rest = start("background_label", timeout_s=20.0)  # shorter than any lease: only a call wakes it
    low, high = queue.submit([message("background_label"), message("query")])
    assert keys(both) == [high]
    assert keys(rest) == [low]


def test_a_shorter_lease_wakes_the_waiter_in_time(
    queue: TaskQueue, clock: ManualClock, start: Callable[..., Waiting]
) -> None:
    """Writing min_idle_ms while a claim waits moves the time at which the lost lease is noticed."""
    sent = queue.submit([message("custom")])
    queue.claim({"custom"}, lanes_max=1, timeout_s=0)
    found = start("custom")
    queue.policies.put("custom", TaskPolicy(min_idle_ms=2_000))
    clock.until_waiting(1)
    clock.advance(2.0)
    assert keys(found) == sent


def test_a_registration_elsewhere_frees_no_parked_work_by_itself(
    queue: TaskQueue, start: Callable[..., Waiting]
) -> None:
    """Parked work goes to the first claim that names its label."""
    sent = queue.submit([message("late_label")])
    idle = start("query")
    assert keys_of(queue.claim({"late_label"}, lanes_max=1, timeout_s=0)) == sent
    assert not idle.done()


def keys_of(batches: list[Batch]) -> list[str]:
    return [delivery.key for batch in batches for delivery in batch.deliveries]


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_many_threads_lose_and_repeat_nothing(backend: str) -> None:
    """Eight threads submit, claim, renew, fail and hand back: every message is done once, in order."""
    queue = BACKENDS[backend](SystemClock())
    labels = ["query", "answer", "custom"]
    queue.policies.put("custom", TaskPolicy(max_attempts=1_000, backoff_base_s=0.001))
    sent: dict[str, list[str]] = defaultdict(list)  # ordered lanes
    total = 4 * 400
    done: list[str] = []
    ran: dict[str, list[str]] = defaultdict(list)
    book = threading.Lock()
    submitting = [threading.Lock() for _ in range(5)]
    over = threading.Event()

    def submit(seed: int) -> None:
        pick = random.Random(seed)
        for _ in range(100):
            user = pick.randrange(5)
            ones = [message(pick.choice(labels), user=str(user)) for _ in range(4)]
            with submitting[user]:  # so that the order of submission is known
                new = queue.submit(ones)
                for key, one in zip(new, ones, strict=True):
                    if one.label != "custom":
                        sent[one.user_id].append(key)

    def work(seed: int) -> None:
        pick = random.Random(seed)
        while not over.is_set():
            batches = queue.claim(labels, lanes_max=pick.randint(1, 4), timeout_s=0.2)
            assert queue.renew(batches) == []
            for batch in batches:
                count = len(batch.deliveries)
                good = pick.randint(0, count)
                rest = Release() if pick.random() < 0.5 else Retry("again", 0.0)
                outcomes = [Done()] * good + [rest] * (count - good)
                if batch.lane.task_class == "turn":  # the failed one, then those that were not run
                    outcomes = [Done()] * good + [Release()] * (count - good)
                finished = [delivery.key for delivery in batch.deliveries[:good]]
                with book:
                    done.extend(finished)
                    if batch.lane.task_class == "turn":
                        ran[batch.lane.user_id] += finished
                    if len(done) >= total:
                        over.set()
                queue.finish(batch, outcomes)
                with pytest.raises(LeaseLost):
                    queue.finish(batch, outcomes)
        queue.wake()

    with ThreadPoolExecutor(8) as pool:
        threads = [pool.submit(submit, n) for n in range(4)] + [pool.submit(work, n) for n in range(4)]
        for thread in threads:
            thread.result(100)
    assert len(done) == len(set(done)) == total
    assert ran == sent
    depth = queue.depth()
    assert (depth.remaining, depth.running, depth.dead) == (0, 0, 0)
    queue.close()
