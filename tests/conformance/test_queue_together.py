"""Several batches settled in one call: each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable

from tests.conformance.queue_model import message
from tests.conformance.redis_keys import check_queue

from memos.errors import LeaseLost
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Batch, Dead, Done, Finish, Release, Retry, Settled, TaskQueue
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.memory.store import Followup
from memos.testing import ManualClock

Make = Callable[..., TaskQueue]


def claim(queue: TaskQueue, label: str, lanes: int = 8, batch: int | None = None) -> list[Batch]:
    return queue.claim({label}, lanes_max=lanes, batch_max=batch, timeout_s=0)


def states(answer: list[Settled] | LeaseLost) -> list[TaskState]:
    assert not isinstance(answer, LeaseLost)
    return [one.state for one in answer]


def check(queue: TaskQueue) -> None:
    check_queue(queue)


def test_a_lost_lease_among_them_changes_nothing_for_the_others(queue: TaskQueue, clock: ManualClock) -> None:
    """It is answered with its LeaseLost and brings in no followup; the rest is settled."""
    queue.policies.put("query", TaskPolicy(ordered=True, concurrency=1, level=1, min_idle_ms=5_000))
    queue.submit([message(user=user) for user in "abc"])
    batches = claim(queue, "query")
    assert queue.renew([batches[0], batches[2]]) == []
    clock.advance(4.0)
    queue.renew([batches[0], batches[2]])
    clock.advance(2.0)
    (again,) = claim(queue, "query")
    assert again.lane == batches[1].lane
    child = Followup("C" * 26, batches[1].deliveries[0].key, message(user="late"))
    kept = Followup("D" * 26, batches[2].deliveries[0].key, message(user="kept"))
    answers = queue.finish_all(
        [
            Finish(batches[0], [Done()]),
            Finish(batches[1], [Done()], [child]),
            Finish(batches[2], [Done()], [kept]),
        ]
    )
    assert states(answers[0]) == states(answers[2]) == [TaskState.COMPLETED]
    assert isinstance(answers[1], LeaseLost)
    assert queue.live([child.key, kept.key]) == {kept.key}
    assert states(queue.finish_all([Finish(again, [Done()])])[0]) == [TaskState.COMPLETED]
    check(queue)


def test_batches_of_one_lane_end_together_each_its_own_way(queue: TaskQueue, clock: ManualClock) -> None:
    """Done, retried, dead and handed back in one call; a chained message of the emptied lane runs."""
    queue.policies.put("free", TaskPolicy(concurrency=4, batch_size_max=1, max_attempts=3))
    keys = queue.submit([message("free") for _ in range(4)])
    batches = claim(queue, "free")
    assert [batch.deliveries[0].key for batch in batches] == keys
    chained = Followup("C" * 26, keys[0], message("free"))
    answers = queue.finish_all(
        [
            Finish(batches[0], [Done()], [chained]),
            Finish(batches[1], [Retry("again", 0.0)]),
            Finish(batches[2], [Dead("never")]),
            Finish(batches[3], [Release()]),
        ]
    )
    assert [states(answer) for answer in answers] == [
        [TaskState.COMPLETED],
        [TaskState.RETRYING],
        [TaskState.FAILED],
        [TaskState.WAITING],
    ]
    check(queue)
    ran = []
    while batches := claim(queue, "free"):
        ran += [one.key for batch in batches for one in batch.deliveries]
        queue.finish_all([Finish(batch, [Done()]) for batch in batches])
        check(queue)
    assert sorted(ran) == sorted([keys[1], keys[3], chained.key])
    assert queue.depth().remaining == queue.depth().running == 0


def test_lanes_that_end_together_leave_nothing_behind(queue: TaskQueue) -> None:
    """All done, with a chained message into one of the lanes: only that one is left."""
    queue.submit([message(user=user) for user in "abc" for _ in range(3)])
    chained = Followup("C" * 26, "P" * 26, message(user="b"))
    while batches := claim(queue, "query"):
        followups = [chained] if queue.depth().remaining == 0 and chained else []
        finishes = [Finish(one, [Done()] * len(one.deliveries)) for one in batches]
        finishes[0] = Finish(batches[0], finishes[0].outcomes, followups)
        if followups:
            chained = None
        queue.finish_all(finishes)
        check(queue)
    assert queue.depth().remaining == 0
    assert not queue.depth().lanes
    assert {row.state for row in queue.statuses()} == {TaskState.COMPLETED}
    assert len(queue.statuses()) == 10
