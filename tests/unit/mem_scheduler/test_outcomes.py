"""What becomes of messages by what their handler does: outcomes, retries, dead letters, order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.mem_scheduler.parts import USER, Parts, message

from memos import log
from memos.errors import Discard, PartialFailure, RateLimited, RetryLater, StoreAway
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import QUERY_TASK_LABEL, TASK_STATUS_LOG, TaskState
from memos.testing import ManualClock, run_until_idle

Batch = list[ScheduleMessageItem]


def in_one_batch(parts: Parts, label: str) -> None:
    """Let the queue hand out several messages of `label` at once: batches grow while they are quick."""
    seen: list[int] = []
    parts.scheduler.register_handlers({label: lambda batch: seen.append(len(batch))})
    for _ in range(4):
        parts.scheduler.submit_messages([message(label) for _ in range(16)])
        parts.drain()
    assert max(seen) >= 8


def states(parts: Parts, *item_ids: str) -> list[TaskState]:
    return [one.state for item_id in item_ids for one in parts.queue.statuses(item_id=item_id)]


def run_to_the_end(parts: Parts, clock: ManualClock, rounds: int = 20, pause_s: float = 61.0) -> None:
    """Run, let every backoff pass, run again."""
    for _ in range(rounds):
        parts.drain()
        clock.advance(pause_s)
    parts.drain()


def test_fails_three_times_then_succeeds(still: Parts, clock: ManualClock) -> None:
    """A handler that fails three times is retried, ends completed, and its attempts are counted."""
    runs: list[str] = []

    def handler(batch: Batch) -> None:
        runs.append(batch[0].item_id)
        if len(runs) <= 3:
            raise RuntimeError(f"failure {len(runs)}")

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x", task_id="T"))
    still.drain()
    (status,) = still.queue.statuses(item_id="x")
    assert (status.state, status.attempts, status.error) == (TaskState.RETRYING, 1, "RuntimeError: failure 1")
    run_to_the_end(still, clock)
    (status,) = still.queue.statuses(item_id="x")
    assert (status.state, status.attempts, len(runs)) == (TaskState.COMPLETED, 3, 4)
    assert still.queue.dead.list() == []
    tracked = still.scheduler.status_tracker.get_task_status_by_business_id("T", USER)
    assert tracked is not None
    assert tracked["status"] == "completed"
    (told,) = [entry for _, entry in still.store.web_logs(label=TASK_STATUS_LOG)]
    assert (told.status, told.task_id) == ("completed", "T")


def test_fails_always(still: Parts, clock: ManualClock) -> None:
    """A handler that always fails runs max_attempts times; status, dead letters and web log say failed."""
    runs: list[str] = []

    def handler(batch: Batch) -> None:
        runs.append(batch[0].item_id)
        raise ValueError("never works")

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x", task_id="T"))
    run_to_the_end(still, clock)
    assert len(runs) == TaskPolicy().max_attempts
    assert states(still, "x") == [TaskState.FAILED]
    (letter,) = still.queue.dead.list()
    assert (letter.message.item_id, letter.error, letter.attempts) == ("x", "ValueError: never works", 5)
    told = [entry for _, entry in still.store.web_logs(label=TASK_STATUS_LOG)]
    assert [entry.status for entry in told] == ["failed", "failed"]  # the letter, and the business task
    assert {entry.item_id for entry in still.sink.logs if entry.status == "failed"} == {
        entry.item_id for entry in told
    }
    status = still.scheduler.status_tracker.get_task_status("x", USER)
    assert status is not None
    assert (status["status"], status["error"]) == ("failed", "ValueError: never works")


def test_a_dead_letter_can_be_retried(still: Parts, clock: ManualClock) -> None:
    """A letter that is put back runs with fresh budgets and completes."""
    broken = [True]

    def handler(batch: Batch) -> None:
        if broken[0]:
            raise Discard("not while broken")

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    assert states(still, "x") == [TaskState.FAILED]
    broken[0] = False
    assert still.queue.dead.retry() == 1
    still.drain()
    assert states(still, "x") == [TaskState.COMPLETED]


def test_discard_goes_to_the_dead_letters_at_once(still: Parts) -> None:
    """Discard spends no further attempts."""
    runs: list[int] = []

    def handler(batch: Batch) -> None:
        runs.append(1)
        raise Discard("can never succeed")

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    assert (len(runs), states(still, "x")) == (1, [TaskState.FAILED])


def test_retry_later_does_not_count(still: Parts, clock: ManualClock) -> None:
    """RetryLater may be raised more often than max_attempts allows failures."""
    runs: list[int] = []

    def handler(batch: Batch) -> None:
        runs.append(1)
        if len(runs) < 12:
            raise RetryLater(5.0)

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    clock.advance(4.0)
    still.drain()
    assert len(runs) == 1
    run_to_the_end(still, clock)
    assert (len(runs), states(still, "x")) == (12, [TaskState.COMPLETED])


def test_a_rate_limit_sets_the_pause(still: Parts, clock: ManualClock) -> None:
    """The pause after RateLimited is what the endpoint asked for."""
    runs: list[int] = []

    def handler(batch: Batch) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RateLimited(20.0)

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job"))
    still.drain()
    clock.advance(19.0)
    still.drain()
    assert len(runs) == 1
    clock.advance(1.5)
    still.drain()
    assert len(runs) == 2


def test_an_absent_store_costs_no_attempt(still: Parts, clock: ManualClock) -> None:
    """While the store's server is away messages go back to the queue, in order, however often."""
    runs: list[str] = []

    def handler(batch: Batch) -> None:
        runs.append(batch[0].item_id)
        if len(runs) <= 20:
            raise StoreAway("no answer")

    still.scheduler.register_handlers({"mem_read": handler})
    still.scheduler.submit_messages([message("mem_read", item_id=name) for name in ("x", "y")])
    for _ in range(30):
        still.scheduler.run_once()
        clock.advance(1.0)
    assert still.queue.dead.list() == []
    assert runs[-2:] == ["x", "y"] and set(runs[:-2]) == {"x"}
    assert states(still, "y") == [TaskState.COMPLETED]


