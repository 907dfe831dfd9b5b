"""The cap on how many batches of one user run at a time, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conformance.queue_model import message

from memos.errors import ConfigError
from memos.mem_scheduler.queues.base import Batch, Done, Release, Retry, TaskQueue
from memos.testing import ManualClock

Make = Callable[..., TaskQueue]
LABELS = ("query", "mem_update", "mem_read", "custom")


def claim(queue: TaskQueue, *labels: str, lanes: int = 20) -> list[Batch]:
    return queue.claim(labels or LABELS, lanes_max=lanes, batch_max=1, timeout_s=0)


def users(batches: list[Batch]) -> list[str]:
    return sorted(batch.lane.user_id for batch in batches)


def settle(queue: TaskQueue, batch: Batch) -> None:
    queue.finish(batch, [Done()] * len(batch.deliveries))


def fill(queue: TaskQueue, user: str, *, cubes: int = 3) -> None:
    queue.submit([message(label, user=user, cube=f"{n}") for n in range(cubes) for label in LABELS])


def test_a_user_holds_as_many_batches_as_the_cap_says_over_all_lanes(make: Make) -> None:
    """Twelve ready lanes of four classes give two batches; the others' are not held up."""
    queue = make(user_batches_max=2)
    fill(queue, "many")
    queue.submit([message(user="one"), message(user="two")])
    held = claim(queue)
    assert users(held) == ["many", "many", "one", "two"]
    assert claim(queue) == []
    assert queue.depth().queued == 10


def test_without_a_cap_a_user_takes_what_there_is(make: Make) -> None:
    """0, the default, is no cap."""
    queue = make()
    fill(queue, "many")
    assert len(claim(queue)) == 12


@pytest.mark.parametrize("how", ["done", "retry", "release", "lost"])
def test_the_lease_that_ends_frees_a_place_however_it_ends(make: Make, clock: ManualClock, how: str) -> None:
    """A finish, a hand-back and a lost lease each let one more batch of the user run, no more."""
    queue = make(user_batches_max=1)
    fill(queue, "many")
    (held,) = claim(queue)
    if how == "lost":
        clock.advance(31.0)
    else:
        outcome = {"done": Done(), "retry": Retry("later", 3_600.0), "release": Release()}[how]
        queue.finish(held, [outcome])
    (following,) = claim(queue)
    assert following.epoch > held.epoch
    assert claim(queue) == []


def test_work_that_comes_while_its_user_is_aside_waits_and_is_then_run(make: Make) -> None:
    """New lanes and new classes of a user who holds enough stay where they are; none is forgotten."""
    queue = make(user_batches_max=1)
    sent = queue.submit([message("query", user="u")])
    (held,) = claim(queue)
    sent += queue.submit([message("custom", user="u"), message("mem_read", user="u", cube="new")])
    sent += queue.submit([message("query", user="u")])
    done = [held.deliveries[0].key]
    while True:
        assert claim(queue) == []
        settle(queue, held)
        batches = claim(queue)
        if not batches:
            break
        (held,) = batches
        done.append(held.deliveries[0].key)
    assert sorted(done) == sorted(sent)


def test_a_place_that_becomes_free_wakes_a_waiting_claim(make: Make, clock: ManualClock) -> None:
    """The finish in one lane lets the claim that waits take the user's other lane, without time passing."""
    queue = make(user_batches_max=1)
    queue.submit([message("query", user="u"), message("custom", user="u", cube="other")])
    (held,) = claim(queue)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(queue.claim, set(LABELS), lanes_max=4, timeout_s=20.0)
        clock.until_waiting(1)
        settle(queue, held)
        assert users(found.result(30)) == ["u"]


def test_a_user_who_is_aside_wakes_nobody(make: Make, clock: ManualClock) -> None:
    """Two claims wait while a user's work is set aside: neither keeps the other awake."""
    queue = make(user_batches_max=1)
    fill(queue, "u")
    (held,) = claim(queue)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(queue.claim, set(LABELS), lanes_max=1, timeout_s=5.0) for _ in range(2)]
        clock.until_waiting(2)
        queue.renew([held])
        clock.until_waiting(2)
        clock.advance(5.0)
        assert [one.result(30) for one in found] == [[], []]


def test_clear_forgets_who_held_what(make: Make) -> None:
    """After a clear the user's new work runs at once."""
    queue = make(user_batches_max=1)
    fill(queue, "u")
    claim(queue)
    queue.clear()
    fill(queue, "u")
    assert len(claim(queue)) == 1


def test_a_user_who_was_aside_saves_up_no_credit(make: Make) -> None:
    """Once it may run again a user takes turns with the others; it does not go first for its wait."""
    queue = make(user_batches_max=1)
    lanes = [message("query", user=user, cube=f"{n}") for user in ("a", "b") for n in range(30)]
    queue.submit(lanes)
    (first, second) = claim(queue, "query")
    assert users([first, second]) == ["a", "b"]
    held = first if first.lane.user_id == "a" else second  # "a" keeps its place for long
    other = second if held is first else first
    for _ in range(10):
        settle(queue, other)
        (other,) = claim(queue, "query")
    settle(queue, held)
    settle(queue, other)
    turns = []
    for _ in range(6):
        (batch,) = claim(queue, "query", lanes=1)
        turns.append(batch.lane.user_id)
        settle(queue, batch)
    assert sorted(turns) == ["a", "a", "a", "b", "b", "b"]


def test_a_negative_cap_is_refused(make: Make) -> None:
    """ConfigError names the bound."""
    with pytest.raises(ConfigError, match="user_batches_max"):
        make(user_batches_max=-1)
