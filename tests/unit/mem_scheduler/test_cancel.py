"""Cancelling: surely before it runs, by a flag that the handler can read while it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.mem_scheduler.parts import Parts, message

from memos.errors import InvalidInput, QueueUnavailable, TaskCancelled
from memos.mem_scheduler import current
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.testing import ManualClock


def states(parts: Parts) -> dict[str, str]:
    return {row.item_id: str(row.state) for row in parts.queue.statuses()}


def test_what_waits_never_runs(still: Parts, clock: ManualClock) -> None:
    """Queued and delayed messages are taken out, by key, and show as cancelled."""
    ran: list[object] = []
    still.scheduler.register_handlers({"job": ran.extend})
    keys = still.scheduler.submit_messages([message("job", item_id="a"), message("job", item_id="b")])
    keys += still.scheduler.submit_messages(message("job", item_id="c"), delay_s=5.0)
    done = still.scheduler.cancel_messages(keys[1:])
    assert (done.taken_out, done.asked) == (tuple(keys[1:]), ())
    clock.advance(10.0)
    still.drain()
    assert [one.item_id for one in ran] == ["a"]
    assert states(still) == {"a": "completed", "b": "cancelled", "c": "cancelled"}
    assert still.scheduler.cancel_messages(keys) == type(done)((), ())


def test_a_business_task_is_cancelled_whole_and_told_of(still: Parts) -> None:
    """All its open messages of one user, and no other user's; its closing log says cancelled."""
    ran: list[object] = []
    still.scheduler.register_handlers({"job": ran.extend})
    still.scheduler.submit_messages(
        [message("job", item_id=f"{n}", task_id="task") for n in range(3)]
        + [message("job", item_id="other", task_id="task", user_id="somebody else")]
    )
    done = still.scheduler.cancel_messages(task_id="task", user_id="user_1")
    assert len(done.taken_out) == 3
    assert [(one.status, one.task_id) for _, one in still.store.web_logs(label="taskStatus")] == [
        ("cancelled", "task")
    ]
    still.drain()
    assert [one.item_id for one in ran] == ["other"]


def test_an_item_is_cancelled_with_what_was_chained_from_it(still: Parts) -> None:
    """Messages that share an item id are cancelled together."""
    still.scheduler.submit_messages([message("job", item_id="x"), message("later", item_id="x")])
    still.scheduler.submit_messages(message("job", item_id="y"))
    assert len(still.scheduler.cancel_messages(item_id="x").taken_out) == 2
    assert states(still) == {"x": "cancelled", "y": "waiting"}


def test_a_cancel_without_a_name_is_refused(still: Parts) -> None:
    """Nothing named is never everything."""
    still.scheduler.submit_messages(message("job"))
    for nothing in ({}, {"keys": []}):
        with pytest.raises(InvalidInput):
            still.scheduler.cancel_messages(**nothing)
    assert still.queue.depth().remaining == 1


def test_a_cancelled_followup_leaves_the_outbox(still: Parts) -> None:
    """A chained message of a built-in that was cancelled is not brought back by the next start."""
    still.scheduler.submit_messages(message("query", "what is the puppy called?"))
    still.scheduler.run_once()
    assert len(still.store.pending_followups()) == 1
    still.scheduler.cancel_messages(user_id="user_1")
    assert still.store.pending_followups() == []


# -- while it runs --------------------------------------------------------------------------------


def cancelling(parts: Parts, then: Callable[[list], None]) -> Callable[[list], None]:
    """A handler that is cancelled while it runs, and then does `then`."""

    def handler(batch: list) -> None:
        done = parts.scheduler.cancel_messages([one.redis_message_id for one in batch])
        assert done.asked == tuple(one.redis_message_id for one in batch)
        then(batch)

    return handler


def test_a_running_handler_reads_the_flag_and_stops(still: Parts) -> None:
    """`stop_if_cancelled` ends it; the message ends as cancelled, without a retry, and frees its lane."""
    seen: list[bool] = []

    def stop(batch: list) -> None:
        seen.append(current.cancelled(batch[0]) and current.cancelled())
        current.stop_if_cancelled()
        raise AssertionError("it went on")

    still.scheduler.register_handlers({"query": cancelling(still, stop), "answer": lambda batch: None})
    still.scheduler.submit_messages([message("query", item_id="q"), message("answer", item_id="a")])
    still.drain()
    assert seen == [True]
    assert states(still) == {"q": "cancelled", "a": "completed"}
    assert still.queue.depth().dead == 0


