"""Starting, stopping, starting again; threads, contexts and coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from pathlib import Path

import pytest
from tests.unit.mem_scheduler.parts import Parts, assembled, message

from memos import context
from memos.configs.mem_scheduler import GeneralSchedulerConfig
from memos.errors import QueueUnavailable
from memos.mem_scheduler.queues.base import Batch
from memos.mem_scheduler.queues.local import LocalQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import QUERY_TASK_LABEL, RunningTaskItem, TaskState
from memos.testing import ManualClock, run_until_idle

Messages = list[ScheduleMessageItem]


def test_start_is_idempotent_and_stop_can_be_repeated(parts: Parts) -> None:
    """A second start starts no second consumer, and a second stop is no error."""
    scheduler = parts.scheduler
    scheduler.start()
    consumers = [one for one in threading.enumerate() if one.name == "memos-consumer"]
    scheduler.start()
    assert [one for one in threading.enumerate() if one.name == "memos-consumer"] == consumers
    assert scheduler._running
    scheduler.stop()
    scheduler.stop()
    assert not scheduler._running


def test_a_stopped_scheduler_can_be_started_again(parts: Parts) -> None:
    """Messages submitted while it is stopped run after the next start."""
    scheduler = parts.scheduler
    seen: list[str] = []
    scheduler.register_handlers({"job": lambda batch: seen.extend(one.content for one in batch)})
    for content in ("first", "second", "third"):
        scheduler.submit_messages(message("job", content))
        scheduler.start()
        run_until_idle(scheduler)
        scheduler.stop()
    assert seen == ["first", "second", "third"]


def test_stop_ends_the_event_loop_of_a_scheduler_that_was_never_started(still: Parts) -> None:
    """What `run_once` started for an asynchronous handler ends with stop too."""

    async def handler(batch: object) -> None:
        loops.append(threading.current_thread())

    loops: list[threading.Thread] = []
    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job"))
    still.drain()
    still.scheduler.stop()
    (loop,) = loops
    loop.join(5.0)
    assert not loop.is_alive()


def test_all_threads_are_daemons_and_end_with_stop(parts: Parts) -> None:
    """No thread of ours can keep the interpreter alive, and none is left after stop."""
    others = set(threading.enumerate())
    parts.scheduler.register_handlers({"job": lambda batch: None})
    parts.scheduler.start()
    parts.scheduler.submit_messages(message("job"))
    run_until_idle(parts.scheduler)
    ours = [one for one in threading.enumerate() if one not in others and one.name.startswith("memos-")]
    assert len(ours) >= 4
    assert all(one.daemon for one in ours)
    parts.scheduler.stop()
    for one in ours:
        one.join(5.0)
    assert not [one for one in ours if one.is_alive()]


def test_stop_lets_what_runs_finish(parts: Parts) -> None:
    """A handler that is running when stop is called completes, and its message is done."""
    entered, leave = threading.Event(), threading.Event()

    def handler(batch: Messages) -> None:
        entered.set()
        assert leave.wait(10.0)

    parts.scheduler.register_handlers({"job": handler})
    parts.scheduler.start()
    parts.scheduler.submit_messages(message("job", item_id="x"))
    assert entered.wait(10.0)
    stopper = threading.Thread(target=parts.scheduler.stop)
    stopper.start()
    leave.set()
    stopper.join(10.0)
    assert not stopper.is_alive()
    assert [one.state for one in parts.queue.statuses(item_id="x")] == [TaskState.COMPLETED]


def test_stop_hands_back_what_outlives_the_grace(parts: Parts) -> None:
    """A handler that does not end in time loses its message, which runs again after the next start."""
    entered, leave = threading.Event(), threading.Event()
    runs: list[int] = []

    def handler(batch: Messages) -> None:
        runs.append(1)
        entered.set()
        if len(runs) == 1:
            leave.wait(10.0)

    parts.scheduler.register_handlers({"job": handler})
    parts.scheduler.start()
    parts.scheduler.submit_messages(message("job", item_id="x"))
    assert entered.wait(10.0)
    parts.scheduler.stop(grace_s=0.0)
    assert [one.state for one in parts.queue.statuses(item_id="x")] == [TaskState.WAITING]
    leave.set()
    parts.scheduler.start()
    run_until_idle(parts.scheduler)
    assert len(runs) == 2
    assert [one.state for one in parts.queue.statuses(item_id="x")] == [TaskState.COMPLETED]


def test_a_handler_may_stop_the_scheduler(parts: Parts) -> None:
    """stop inside a handler returns at once, and the handler's message is done."""
    parts.scheduler.register_handlers({"job": lambda batch: parts.scheduler.stop()})
    parts.scheduler.start()
    parts.scheduler.submit_messages(message("job", item_id="x"))
    run_until_idle(parts.scheduler)
    for one in threading.enumerate():
        if one.name == "memos-stop":
            one.join(10.0)
    assert not parts.scheduler._running
    assert [one.state for one in parts.queue.statuses(item_id="x")] == [TaskState.COMPLETED]