def test_a_store_that_stays_away_is_a_failure_in_the_end(still: Parts, clock: ManualClock) -> None:
    """What is older than a day is given up like anything else that fails."""

    def handler(batch: Batch) -> None:
        raise StoreAway("no answer")

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x"))
    clock.advance(86_401.0)
    run_to_the_end(still, clock)
    assert states(still, "x") == [TaskState.FAILED]


def test_rate_limits_count_as_no_failure(still: Parts, clock: ManualClock) -> None:
    """However often the endpoint asks to wait, the message is not given up for it."""
    runs: list[int] = []

    def handler(batch: Batch) -> None:
        runs.append(1)
        if len(runs) <= 12:
            raise RateLimited(5.0)

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x"))
    run_to_the_end(still, clock)
    assert (len(runs), states(still, "x")) == (13, [TaskState.COMPLETED])
    assert still.queue.dead.list() == []


def test_only_the_guilty_message_of_a_batch_is_blamed(still: Parts, clock: ManualClock) -> None:
    """When a call over several messages raises, each runs alone and only the bad one fails."""
    in_one_batch(still, "job")
    calls: list[list[str]] = []

    def handler(batch: Batch) -> None:
        calls.append([one.item_id for one in batch])
        if any(one.item_id == "bad" for one in batch):
            raise RuntimeError("poison")

    still.scheduler.register_handlers({"job": handler})
    ids = ["a", "b", "bad", "c", "d"]
    still.scheduler.submit_messages([message("job", item_id=one) for one in ids])
    run_to_the_end(still, clock)
    assert calls[0] == ids
    assert states(still, "a", "b", "c", "d") == [TaskState.COMPLETED] * 4
    assert states(still, "bad") == [TaskState.FAILED]
    (letter,) = still.queue.dead.list()
    assert (letter.message.item_id, letter.attempts) == ("bad", 5)


def test_partial_failure_names_the_failed_ones(still: Parts, clock: ManualClock) -> None:
    """PartialFailure retries what it names, by item id or key, and settles the rest."""
    in_one_batch(still, "job")
    calls: list[list[str]] = []

    def handler(batch: Batch) -> None:
        calls.append([one.item_id for one in batch])
        if len(calls) == 1:
            raise PartialFailure({"b": "b is sick", batch[2].redis_message_id: "c too"})

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages([message("job", item_id=one) for one in "abcd"])
    still.drain()
    assert states(still, *"abcd") == [
        TaskState.COMPLETED,
        TaskState.RETRYING,
        TaskState.RETRYING,
        TaskState.COMPLETED,
    ]
    run_to_the_end(still, clock)
    assert states(still, *"abcd") == [TaskState.COMPLETED] * 4
    assert sorted(one for call in calls[1:] for one in call) == ["b", "c"]