def test_a_coroutine_reads_the_flag(still: Parts) -> None:
    """The flag is the same for `async def` handlers."""

    async def handler(batch: list) -> None:
        still.scheduler.cancel_messages(batch[0].redis_message_id)
        current.stop_if_cancelled()

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    assert states(still) == {"x": "cancelled"}


def test_a_handler_that_finishes_all_the_same_has_completed(still: Parts) -> None:
    """What was done is not called cancelled."""
    still.scheduler.register_handlers({"job": cancelling(still, lambda batch: None)})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    assert states(still) == {"x": "completed"}


def test_a_failed_run_of_a_cancelled_message_is_its_last(still: Parts, clock: ManualClock) -> None:
    """It is not tried again."""
    runs: list[object] = []

    def fail(batch: list) -> None:
        runs.append(batch)
        raise RuntimeError("broken")

    still.scheduler.register_handlers({"job": cancelling(still, fail)})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    clock.advance(100.0)
    still.drain()
    assert (len(runs), states(still)) == (1, {"x": "cancelled"})


def test_what_waits_in_a_batch_behind_a_long_call_is_not_begun(still: Parts, clock: ManualClock) -> None:
    """Leased together, cancelled before its own turn: it never runs."""
    policy = TaskPolicy(ordered=True, concurrency=1, level=still.queue.policies.get("query").level)
    ran: list[str] = []

    def slow(batch: list) -> None:
        ran.extend(one.item_id for one in batch)
        still.scheduler.cancel_messages(item_id="second")
        clock.advance(1.0)

    still.scheduler.register_handlers({"query": (slow, policy), "answer": lambda b: ran.append("answer")})
    still.queue._ledger._sizes._sizes.update({"query": 8, "answer": 8})
    still.scheduler.submit_messages([message("query", item_id="first"), message("answer", item_id="second")])
    still.drain()
    assert (ran, states(still)) == (["first"], {"first": "completed", "second": "cancelled"})


def test_giving_up_for_a_cancel_that_nobody_asked_for_is_a_failure(still: Parts, clock: ManualClock) -> None:
    """A handler that raises TaskCancelled by mistake is retried and dead-lettered like any other."""

    def handler(batch: list) -> None:
        assert not current.cancelled()
        raise TaskCancelled("I thought so")

    still.scheduler.register_handlers({"job": (handler, TaskPolicy(max_attempts=2, backoff_base_s=0.0))})
    still.scheduler.submit_messages(message("job"))
    still.drain()
    assert [letter.attempts for letter in still.queue.dead.list()] == [2]


def test_the_flag_is_looked_up_now_and_then(still: Parts, clock: ManualClock) -> None:
    """A loop may ask as often as it likes: the queue is asked five times a second at most."""
    asked: list[str] = []
    look = still.queue.is_cancelled

    def counted(key: str) -> bool:
        asked.append(key)
        return look(key)

    still.queue.is_cancelled = counted  # type: ignore[method-assign]

    def handler(batch: list) -> None:
        for _ in range(100):
            assert not current.cancelled()
        still.queue.cancel([batch[0].redis_message_id])
        assert not current.cancelled()
        clock.advance(0.2)
        assert current.cancelled()
        assert current.cancelled()

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job"))
    still.drain()
    assert len(asked) == 2


def test_a_queue_that_does_not_answer_cancels_nothing(still: Parts) -> None:
    """The handler goes on; the look is made again later."""

    def down(key: str) -> bool:
        raise QueueUnavailable("down")

    still.queue.is_cancelled = down  # type: ignore[method-assign]
    seen: list[bool] = []
    still.scheduler.register_handlers({"job": lambda batch: seen.append(current.cancelled())})
    still.scheduler.submit_messages(message("job"))
    still.drain()
    assert seen == [False]


def test_outside_a_handler_nothing_is_cancelled() -> None:
    """The functions for handlers answer calmly anywhere."""
    assert not current.cancelled()
    assert current.absorbed(message("job")) == ()
    current.stop_if_cancelled()
