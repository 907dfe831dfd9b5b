"""The tools for tests, which users import too."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from memos.errors import BadCompletion, InvalidInput, ModelUnavailable, RateLimited
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.models.base import ChatMessage
from memos.testing import ManualClock, RecordingSink, ScriptedLLM, run_until_idle

ASK = [ChatMessage("user", "two words")]


def test_a_manual_clock_moves_only_when_told() -> None:
    """Both clocks advance together; a step of the wall leaves monotonic time alone."""
    clock = ManualClock(100.0)
    assert (clock.now(), clock.monotonic()) == (100.0, 0.0)
    clock.advance(2.5)
    clock.step_wall(-50.0)
    assert (clock.now(), clock.monotonic()) == (52.5, 2.5)
    with pytest.raises(InvalidInput, match="step_wall"):
        clock.advance(-1.0)


def test_advance_wakes_exactly_the_waits_that_are_over() -> None:
    """A wait ends in time when notified, and with False when its time has passed."""
    clock = ManualClock()
    conditions = [threading.Condition(), threading.Condition(), threading.Condition()]

    def wait(number: int, timeout_s: float | None) -> bool:
        with conditions[number]:
            return clock.wait(conditions[number], timeout_s)

    with ThreadPoolExecutor(3) as pool:
        short, long, endless = (pool.submit(wait, n, t) for n, t in enumerate((1.0, 5.0, None)))
        clock.until_waiting(3)
        clock.advance(1.0)
        assert short.result(10) is False
        assert not long.done()
        with conditions[1]:
            conditions[1].notify()
        assert long.result(10) is True
        clock.advance(1e9)
        assert clock.waiting == 1
        with conditions[2]:
            conditions[2].notify()
        assert endless.result(10) is True
    assert clock.waiting == 0


def test_a_wait_that_is_over_before_it_begins_returns_at_once() -> None:
    """A time-out of nothing does not block."""
    condition = threading.Condition()
    with condition:
        assert ManualClock().wait(condition, 0.0) is False


def test_waiting_for_waiters_that_never_come_fails() -> None:
    """`until_waiting` is bounded and says how many there are."""
    with pytest.raises(TimeoutError, match="0 of 2"):
        ManualClock().until_waiting(2, timeout_s=0.01)


def test_a_scripted_model_follows_its_script() -> None:
    """Texts, JSON and errors in order, then ModelUnavailable; the calls are kept."""
    llm = ScriptedLLM(["plain", {"a": 1}, RateLimited(2.0), "not json", "[1]"], name="fake")
    first = llm.complete(ASK, max_tokens=9)
    assert (first.text, first.parsed, first.tokens_in, first.tokens_out) == ("plain", None, 2, 1)
    assert llm.complete(ASK, schema={}).parsed == {"a": 1}
    with pytest.raises(RateLimited):
        llm.complete(ASK)
    for raw in ("not json", "[1]"):
        with pytest.raises(BadCompletion) as caught:
            llm.complete(ASK, schema={})
        assert caught.value.raw == raw
    with pytest.raises(ModelUnavailable, match="'fake' has no reply to call 6"):
        llm.complete(ASK)
    assert llm.name == "fake"
    assert (llm.calls[0].messages, llm.calls[0].max_tokens) == (tuple(ASK), 9)


def test_a_scripted_stream_is_the_text_in_pieces() -> None:
    """The pieces of a stream join to the reply."""
    pieces = list(ScriptedLLM(["a reply  in pieces"]).stream(ASK))
    assert len(pieces) > 2
    assert "".join(pieces) == "a reply  in pieces"


def log(label: str) -> ScheduleLogForWebItem:
    return ScheduleLogForWebItem(user_id="u", mem_cube_id="c", label=label, log_content="x")


def test_a_recording_sink_keeps_and_counts() -> None:
    """Logs are kept in order up to the bound; what is over is counted."""
    sink = RecordingSink(logs_max=2)
    sink.emit([log("a")])
    sink.emit([log("b"), log("c")])
    assert (sink.labels(), sink.dropped) == (["a", "b"], 1)
    assert [one.label for one in sink.drain(1)] == ["a"]
    assert [one.label for one in sink.drain()] == ["b"]
    assert sink.logs == []


class Countdown:
    """A scheduler that is done after so many questions."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def get_tasks_status(self) -> dict[str, int]:
        self.rounds -= 1
        return {"remaining": max(0, self.rounds), "running": max(0, self.rounds + 1)}


def test_run_until_idle_waits_for_waiting_and_running_tasks() -> None:
    """It returns when both are nothing, and gives up in time naming what is left."""
    scheduler = Countdown(3)
    run_until_idle(scheduler)
    assert scheduler.rounds == -1
    with pytest.raises(TimeoutError, match="wait and"):
        run_until_idle(Countdown(10**9), timeout_s=0.02)
