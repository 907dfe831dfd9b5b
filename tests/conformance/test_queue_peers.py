"""Several queue objects on one queue, as several processes have them, on every backend that can be shared."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.conformance.queue_model import BACKENDS, PEERS, message

from memos.errors import LeaseLost
from memos.mem_scheduler.queues.base import Done, TaskQueue
from memos.testing import ManualClock

Pair = Callable[..., tuple[TaskQueue, TaskQueue]]


@pytest.fixture(params=sorted(PEERS))
def pair(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Pair]:
    opened: list[TaskQueue] = []

    def build(**bounds: object) -> tuple[TaskQueue, TaskQueue]:
        opened.append(BACKENDS[request.param](clock, **bounds))
        opened.append(PEERS[request.param](opened[0], clock, **bounds))
        return opened[0], opened[1]

    yield build
    for queue in reversed(opened):
        queue.close()


def claim(queue: TaskQueue, *labels: str) -> list:
    return queue.claim(set(labels or ("query",)), lanes_max=9, batch_max=1, timeout_s=0)


def test_an_idempotency_key_holds_across_processes(pair: Pair) -> None:
    """Whoever repeats the call is given the first one's answer."""
    here, there = pair()
    assert there.submit([message()], idempotency_key="k") == here.submit([message()], idempotency_key="k")
    assert here.depth().remaining == 1


def test_a_token_holds_across_processes(pair: Pair) -> None:
    """A lost reply may be repaired from elsewhere."""
    here, there = pair()
    assert there.submit([message()], token="t") == here.submit([message()], token="t")
    assert here.depth().remaining == 1


def test_the_cap_of_a_user_counts_what_all_hold(pair: Pair) -> None:
    """One batch here and one there are two; either finish frees a place for either."""
    here, there = pair(user_batches_max=2)
    here.submit([message(cube=f"{n}") for n in range(4)])
    (first,) = here.claim({"query"}, lanes_max=1, timeout_s=0)
    (second,) = claim(there)
    assert claim(here) == claim(there) == []
    here.finish(first, [Done()])
    assert len(claim(there)) == 1
    there.finish(second, [Done()])
    assert len(claim(here)) == 1


def test_each_sees_all_instances_and_leases(pair: Pair) -> None:
    """Both tell the same of both, and a lease names its holder."""
    here, there = pair()
    here.submit([message(user="a"), message("add", user="b")])
    (first,) = claim(here, "query")
    (second,) = claim(there, "add")
    assert here.instances() == there.instances()
    by_label = {next(iter(one.labels)): one.name for one in here.instances()}
    assert len(set(by_label.values())) == 2
    assert [(one.epoch, one.instance) for one in there.leases()] == [
        (first.epoch, by_label["query"]),
        (second.epoch, by_label["add"]),
    ]
    there.close()
    assert [one.name for one in here.instances()] == [by_label["query"]]


def test_a_lost_lease_goes_to_the_other_and_the_late_finish_is_refused(
    pair: Pair, clock: ManualClock
) -> None:
    """What one left behind the other runs; a rescue never overwrites what was completed (river#1302)."""
    here, there = pair()
    here.submit([message()])
    (lost,) = claim(here)
    clock.advance(31.0)
    (taken,) = claim(there)
    there.finish(taken, [Done()])
    with pytest.raises(LeaseLost):
        here.finish(lost, [Done()])
    assert claim(here) == claim(there) == []
    assert [row.state for row in here.statuses()] == ["completed"]


def test_a_cancel_is_seen_by_whoever_runs_it(pair: Pair) -> None:
    """The flag of a running message is read in the process that holds it."""
    here, there = pair()
    (key,) = here.submit([message()])
    claim(there)
    assert here.cancel([key]) == []
    assert there.is_cancelled(key)
