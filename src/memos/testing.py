"""Tools for tests of programs that use MemScheduler, shipped with it.

    clock = ManualClock()                       # time moves only by clock.advance(seconds)
    llm = ScriptedLLM(["first reply", ModelUnavailable("down"), {"intent": true}])
    sink = RecordingSink()                      # every web log that was emitted, in sink.logs
    run_until_idle(scheduler, timeout_s=10)     # until nothing waits and nothing runs

They need no network, no model and no sleep. `ManualClock` wakes exactly those waits whose time has
come, so a test of time-outs and leases is as fast as its code and gives the same result each time.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from memos.errors import BadCompletion, InvalidInput, ModelUnavailable
from memos.models.base import ChatMessage, Completion

if TYPE_CHECKING:
    from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem

EPOCH_S = 1_700_000_000.0  # where a ManualClock starts: 14 November 2023
LOGS_MAX = 100_000
POLL_S = 0.005


class ManualClock:
    """A `memos.clock.Clock` that stands still until `advance`. Thread-safe.

    Wall time and monotonic time move together; `step_wall` moves the wall alone, as an operator or a
    time server does.
    """

    def __init__(self, start_s: float = EPOCH_S) -> None:
        self._start_s = start_s
        self._elapsed_s = 0.0
        self._changed = threading.Condition()
        self._waits: dict[int, tuple[float | None, threading.Condition]] = {}
        self._ticket = itertools.count()

    def now(self) -> float:
        """Wall time in seconds since the epoch."""
        with self._changed:
            return self._start_s + self._elapsed_s

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        with self._changed:
            return self._elapsed_s

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> bool:
        """Wait on a held `condition` until it is notified or the clock is advanced by `timeout_s`."""
        with self._changed:
            due_s = None if timeout_s is None else self._elapsed_s + timeout_s
            if due_s is not None and due_s <= self._elapsed_s:
                return False
            ticket = next(self._ticket)
            self._waits[ticket] = (due_s, condition)
            self._changed.notify_all()
        try:
            condition.wait()
        finally:
            with self._changed:
                del self._waits[ticket]
                in_time = due_s is None or self._elapsed_s < due_s
        return in_time

    def advance(self, seconds: float) -> None:
        """Move time on and wake every wait that is over now. Do not hold a waiter's lock here."""
        if seconds < 0:
            raise InvalidInput(
                f"time does not go back: advance({seconds!r}); use step_wall for the wall clock"
            )
        with self._changed:
            self._elapsed_s += seconds
            over = [c for due_s, c in self._waits.values() if due_s is not None and due_s <= self._elapsed_s]
        for condition in over:
            with condition:
                condition.notify_all()

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back; monotonic time does not notice."""
        with self._changed:
            self._start_s += seconds

    @property
    def waiting(self) -> int:
        """How many threads wait on this clock right now."""
        with self._changed:
            return len(self._waits)

    def until_waiting(self, count: int = 1, *, timeout_s: float = 10.0) -> None:
        """Block (in real time) until at least `count` threads wait on this clock, so that `advance`
        meets them. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waits) >= count, timeout_s):
                raise TimeoutError(f"{len(self._waits)} of {count} threads wait after {timeout_s:g} s")


@dataclass(frozen=True, slots=True)
class LLMCall:
    """One request that a `ScriptedLLM` received."""

    messages: tuple[ChatMessage, ...]
    schema: Mapping[str, Any] | None
    max_tokens: int | None
    temperature: float | None = None
    top_p: float | None = None


Reply = str | Mapping[str, Any] | Exception


class ScriptedLLM:
    """A `memos.models.base.LLM` that gives the next reply of its script to each call. Thread-safe.

    A text is the completion; a mapping is sent as JSON; an exception is raised. After the last reply:
    `ModelUnavailable`. `calls` keeps what was asked.
    """

    def __init__(self, replies: Iterable[Reply], *, name: str = "scripted") -> None:
        self._replies = deque(replies)
        self._name = name
        self._lock = threading.Lock()
        self.calls: list[LLMCall] = []

    @property
    def name(self) -> str:
        return self._name

    def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Completion:
        text = self._next(LLMCall(tuple(messages), schema, max_tokens, temperature, top_p))
        parsed: Mapping[str, Any] | None = None
        if schema is not None:
            try:
                found = json.loads(text)
            except ValueError as error:
                raise BadCompletion(f"not JSON: {error}", text) from error
            if not isinstance(found, dict):
                raise BadCompletion(f"a JSON object was asked for, not {type(found).__name__}", text)
            parsed = found
        return Completion(
            text,
            parsed=parsed,
            tokens_in=sum(len(message.content.split()) for message in messages),
            tokens_out=len(text.split()),
        )

    def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Iterator[str]:
        text = self._next(LLMCall(tuple(messages), None, max_tokens, temperature, top_p))
        words = text.split(" ")
        for number, word in enumerate(words, start=1):
            yield word if number == len(words) else word + " "

    def _next(self, call: LLMCall) -> str:
        with self._lock:
            self.calls.append(call)
            if not self._replies:
                raise ModelUnavailable(f"the script of {self._name!r} has no reply to call {len(self.calls)}")
            reply = self._replies.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False)


class RecordingSink:
    """A `LogSink` that keeps all it is given, up to `logs_max`; what is over is dropped and counted."""

    def __init__(self, logs_max: int = LOGS_MAX) -> None:
        self._logs_max = logs_max
        self._lock = threading.Lock()
        self._logs: list[ScheduleLogForWebItem] = []
        self.dropped = 0

    @property
    def logs(self) -> list[ScheduleLogForWebItem]:
        """A copy of what was emitted and not drained, oldest first."""
        with self._lock:
            return list(self._logs)

    def emit(self, logs: Sequence[ScheduleLogForWebItem]) -> None:
        with self._lock:
            room = max(0, self._logs_max - len(self._logs))
            self._logs.extend(logs[:room])
            self.dropped += max(0, len(logs) - room)

    def drain(self, limit: int | None = None) -> list[ScheduleLogForWebItem]:
        """Take out up to `limit` logs, oldest first."""
        with self._lock:
            count = len(self._logs) if limit is None else limit
            taken, self._logs = self._logs[:count], self._logs[count:]
        return taken

    def labels(self) -> list[str]:
        """The category of each recorded log."""
        return [one.label for one in self.logs]


class ReportsTasks(Protocol):
    """Whatever can say how many tasks wait and run: a scheduler, started or driven by hand."""

    def get_tasks_status(self) -> Mapping[str, Any]: ...


def run_until_idle(scheduler: ReportsTasks, timeout_s: float = 30.0) -> None:
    """Block until nothing waits and nothing runs, chained tasks included (they are queued in the step
    that finishes their parent). Raises TimeoutError naming what is left."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = scheduler.get_tasks_status()
        if status["remaining"] == 0 and status["running"] == 0:
            return
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"after {timeout_s:g} s {status['remaining']} tasks wait and {status['running']} run; "
                "a label without a handler waits for ever"
            )
        time.sleep(POLL_S)