def test_a_partial_failure_that_names_nobody_fails_everybody(still: Parts, clock: ManualClock) -> None:
    """A PartialFailure about messages of another call settles nothing as done."""
    in_one_batch(still, "job")

    def handler(batch: Batch) -> None:
        raise PartialFailure({"somebody else": "?"})

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages([message("job", item_id=one) for one in "ab"])
    run_to_the_end(still, clock)
    assert states(still, *"ab") == [TaskState.FAILED] * 2


@pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit(3), RetryLater(1.0)])
def test_an_ordered_lane_keeps_its_order_through_failures(
    still: Parts, clock: ManualClock, error: BaseException
) -> None:
    """In an ordered lane nothing completes before an earlier message that has to be retried."""
    in_one_batch(still, QUERY_TASK_LABEL)
    done: list[str] = []
    failures = [2]

    def handler(batch: Batch) -> None:
        for one in batch:
            if one.item_id == "c" and failures[0]:
                failures[0] -= 1
                raise error
        done.extend(one.item_id for one in batch)

    still.scheduler.register_handlers({QUERY_TASK_LABEL: handler})
    still.scheduler.submit_messages([message(QUERY_TASK_LABEL, item_id=one) for one in "abcdef"])
    run_to_the_end(still, clock, pause_s=2.0)  # well below what a strict retry may block its lane
    assert done == list("abcdef")
    assert states(still, *"abcdef") == [TaskState.COMPLETED] * 6


def test_runs_of_one_label_are_handled_together(still: Parts) -> None:
    """A batch of several labels reaches each handler in the order of the lane."""
    in_one_batch(still, "query")
    calls: list[tuple[str, list[str]]] = []

    def recorder(label: str) -> Any:
        return lambda batch: calls.append((label, [one.item_id for one in batch]))

    still.scheduler.register_handlers({label: recorder(label) for label in ("query", "answer", "add")})
    order = [("query", "1"), ("query", "2"), ("answer", "3"), ("query", "4"), ("add", "5")]
    still.scheduler.submit_messages([message(label, item_id=item_id) for label, item_id in order])
    still.drain()
    assert [(label, one) for label, ids in calls for one in ids] == order
    assert calls[0] == ("query", ["1", "2"])


def test_a_business_task_is_told_once_when_all_is_settled(still: Parts) -> None:
    """The closing log comes with the last message of the task, chained ones included, and only once."""
    scheduler = still.scheduler

    def chain(batch: Batch) -> None:
        for one in batch:
            scheduler.submit_messages(one.model_copy(update={"label": "second"}))

    seen: list[int] = []

    def second(batch: Batch) -> None:
        seen.append(len(list(still.store.web_logs(label=TASK_STATUS_LOG))))

    scheduler.register_handlers({"first": chain, "second": second})
    scheduler.submit_messages([message("first", task_id="T", item_id=str(n)) for n in range(3)])
    still.drain()
    assert set(seen) == {0}
    (told,) = [entry for _, entry in still.store.web_logs(label=TASK_STATUS_LOG)]
    assert (told.task_id, told.status) == ("T", "completed")
    assert told.metadata is not None
    assert len(told.metadata) == 6
    assert told.current_memory_sizes["working_memory_size"] == 0


def test_a_lost_lease_is_not_an_error_of_the_loop(still: Parts, clock: ManualClock) -> None:
    """A handler that outlives its lease without heartbeats loses the batch: nothing of it is recorded,
    and the message runs again."""
    runs: list[int] = []

    def handler(batch: Batch) -> None:
        runs.append(1)
        if len(runs) == 1:
            clock.advance(31.0)
            assert still.queue.claim({"other"}, lanes_max=1, timeout_s=0) == []  # lost leases are noticed

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    assert (len(runs), states(still, "x")) == (2, [TaskState.COMPLETED])
    assert still.scheduler.monitor.tasks.counts()["job"].lease_lost == 1


