"""What users of other queues complain of, as cases for every backend.

Elsewhere in this folder: reclaim only after a non-empty read (`test_queue_waiting`, taskiq-redis), reclaim by age
of a live task (`test_queue`, taskiq-redis#101, celery#5935), a rescue that overwrites a completed job
(`test_queue`, `test_queue_peers`, river#1302), a restarted node with its old name (`test_queue_operators`,
oban#862), one tenant that starves all (`test_queue_fairness`, graphile/worker#331).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.conformance.queue_model import message

from memos.errors import LeaseLost
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Batch, Dead, Done, PartedQueue, Retry, TaskQueue
from memos.testing import ManualClock

Make = Callable[..., TaskQueue]


def claim(queue: TaskQueue, label: str = "query", *, lanes: int = 1) -> list[Batch]:
    return queue.claim({label}, lanes_max=lanes, timeout_s=0)


def settle(queue: TaskQueue, batch: Batch) -> None:
    queue.finish(batch, [Done()] * len(batch.deliveries))


def test_who_dies_while_taking_over_blocks_nobody(queue: TaskQueue, clock: ManualClock) -> None:
    """There is no lock that a dead rescuer could keep (taskiq-redis#131): the next one takes over in its time."""
    (key,) = queue.submit([message()])
    lost = [claim(queue)[0]]
    for _ in range(2):
        clock.advance(31.0)
        lost.append(claim(queue)[0])  # takes over, and dies in its turn
    clock.advance(31.0)
    (last,) = claim(queue)
    assert [delivery.key for delivery in last.deliveries] == [key]
    for late in lost:
        with pytest.raises(LeaseLost):
            settle(queue, late)
    settle(queue, last)
    assert queue.depth().remaining == queue.depth().running == 0


def test_what_is_done_leaves_nothing_behind(make: Make) -> None:
    """Acknowledged entries are deleted (safe-decoder#329): after a drain no lane, no payload, bounded status rows."""
    queue: Any = make(status_entries_max=10)
    for round_ in range(3):
        queue.submit([message(user=f"{round_}-{n}", content="x" * 1_000) for n in range(40)])
        while batches := claim(queue, lanes=16):
            for batch in batches:
                settle(queue, batch)
    depth = queue.depth()
    assert (depth.remaining, depth.running, depth.lanes) == (0, 0, ())
    assert queue.leases() == []
    assert len(queue.statuses()) <= 11 * (queue.part_count if isinstance(queue, PartedQueue) else 1)
    if hasattr(queue, "client"):
        left = queue.client.keys(f"{queue.prefix}:*")
        assert [key for key in left if queue.client.type(key) in ("stream", b"stream")] == []
        assert [key for key in left if "-39" in str(key) and queue.client.ttl(key) < 0] == []


def test_a_retry_in_the_future_holds_no_lock(queue: TaskQueue, clock: ManualClock) -> None:
    """A label whose retries step aside lets its lane go on (procrastinate#1599), also an unordered one."""
    for label, policy in (
        ("aside", TaskPolicy(ordered=True, concurrency=1, retry_order="aside")),
        ("free", TaskPolicy(concurrency=1)),
    ):
        queue.policies.put(label, policy)
        first, second = queue.submit([message(label), message(label)])
        (batch,) = queue.claim({label}, lanes_max=1, batch_max=1, timeout_s=0)
        queue.finish(batch, [Retry("later", 3_600.0)])
        (batch,) = claim(queue, label)
        assert [delivery.key for delivery in batch.deliveries] == [second]
        settle(queue, batch)
        assert claim(queue, label) == []
        clock.advance(3_600.0)
        (batch,) = claim(queue, label)
        assert [delivery.key for delivery in batch.deliveries] == [first]
        settle(queue, batch)


def test_a_poison_message_does_not_crash_workers_for_ever(make: Make, clock: ManualClock) -> None:
    """A message that kills whoever runs it is given up after `max_recoveries` (sidekiq#4633), alone: what was
    leased with it is done."""
    queue = make()
    keys = queue.submit([message(content=f"{n}") for n in range(8)])
    poison = keys[3]
    crashes = 0
    done: list[str] = []
    for _ in range(60):
        batches = claim(queue)
        if not batches:
            clock.advance(31.0)
            if not (batches := claim(queue)):
                break
        (batch,) = batches
        held = [delivery.key for delivery in batch.deliveries]
        if poison in held:
            crashes += 1  # the process is gone: nobody renews, nobody finishes
            clock.advance(31.0)
            continue
        settle(queue, batch)
        done += held
    assert crashes == 1 + queue.policies.get("query").max_recoveries
    assert [letter.key for letter in queue.dead.list()] == [poison]
    assert sorted(done) == sorted(set(keys) - {poison})


def test_no_number_of_messages_wedges_a_call(make: Make) -> None:
    """More than 8,000 values at once (dramatiq#258): one submit, one call over many dead letters, one clear."""
    count = 9_000
    queue = make(lane_messages_max=count, dead_letters_max=count)
    queue.policies.put("bulk", TaskPolicy(batch_size_max=256, concurrency=1))
    keys = queue.submit([message("bulk") for _ in range(count)])
    assert len(set(keys)) == count
    taken = 0
    while batches := claim(queue, "bulk"):
        for batch in batches:
            queue.finish(batch, [Dead("bulk")] * len(batch.deliveries))
            taken += len(batch.deliveries)
    assert taken == count
    assert queue.depth().dead == count
    assert queue.dead.retry() == count
    assert len(queue.cancel(keys[:8_500])) == 8_500
    assert len(queue.live(keys)) == 500
    assert queue.clear() == 500
    assert queue.depth().remaining == 0
