"""Who is served when: assertions on the trace of claims, never on wall time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.conformance.queue_model import BACKENDS, message

from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Batch, Done, PartedQueue, TaskQueue
from memos.mem_scheduler.schemas.task_schemas import TaskPriorityLevel
from memos.testing import ManualClock

Make = Callable[..., TaskQueue]
BATCH_MAX = 256


@pytest.fixture(params=sorted(BACKENDS))
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    opened: list[TaskQueue] = []

    def build(**bounds: object) -> TaskQueue:
        opened.append(BACKENDS[request.param](ManualClock(), **bounds))
        return opened[-1]

    yield build
    for queue in opened:
        queue.close()


def trace(queue: TaskQueue, labels: Sequence[str], *, claims: int | None = None) -> Iterator[Batch]:
    """Claim and finish one batch at a time; each batch as it was claimed."""
    count = 0
    while claims is None or count < claims:
        batches = queue.claim(labels, lanes_max=1, timeout_s=0)
        if not batches:
            return
        count += 1
        yield batches[0]
        queue.finish(batches[0], [Done()] * len(batches[0].deliveries))


def test_20_000_messages_of_100_users(make: Make) -> None:
    """Nothing is lost, each ordered lane runs in order, and a late user is served in the next round."""
    queue = make()
    users = [f"user-{n}" for n in range(100)]
    expected: dict[str, list[str]] = defaultdict(list)
    for _ in range(20):
        ones = [message(user=user, item=f"{n}") for n in range(10) for user in users]
        for key, one in zip(queue.submit(ones), ones, strict=True):
            expected[one.user_id].append(key)
    seen: dict[str, list[str]] = defaultdict(list)
    batches_before_late: int | None = None
    handled = batches = submitted_at = 0
    for batch in trace(queue, ["query"]):
        batches += 1
        user = batch.lane.user_id
        if user == "late":
            batches_before_late = batches - submitted_at - 1
            continue
        seen[user] += [delivery.key for delivery in batch.deliveries]
        if handled < 7_000 <= handled + len(batch.deliveries):
            submitted_at = batches
            queue.submit([message(user="late")])
        handled += len(batch.deliveries)
    assert seen == expected
    assert sum(map(len, seen.values())) == 20_000
    assert batches_before_late is not None and batches_before_late <= len(users)
    depth = queue.depth()
    assert (depth.remaining, depth.running, depth.dead) == (0, 0, 0)


def test_a_backlog_does_not_delay_another_user(make: Make) -> None:
    """One tenant's 100,000 jobs starve nobody (graphile/worker#331)."""
    queue = make(lane_messages_max=100_000)
    for _ in range(100):
        queue.submit([message(user="big")] * 1_000)
    list(trace(queue, ["query"], claims=12))
    queue.submit([message(user="small")])
    users = [batch.lane.user_id for batch in trace(queue, ["query"], claims=2)]
    assert "small" in users


def test_a_thousand_cubes_weigh_as_much_as_one(make: Make) -> None:
    """Lanes of one user share that user's turn, and take turns among themselves."""
    queue = make()
    cubes = [f"cube-{n}" for n in range(1_000)]
    queue.submit([message(user="many", cube=cube) for cube in cubes])
    queue.submit([message(user="one", cube=f"only-{n}") for n in range(20)])
    lanes = [batch.lane for batch in trace(queue, ["query"], claims=40)]
    assert Counter(lane.user_id for lane in lanes) == {"many": 20, "one": 20}
    assert [lane.mem_cube_id for lane in lanes if lane.user_id == "many"] == cubes[:20]


