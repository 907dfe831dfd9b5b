"""The small parts: the pool, the log buffer, the counters, the log builders."""

from __future__ import annotations

import threading

import pytest
from tests.unit.mem_scheduler.parts import message

from memos.errors import ConfigError
from memos.mem_scheduler.monitors.tasks import LABELS_MAX, OTHER_LABELS, TaskMonitor
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.sinks.local import LocalLogSink
from memos.mem_scheduler.web_log import CubeFacts, item_metadata, message_log, shortened
from memos.mem_scheduler.workers import CoroutineRunner, WorkerPool
from memos.memory.item import Capacities, CubeSizes, MemoryItem, Source


def entry(text: str) -> ScheduleLogForWebItem:
    return ScheduleLogForWebItem(user_id="u", mem_cube_id="c", label="addMessage", log_content=text)


def test_the_buffer_keeps_the_newest_and_counts_the_rest() -> None:
    """A full buffer drops its oldest logs and says how many; draining gives oldest first."""
    sink = LocalLogSink(3)
    sink.emit([entry(str(n)) for n in range(2)])
    sink.emit([entry(str(n)) for n in range(2, 5)])
    assert (len(sink), sink.dropped) == (3, 2)
    assert [one.log_content for one in sink.drain(2)] == ["2", "3"]
    assert [one.log_content for one in sink.drain()] == ["4"]
    sink.emit([entry(str(n)) for n in range(9)])
    assert sink.dropped == 2 + 6
    with pytest.raises(ConfigError):
        LocalLogSink(0)


def test_the_pool_takes_no_more_than_its_size() -> None:
    """A full pool refuses; a place that comes free is given to the next, and a dead job gives its back."""
    pool = WorkerPool(2)
    leave = threading.Event()

    def dying() -> None:
        leave.wait(10.0)
        raise KeyboardInterrupt

    assert pool.submit(lambda: leave.wait(10.0))  # type: ignore[arg-type,return-value]
    assert pool.submit(dying)
    assert pool.free == 0
    assert not pool.submit(lambda: None)
    assert not pool.wait_idle(0.0)
    leave.set()
    assert pool.wait_idle(10.0)
    assert pool.wait_free(lambda: False) == 2
    ran = threading.Event()
    assert pool.submit(ran.set)
    assert ran.wait(10.0)
    pool.close()
    assert not pool.submit(lambda: None)
    assert pool.wait_free(lambda: False) == 0
    with pytest.raises(ConfigError):
        WorkerPool(0)


def test_a_pool_that_cannot_start_threads_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of threads, a job is refused; with one thread there it is left to that."""
    pool = WorkerPool(3)
    original = threading.Thread.start
    allowed = [1]

    def start(self: threading.Thread) -> None:
        if not allowed[0]:
            raise RuntimeError("can't start new thread")
        allowed[0] -= 1
        original(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    leave, ran = threading.Event(), threading.Event()
    assert pool.submit(lambda: leave.wait(10.0))  # type: ignore[arg-type,return-value]
    assert pool.submit(ran.set)
    assert not ran.is_set()
    leave.set()
    assert ran.wait(10.0)
    pool.close()
    empty = WorkerPool(1)
    assert not empty.submit(lambda: None)


def test_the_loop_can_be_closed_and_comes_back() -> None:
    """After close the next coroutine gets a new loop; its result and its errors come through."""
    runner = CoroutineRunner()

    async def double(value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return 2 * value

    assert runner.run(double(2)) == 4
    runner.close()
    assert runner.run(double(3)) == 6
    with pytest.raises(ValueError, match="negative"):
        runner.run(double(-1))

    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        runner.run(leave())
    assert runner.run(double(4)) == 8  # one coroutine that leaves does not take the loop with it
    runner.close()
    runner.close()


def test_counters_are_bounded_by_label() -> None:
    """Beyond the bound, labels share one row."""
    monitor = TaskMonitor()
    for number in range(LABELS_MAX + 10):
        monitor.settled(f"label{number}", TaskState.COMPLETED)
    counts = monitor.counts()
    assert len(counts) == LABELS_MAX + 1
    assert counts[OTHER_LABELS].completed == 10


def test_logs_carry_sizes_and_capacities() -> None:
    """Sizes and capacities of the cube stand in every log; what is not known stays -1."""
    facts = CubeFacts(CubeSizes(long_term=3, user=2, working=1), Capacities(working=7))
    told = message_log(message("query", "x" * 500), role="user", facts=facts)
    assert told.current_memory_sizes == {
        "long_term_memory_size": 3,
        "user_memory_size": 2,
        "working_memory_size": 1,
        "transformed_act_memory_size": -1,
        "parameter_memory_size": -1,
    }
    assert told.memory_capacities["working_memory_capacity"] == 7
    assert len(told.log_content) < 250
    assert facts.with_working(5).memory_sizes()["working_memory_size"] == 5


def test_texts_and_metadata_of_logs() -> None:
    """Log texts are one bounded line; metadata names sources without their text."""
    assert shortened("a\n  b") == "a b"
    assert len(shortened("x" * 1_000)) == 200
    item = MemoryItem(
        id="m",
        cube_id="c",
        user_id="u",
        memory="text",
        sources=(Source("document", name="a.md", content="secret"),),
    )
    found = item_metadata(item)
    assert found["sources"] == [{"type": "document", "role": "", "message_id": "", "name": "a.md"}]
    assert "secret" not in str(found)