def test_the_pool_bounds_what_is_claimed(tmp_path: Path) -> None:
    """Never more batches are leased than the pool has places: the rest waits in the queue."""
    config = GeneralSchedulerConfig(thread_pool_max_workers=3)
    with assembled(tmp_path, config=config) as parts:
        leave = threading.Event()
        at_work = threading.Semaphore(0)

        def handler(batch: Messages) -> None:
            at_work.release()
            leave.wait(10.0)

        parts.scheduler.register_handlers({"job": handler})
        parts.scheduler.submit_messages([message("job", user_id=f"u{n}") for n in range(20)])
        parts.scheduler.start()
        for _ in range(3):
            assert at_work.acquire(timeout=10.0)
        status = parts.scheduler.get_tasks_status()
        assert (status["running"], status["remaining"]) == (3, 17)
        running = parts.scheduler.get_running_tasks(lambda task: task.task_name == "job_handler")
        assert {task["status"] for task in running.values()} == {"running"}
        assert len(running) == 3
        leave.set()
        run_until_idle(parts.scheduler)
        assert parts.scheduler.get_running_tasks() == {}


def test_without_parallel_dispatch_one_handler_runs_at_a_time(tmp_path: Path) -> None:
    """enable_parallel_dispatch=False serialises all handlers."""
    config = GeneralSchedulerConfig(enable_parallel_dispatch=False)
    with assembled(tmp_path, config=config) as parts:
        inside: list[int] = []
        most: list[int] = []
        lock = threading.Lock()

        def handler(batch: Messages) -> None:
            with lock:
                inside.append(1)
                most.append(len(inside))
            threading.Event().wait(0.001)
            with lock:
                inside.pop()

        parts.scheduler.register_handlers({"job": handler})
        parts.scheduler.submit_messages([message("job", user_id=f"u{n}") for n in range(12)])
        parts.scheduler.start()
        run_until_idle(parts.scheduler)
        assert max(most) == 1


def test_coroutine_handlers_run_on_one_loop_under_their_context(parts: Parts) -> None:
    """`async def` handlers share one event loop thread and see the context of their message."""
    seen: list[tuple[str, str, int]] = []

    async def handler(batch: Messages) -> None:
        await asyncio.sleep(0)
        seen.append((context.trace_id.get(), parts.scheduler.current_mem_cube_id, threading.get_ident()))

    parts.scheduler.register_handlers({"job": handler})
    parts.scheduler.start()
    parts.scheduler.submit_messages([message("job", mem_cube_id=f"c{n}", trace_id=f"t{n}") for n in range(4)])
    run_until_idle(parts.scheduler)
    assert sorted(one[:2] for one in seen) == [(f"t{n}", f"c{n}") for n in range(4)]
    assert len({one[2] for one in seen}) == 1


def test_a_failing_coroutine_is_a_failed_handler(still: Parts) -> None:
    """What a coroutine raises decides the outcome like any other exception."""

    async def handler(batch: Messages) -> None:
        raise RuntimeError("in the coroutine")

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    (status,) = still.queue.statuses(item_id="x")
    assert (status.state, status.error) == (TaskState.RETRYING, "RuntimeError: in the coroutine")


def test_two_cubes_never_see_each_other(parts: Parts) -> None:
    """While handlers of two cubes run at the same time, each sees its own cube, user, trace and task."""
    barrier = threading.Barrier(2, timeout=10.0)
    seen: list[tuple[str, ...]] = []

    def look() -> tuple[str, ...]:
        scheduler = parts.scheduler
        return (
            scheduler.current_mem_cube.cube_id,
            scheduler.mem_cube.cube_id,
            scheduler.current_mem_cube_id,
            scheduler.current_user_id,
            context.trace_id.get(),
            context.task_id.get(),
        )

    def handler(batch: Messages) -> None:
        barrier.wait()
        before = look()
        barrier.wait()
        carried = contextvars.copy_context()
        inner: list[tuple[str, ...]] = []
        helper = threading.Thread(target=lambda: inner.append(carried.run(look)))
        helper.start()
        helper.join()
        assert before == look() == inner[0]
        seen.append(before)

    parts.scheduler.register_handlers({"job": handler})
    parts.scheduler.start()
    for round_ in range(5):
        parts.scheduler.submit_messages(
            [
                message(
                    "job",
                    user_id=f"user_{name}",
                    mem_cube_id=f"cube_{name}",
                    trace_id=f"{round_}{name}",
                    task_id=name,
                )
                for name in "ab"
            ]
        )
        run_until_idle(parts.scheduler)
    expected = {
        (f"cube_{name}",) * 3 + (f"user_{name}", f"{round_}{name}", name)
        for name in "ab"
        for round_ in range(5)
    }
    assert set(seen) == expected
    assert parts.scheduler.current_mem_cube.cube_id == "default"
    assert parts.scheduler.current_user_id == ""