@pytest.mark.parametrize("weights", [None, {"a": 3.0, "b": 1.0}, {"a": 0.5, "c": 2.0}])
def test_backlogged_users_get_their_share(make: Make, weights: dict[str, float] | None) -> None:
    """At every moment a user's service is within two full batches of its fair share."""
    queue = make(weights=weights)
    weight = {user: (weights or {}).get(user, 1.0) for user in "abc"}
    for user in "abc":
        queue.submit([message(user=user)] * 8_000)
    served: Counter[str] = Counter()
    for batch in trace(queue, ["query"]):
        if len(batch.deliveries) < BATCH_MAX and sum(served.values()) > 6_000:
            break  # one of them runs dry: the others share what is left
        served[batch.lane.user_id] += len(batch.deliveries)
        for user in "abc":
            share = sum(served.values()) * weight[user] / sum(weight.values())
            assert abs(served[user] - share) <= 2 * BATCH_MAX


def test_pausing_saves_up_no_credit(make: Make) -> None:
    """A user who was away does not take over the queue when it comes back."""
    queue = make()
    queue.policies.put("custom", TaskPolicy(ordered=True, concurrency=1, batch_size_max=1))
    queue.submit([message("custom", user="away")])
    queue.submit([message("custom", user="steady")] * 500)
    list(trace(queue, ["custom"], claims=200))
    queue.submit([message("custom", user="away")] * 100)
    users = Counter(batch.lane.user_id for batch in trace(queue, ["custom"], claims=100))
    assert abs(users["away"] - users["steady"]) <= 2


def test_levels_are_served_in_order_and_lower_ones_keep_a_share(make: Make) -> None:
    """Work of level 1 comes first; of 160 claims at least 10 go to the lower levels all the same."""
    queue = make()
    low = TaskPolicy(level=TaskPriorityLevel.LEVEL_3, batch_size_max=1)
    high = TaskPolicy(level=TaskPriorityLevel.LEVEL_1, batch_size_max=1)
    middle = TaskPolicy(level=TaskPriorityLevel.LEVEL_2, batch_size_max=1)
    for label, policy in (("low", low), ("high", high), ("middle", middle)):
        queue.policies.put(label, policy)
    queue.submit([message(label, user=f"{n}") for n in range(200) for label in ("low", "middle", "high")])
    seen = [batch.lane.task_class for batch in trace(queue, ["low", "middle", "high"], claims=160)]
    assert seen[:15] == ["high"] * 15
    counts = Counter(seen)
    assert counts["high"] == 150
    assert counts["low"] == counts["middle"] == 5


def test_level_1_is_served_before_older_work_of_lower_levels(make: Make) -> None:
    """turn before memory before background, whatever was submitted first."""
    queue = make()
    queue.submit([message("mem_read"), message("mem_update"), message("query")])
    seen = [batch.lane.task_class for batch in trace(queue, ["query", "mem_update", "mem_read"])]
    assert seen == ["turn", "memory", "background"]


def test_classes_of_one_level_take_turns(make: Make) -> None:
    """A backlog under one label does not hold up another label of its level."""
    queue = make()
    queue.submit([message("flood", user=f"{n}") for n in range(100)])
    queue.submit([message("rare", user=f"{n}") for n in range(3)])
    seen = [batch.lane.task_class for batch in trace(queue, ["flood", "rare"], claims=6)]
    assert Counter(seen) == {"flood": 3, "rare": 3}


def test_a_blocked_user_holds_nobody_up(make: Make) -> None:
    """While one lane waits for its retry, or runs for long, all others go on."""
    queue = make()
    queue.submit([message(user="stuck")] * 3)
    (held,) = queue.claim(["query"], lanes_max=1, timeout_s=0)
    queue.submit([message(user=f"{n}") for n in range(50)])
    served: dict[int, list[str]] = defaultdict(list)  # in order of arrival, in each part of the queue
    for batch in trace(queue, ["query"]):
        part = queue.part_number(batch) if isinstance(queue, PartedQueue) else 0
        served[part].append(batch.lane.user_id)
    users = [f"{n}" for n in range(50)]
    assert sorted(user for own in served.values() for user in own) == sorted(users)
    for own in served.values():
        assert own == [user for user in users if user in own]
    queue.finish(held, [Done()])
    assert sum(len(batch.deliveries) for batch in trace(queue, ["query"])) == 2
