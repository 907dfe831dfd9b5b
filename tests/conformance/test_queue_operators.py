"""What an operator sees of a queue: who claims, what is held, how far behind it is. On every backend."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest
from tests.conformance.queue_model import message

from memos.errors import ConfigError
from memos.mem_scheduler.queues.base import Batch, Done, Lane, Retry, TaskQueue
from memos.testing import ManualClock

Make = Callable[..., TaskQueue]


def take(queue: TaskQueue, *labels: str, batch: int | None = None) -> Batch:
    (found,) = queue.claim(set(labels or ("query",)), lanes_max=1, batch_max=batch, timeout_s=0)
    return found


def settle(queue: TaskQueue, batch: Batch) -> None:
    queue.finish(batch, [Done()] * len(batch.deliveries))


# -- instances ------------------------------------------------------------------------------------


def test_an_instance_is_known_by_its_first_claim(make: Make, clock: ManualClock) -> None:
    """It says what it is called, where it runs, what it serves and when it was seen; submits do not count."""
    queue = make(name="night shift")
    clock.advance(5.0)
    queue.submit([message()])
    assert queue.instances() == []
    clock.advance(5.0)
    take(queue)
    (one,) = queue.instances()
    assert one.name.startswith("night shift:")
    assert (one.host, one.pid) == (socket.gethostname(), os.getpid())
    assert one.labels == {"query"}
    assert (one.since, one.seen_at) == (clock.now() - 10.0, clock.now())


def test_an_instance_tells_what_it_serves_now(queue: TaskQueue) -> None:
    """Labels are those of the last claim."""
    queue.claim({"query"}, lanes_max=1, timeout_s=0)
    queue.claim({"add", "answer"}, lanes_max=1, timeout_s=0)
    assert [one.labels for one in queue.instances()] == [{"add", "answer"}]


def test_no_two_starts_have_one_name(make: Make) -> None:
    """A restarted node is never taken for the one that died (oban#862): the name given only begins it."""
    names = set()
    for _ in range(3):
        queue = make(name="node")
        queue.claim({"query"}, lanes_max=1, timeout_s=0)
        names |= {one.name for one in queue.instances()}
    assert len(names) == 3


def test_an_instance_that_claims_no_more_is_forgotten_unless_it_holds_something(
    queue: TaskQueue, clock: ManualClock
) -> None:
    """Who renews a long batch for hours is there; who holds nothing is gone a minute after its last claim."""
    queue.submit([message()])
    batch = take(queue)
    for _ in range(30):
        clock.advance(20.0)
        assert queue.renew([batch]) == []
    (one,) = queue.instances()
    assert clock.now() - one.seen_at < 25.0
    settle(queue, batch)
    clock.advance(61.0)
    assert queue.instances() == []


def test_a_closed_queue_is_no_instance(queue: TaskQueue) -> None:
    """`close` takes the instance out at once."""
    queue.claim({"query"}, lanes_max=1, timeout_s=0)
    assert len(queue.instances()) == 1
    queue.close()
    assert queue.instances() == []


def test_a_name_that_cannot_be_shown_is_refused(make: Make) -> None:
    """ConfigError for control characters and for a name that is too long."""
    for name in ("a\nb", "\x1b[31m", "x" * 201):
        with pytest.raises(ConfigError, match="name"):
            make(name=name)


# -- leases ---------------------------------------------------------------------------------------


def test_the_leases_that_are_held(queue: TaskQueue, clock: ManualClock) -> None:
    """Lane, slot, epoch, who, what, since when and for how much longer; the longest held first."""
    queue.submit([message("custom")] * 2 + [message("add", user="b")])
    first = take(queue, "custom", batch=1)
    clock.advance(4.0)
    second = take(queue, "custom", batch=1)
    third = take(queue, "add")
    clock.advance(1.0)
    leases = queue.leases()
    assert [(one.lane, one.slot, one.epoch) for one in leases] == [
        (batch.lane, batch.slot, batch.epoch) for batch in (first, second, third)
    ]
    assert [dict(one.labels) for one in leases] == [{"custom": 1}, {"custom": 1}, {"add": 1}]
    assert [one.held_s for one in leases] == pytest.approx([5.0, 1.0, 1.0])
    assert [one.expires_in_s for one in leases] == pytest.approx([25.0, 29.0, 29.0])
    assert {one.instance for one in leases} == {one.name for one in queue.instances()}
    settle(queue, second)
    assert [one.epoch for one in queue.leases()] == [first.epoch, third.epoch]
    assert [one.epoch for one in queue.leases(limit=1)] == [first.epoch]


def test_a_lost_lease_is_seen_until_a_claim_comes_by(queue: TaskQueue, clock: ManualClock) -> None:
    """It shows as overdue, like `running` counts it, and goes in one step with the claim."""
    queue.submit([message()])
    batch = take(queue)
    clock.advance(40.0)
    (lost,) = queue.leases()
    assert lost.expires_in_s == pytest.approx(-10.0)
    assert queue.depth().running == 1
    again = take(queue)
    assert [one.epoch for one in queue.leases()] == [again.epoch] != [batch.epoch]


# -- lag ------------------------------------------------------------------------------------------


def lag(queue: TaskQueue, label: str = "query", **lane: str) -> float | None:
    name = Lane(lane.get("user", "user"), lane.get("cube", "cube"), lane.get("task_class", "turn"))
    found = [one for one in queue.depth().lanes if one.lane == name]
    return found[0].oldest_s.get(label) if found else None


def test_the_lag_is_the_age_of_the_oldest_waiting_message_by_lane_and_label(
    queue: TaskQueue, clock: ManualClock
) -> None:
    """Each label of a lane by its own oldest; what was taken no longer counts."""
    queue.submit([message("query")])
    clock.advance(2.0)
    queue.submit([message("answer"), message("query"), message(user="other")])
    clock.advance(3.0)
    assert lag(queue) == pytest.approx(5.0)
    assert lag(queue, "answer") == pytest.approx(3.0)
    assert lag(queue, user="other") == pytest.approx(3.0)
    assert lag(queue, "add") is None
    for batch in queue.claim({"query"}, lanes_max=2, batch_max=1, timeout_s=0):
        settle(queue, batch)
    assert lag(queue) == pytest.approx(3.0)


def test_a_delay_is_no_lag(queue: TaskQueue, clock: ManualClock) -> None:
    """What was asked for later lags from when it is due."""
    queue.submit([message()], delay_s=100.0)
    clock.advance(99.0)
    assert lag(queue) is None
    clock.advance(11.0)
    queue.claim({"other"}, lanes_max=1, timeout_s=0)
    assert lag(queue) == pytest.approx(10.0)


def test_a_blocked_lane_lags(queue: TaskQueue, clock: ManualClock) -> None:
    """A head that fails again and again shows for how long it has held up its lane."""
    queue.submit([message()])
    clock.advance(7.0)
    for _ in range(2):
        queue.finish(take(queue, batch=1), [Retry("no", 10.0)])
        clock.advance(10.0)
    assert lag(queue) == pytest.approx(20.0)


def test_parked_work_lags(queue: TaskQueue, clock: ManualClock) -> None:
    """Work that nobody serves is the first that an operator should see."""
    queue.submit([message("unserved")])
    clock.advance(9.0)
    assert lag(queue, "unserved", task_class="unserved") == pytest.approx(9.0)