def test_the_default_cube_can_be_set(still: Parts) -> None:
    """Outside handlers `current_mem_cube` is what init_mem_cube set; inside it stays the message's."""
    still.scheduler.init_mem_cube("mine")
    seen: list[str] = []
    still.scheduler.register_handlers(
        {"job": lambda b: seen.append(still.scheduler.current_mem_cube.cube_id)}
    )
    still.scheduler.submit_messages(message("job", mem_cube_id="theirs"))
    still.drain()
    assert (still.scheduler.current_mem_cube, seen) == ("mine", ["theirs"])
    still.scheduler.mem_cube = "other"
    assert still.scheduler.current_mem_cube == "other"
    still.remember("something", cube_id="theirs")
    assert set(still.scheduler.mem_cubes) == {"theirs"}


def test_disabled_labels_are_kept_and_not_served(tmp_path: Path) -> None:
    """A label in disabled_handlers is accepted, visible as waiting, and never run here."""
    config = GeneralSchedulerConfig(disabled_handlers=("query",))
    with assembled(tmp_path, config=config) as parts:
        parts.scheduler.submit_messages(message(QUERY_TASK_LABEL))
        assert parts.drain() == 0
        assert parts.scheduler.unserved_labels() == {"query": 1}
        assert [one.state for one in parts.queue.statuses()] == [TaskState.WAITING]


def test_the_consumer_survives_a_queue_that_does_not_answer(tmp_path: Path) -> None:
    """A claim that fails is tried again: the scheduler goes on when the queue is back."""

    class Flaky(LocalQueue):
        failures = 2

        def claim(self, *args: object, **kwargs: object) -> list[Batch]:
            if self.failures:
                self.failures -= 1
                raise QueueUnavailable("down") if self.failures else RuntimeError("bug")
            return super().claim(*args, **kwargs)  # type: ignore[arg-type]

    from memos.clock import SystemClock

    with assembled(tmp_path, queue=Flaky(clock=SystemClock())) as parts:
        seen: list[object] = []
        parts.scheduler.register_handlers({"job": seen.extend})
        parts.scheduler.submit_messages(message("job"))
        parts.scheduler.start()
        run_until_idle(parts.scheduler)
        assert len(seen) == 1


def test_running_tasks_can_be_filtered(parts: Parts) -> None:
    """The filter sees the documented record of a running call."""
    seen: list[RunningTaskItem] = []

    def collect(task: RunningTaskItem) -> bool:
        seen.append(task)
        return False

    def handler(batch: Messages) -> None:
        assert parts.scheduler.get_running_tasks(collect) == {}
        assert parts.scheduler.dispatcher.get_running_tasks()

    parts.scheduler.register_handlers({"job": handler})
    parts.scheduler.submit_messages(message("job", user_id="u", mem_cube_id="c"))
    parts.scheduler.run_once()
    assert [(one.user_id, one.mem_cube_id, one.task_name, len(one.messages)) for one in seen] == [
        ("u", "c", "job_handler", 1)
    ]


def test_late_modules_are_refused_aloud_not_taken(still: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    """initialize_modules changes nothing, and says which parts it did not take."""
    still.scheduler.initialize_modules(chat_llm=None, mem_reader=object())
    assert "mem_reader" in capsys.readouterr().err
    still.scheduler.initialize_modules(chat_llm=still.services.llm)
    assert capsys.readouterr().err == ""


def test_status_is_printed_in_the_documented_form(still: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    """Totals for the queue in memory; a table per user and cube where a backend reports streams."""
    still.scheduler.submit_messages(message("job"))
    still.scheduler.print_tasks_status()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Task Queue Status | running=0, remaining=1"
    assert lines[1] == "[Local Queue Totals]"
    assert lines[-1] == "Waiting for a handler: job (1)"
    still.scheduler.print_tasks_status(
        tasks_status={
            "running": 1,
            "remaining": 2,
            "pending": 2,
            "user:cube:query": {"running": 1, "remaining": 2, "pending": 2},
        }
    )
    lines = capsys.readouterr().out.splitlines()
    assert "[user:cube]" in lines
    assert [part.strip() for part in lines[3].split("|")] == ["query", "1", "2"]


def test_a_handler_that_runs_too_long_is_marked(still: Parts, clock: ManualClock) -> None:
    """A batch past its policy's timeout_s is marked and no longer renewed: its message comes again."""
    from memos.mem_scheduler.orchestrator import TaskPolicy

    runs: list[int] = []

    def handler(batch: Messages) -> None:
        runs.append(1)
        if len(runs) == 1:
            clock.advance(11.0)
            still.scheduler._leases.beat()  # the heartbeat's own step, without its thread
            clock.advance(30.0)
            still.queue.claim({"other"}, lanes_max=1, timeout_s=0)

    still.scheduler.register_handlers({"job": (handler, TaskPolicy(timeout_s=10.0))})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    assert still.scheduler.monitor.tasks.counts()["job"].timed_out == 1
    assert len(runs) == 2