def test_letters_made_by_the_queue_are_told_too(still: Parts, clock: ManualClock) -> None:
    """A message whose workers die again and again is dead-lettered by the queue; the log says so."""
    still.scheduler.register_handlers({"job": lambda batch: None})
    still.scheduler.submit_messages(message("job", item_id="x", task_id="T"))
    for _ in range(5):
        still.queue.claim({"job"}, lanes_max=1, timeout_s=0)
        clock.advance(31.0)
    still.queue.claim({"job"}, lanes_max=1, timeout_s=0)
    clock.advance(2.0)
    still.scheduler.keep_house()
    still.scheduler.keep_house()
    told = [entry for _, entry in still.store.web_logs(label=TASK_STATUS_LOG)]
    assert [entry.status for entry in told] == ["failed", "failed"]


def test_a_message_tried_alone_is_as_it_was_delivered(still: Parts) -> None:
    """What a failed call did to its messages is not seen by the runs of each alone."""
    in_one_batch(still, "job")
    seen: list[object] = []

    def handler(batch: Batch) -> None:
        if len(batch) > 1:
            for one in batch:
                assert one.info is not None
                one.info.clear()
                one.content = "spoilt"
            raise RuntimeError("after spoiling them")
        seen.append((batch[0].content, batch[0].info))

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages([message("job", text, info={"n": text}) for text in "abc"])
    still.drain()
    assert seen == [("a", {"n": "a"}), ("b", {"n": "b"}), ("c", {"n": "c"})]


class Unprintable(Exception):
    """An error that fails to say what it is."""

    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_error_without_a_text_is_still_an_outcome(still: Parts) -> None:
    """A handler's error that cannot be printed, or a failure given as an exception, is retried like any."""

    def unprintable(batch: Batch) -> None:
        raise Unprintable

    def partial(batch: Batch) -> None:
        raise PartialFailure({batch[0].item_id: RuntimeError("as an object")})  # type: ignore[dict-item]

    still.scheduler.register_handlers({"one": unprintable, "two": partial})
    still.scheduler.submit_messages([message("one", item_id="1"), message("two", item_id="2")])
    still.drain()
    assert states(still, "1", "2") == [TaskState.RETRYING] * 2
    (status,) = still.queue.statuses(item_id="1")
    assert status.error.startswith("Unprintable:")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_log_of_a_failed_handler_names_the_line_and_no_text(
    still: Parts, capsys: pytest.CaptureFixture[str], asynchronous: bool
) -> None:
    """The warning says which line of the handler raised, and quotes neither the error nor the message."""

    def fail(batch: Batch) -> None:
        json.loads(batch[0].content)

    async def fail_later(batch: Batch) -> None:
        fail(batch)

    still.scheduler.register_handlers({"job": fail_later if asynchronous else fail})
    still.scheduler.submit_messages(message("job", content="[my-secret"))
    log.configure("INFO")
    still.drain()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "handler.failed" in line]
    raising = fail.__code__.co_firstlineno + 1
    assert f"test_outcomes.py:{raising} > decoder.py:" in line
    assert "my-secret" not in line
    assert "Expecting" not in line


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseExceptionGroup("several", [KeyboardInterrupt()]),
    ],
)
def test_whatever_is_raised_on_the_pool_is_the_handlers_failure(parts: Parts, error: BaseException) -> None:
    """What is no Exception counts as a failed attempt too: nothing stays in progress that does not run."""

    def handler(batch: Batch) -> None:
        raise error

    parts.scheduler.register_handlers({"job": (handler, TaskPolicy(max_attempts=1))})
    parts.scheduler.start()
    parts.scheduler.submit_messages(message("job", item_id="x"))
    run_until_idle(parts.scheduler)
    assert states(parts, "x") == [TaskState.FAILED]
    (letter,) = parts.queue.dead.list()
    assert letter.error.startswith(type(error).__name__)


def test_a_handler_that_returns_a_generator_has_done_nothing(still: Parts) -> None:
    """A callable whose call only makes a generator is a failure that says so, never a success."""

    class Hidden:
        def __call__(self, batch: Batch) -> Any:
            yield batch

    still.scheduler.register_handlers({"job": (Hidden(), TaskPolicy(max_attempts=1))})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    (letter,) = still.queue.dead.list()
    assert "generator" in letter.error
