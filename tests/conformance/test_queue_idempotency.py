"""Explicit idempotency keys and coalescing in a full queue, on every backend."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.conformance.queue_model import message

from memos.errors import InvalidInput, QueueFull
from memos.mem_scheduler.orchestrator import BUILT_IN_CLASSES, TaskPolicy
from memos.mem_scheduler.queues.base import Dead, Done, Retry, TaskQueue
from memos.memory.store import Followup
from memos.testing import ManualClock

Make = Callable[..., TaskQueue]


def drain(queue: TaskQueue, label: str = "query") -> int:
    count = 0
    while batches := queue.claim({label}, lanes_max=8, timeout_s=0):
        for batch in batches:
            queue.finish(batch, [Done()] * len(batch.deliveries))
            count += len(batch.deliveries)
    return count


# -- idempotency keys -----------------------------------------------------------------------------


def test_a_repeated_key_queues_once_and_answers_the_same(queue: TaskQueue) -> None:
    """Made anew, with other item ids, the call is recognised by its key: same keys, nothing twice."""
    first = queue.submit([message(item="1"), message("answer", item="2")], idempotency_key="order-7")
    again = queue.submit([message(item="3"), message("answer", item="4")], idempotency_key="order-7")
    assert again == first
    assert queue.depth().remaining == 2


@pytest.mark.parametrize("end", ["done", "dead", "cancelled"])
def test_a_key_is_remembered_whatever_became_of_its_messages(queue: TaskQueue, end: str) -> None:
    """A settled call is not done a second time."""
    first = queue.submit([message()], idempotency_key="k")
    if end == "cancelled":
        queue.cancel(first)
    else:
        (batch,) = queue.claim({"query"}, lanes_max=1, timeout_s=0)
        queue.finish(batch, [Done() if end == "done" else Dead("never")])
    assert queue.submit([message()], idempotency_key="k") == first
    assert drain(queue) == 0


def test_a_key_is_its_users_and_its_cubes(queue: TaskQueue) -> None:
    """The same text is another key for another user or cube, and no clever id makes it the same."""
    for user, cube in (("a", "x"), ("b", "x"), ("a", "y"), ("a/x", "y"), ("a", "x/y"), ("a%2Fx", "y")):
        queue.submit([message(user=user, cube=cube)], idempotency_key="k")
    queue.submit([message(user="a", cube="x")], idempotency_key="x/k")
    assert queue.depth().remaining == 7


def test_a_key_is_forgotten_after_its_time(make: Make, clock: ManualClock) -> None:
    """`idempotency_ttl_s` counts from the first call; a repeat does not prolong it."""
    queue = make(idempotency_ttl_s=100.0)
    first = queue.submit([message()], idempotency_key="k")
    clock.advance(99.0)
    assert queue.submit([message()], idempotency_key="k") == first
    clock.advance(1.0)
    assert queue.submit([message()], idempotency_key="k") != first
    assert queue.depth().remaining == 2


def test_a_key_used_for_other_messages_is_refused(queue: TaskQueue) -> None:
    """What would silently not be done is an error instead; label, content and task tell calls apart."""
    queue.submit([message(content="pay 7", task="t")], idempotency_key="k")
    for other in (message(content="pay 8", task="t"), message("add", content="pay 7", task="t"), message()):
        with pytest.raises(InvalidInput, match="used for other messages"):
            queue.submit([other], idempotency_key="k")
    assert queue.depth().remaining == 1


def test_one_key_is_for_one_cube(queue: TaskQueue) -> None:
    """A call over several cubes or users, an empty call and an unusable key are InvalidInput."""
    for messages, key in (
        ([message(), message(cube="d")], "k"),
        ([message(), message(user="v")], "k"),
        ([], "k"),
        ([message()], ""),
        ([message()], "k" * 513),
    ):
        with pytest.raises(InvalidInput):
            queue.submit(messages, idempotency_key=key)
    assert queue.depth().remaining == 0


def test_more_keys_than_the_bound_are_refused_and_none_is_pushed_out(make: Make, clock: ManualClock) -> None:
    """A remembered key stays good until its time is over; a new one then finds room."""
    queue = make(idempotency_keys_max=2, idempotency_ttl_s=60.0)
    first = queue.submit([message()], idempotency_key="1")
    clock.advance(10.0)
    queue.submit([message()], idempotency_key="2")
    with pytest.raises(QueueFull, match="idempotency_keys_max"):
        queue.submit([message()], idempotency_key="3")
    assert queue.submit([message()], idempotency_key="1") == first
    queue.submit([message()])  # without a key nothing needs to be remembered
    clock.advance(50.0)
    queue.submit([message()], idempotency_key="3")
    assert queue.depth().remaining == 4


def test_a_refused_call_leaves_its_key_free(make: Make) -> None:
    """What was not queued is not remembered as queued."""
    queue = make(messages_max=1)
    queue.submit([message()])
    with pytest.raises(QueueFull):
        queue.submit([message("add")], idempotency_key="k")
    assert drain(queue) == 1
    queue.submit([message("add")], idempotency_key="k")
    assert queue.depth().remaining == 1


def test_clear_forgets_keys(queue: TaskQueue) -> None:
    """After a clear the same call is queued again."""
    first = queue.submit([message()], idempotency_key="k")
    queue.clear()
    assert queue.submit([message()], idempotency_key="k") != first
    assert queue.depth().remaining == 1


def test_a_key_counts_for_chained_messages_too(queue: TaskQueue) -> None:
    """Two handlers that chain under one key chain once."""
    one = Followup("A" * 26, "P" * 26, message("add"))
    two = Followup("B" * 26, "Q" * 26, message("add"))
    assert queue.submit([], followups=[one], inside_handler=True, idempotency_key="k") == ["A" * 26]
    assert queue.submit([], followups=[two], inside_handler=True, idempotency_key="k") == ["A" * 26]
    assert queue.depth().remaining == 1


# -- coalescing -----------------------------------------------------------------------------------

COALESCING = TaskPolicy(
    ordered=True, concurrency=1, level=BUILT_IN_CLASSES["memory"].level, coalesce=True, max_attempts=3
)


def update(content: str, *, user: str = "user") -> object:
    return message("mem_update", content=content, user=user)


def test_a_delivery_brings_the_messages_it_runs_for(queue: TaskQueue) -> None:
    """The newest is delivered, with all that it absorbed, whole and oldest first; a retry brings them too."""
    queue.policies.put("mem_update", COALESCING)
    keys = queue.submit([update(f"{n}") for n in range(3)])
    for _ in range(2):
        (batch,) = queue.claim({"mem_update"}, lanes_max=1, timeout_s=0)
        (delivery,) = batch.deliveries
        assert delivery.message.content == "2"
        assert [one.content for one in delivery.absorbed] == ["0", "1"]
        assert [one.redis_message_id for one in delivery.absorbed] == keys[:2]
        assert {one.stream_key for one in delivery.absorbed} == {"user/cube/memory"}
        if not delivery.attempts and not delivery.recoveries:
            queue.finish(batch, [Retry("again", 0.0)])
    queue.finish(batch, [Done()])
    assert [row.state for row in queue.statuses()] == ["completed"] * 3


def test_a_full_lane_takes_what_joins_a_waiting_message(make: Make) -> None:
    """`when_full="coalesce"`: no more messages wait than before, and none is dropped."""
    queue = make(lane_messages_max=2)
    queue.policies.put("mem_update", COALESCING)
    queue.submit([message("pref_add"), update("old")])
    with pytest.raises(QueueFull):
        queue.submit([update("new")])
    with pytest.raises(QueueFull):
        queue.submit([message("pref_add")], when_full="coalesce")
    queue.submit([update("new"), update("newest")], when_full="coalesce")
    assert queue.depth().remaining == 2
    batches = queue.claim({"pref_add", "mem_update"}, lanes_max=1, timeout_s=0)
    queue.finish(batches[0], [Done()])
    (batch,) = queue.claim({"mem_update"}, lanes_max=1, timeout_s=0)
    (delivery,) = batch.deliveries
    assert [one.content for one in (*delivery.absorbed, delivery.message)] == ["old", "new", "newest"]


def test_coalescing_in_a_full_lane_has_a_bound(make: Make) -> None:
    """One message runs for 64 others at most; then the lane is full for this label too."""
    queue = make(lane_messages_max=1)
    queue.policies.put("mem_update", COALESCING)
    queue.submit([update("0")])
    for n in range(64):
        queue.submit([update(f"{n + 1}")], when_full="coalesce")
    with pytest.raises(QueueFull):
        queue.submit([update("65")], when_full="coalesce")
    assert queue.depth().remaining == 1
    assert len(queue.statuses()) == 65


def test_what_cannot_join_is_refused_whole(make: Make) -> None:
    """A call in which one message finds nothing to join, or is delayed, takes none."""
    queue = make(lane_messages_max=1)
    queue.policies.put("mem_update", COALESCING)
    queue.submit([update("a"), message("mem_read")])
    with pytest.raises(QueueFull):
        queue.submit([update("b"), message("mem_organize")], when_full="coalesce")
    with pytest.raises(QueueFull):
        queue.submit([update("b")], delay_s=1.0, when_full="coalesce")
    (batch,) = queue.claim({"mem_update"}, lanes_max=1, timeout_s=0)
    with pytest.raises(QueueFull):
        queue.submit([update("b")], when_full="coalesce")  # the one to join runs already
    assert not batch.deliveries[0].absorbed
