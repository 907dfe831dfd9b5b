"""Faults between any two steps of a worker: it dies, or it stops for longer than its lease."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["crash", "pause"]
When = Literal["before", "after"]

# What a worker does to the world outside itself, and what it reads in between.
STORE_STEPS = frozenset({"apply_once", "apply", "tick", "working", "was_applied", "pending_followups"})
QUEUE_STEPS = frozenset({"claim", "finish", "submit"})


class Crash(BaseException):
    """The worker is gone, at this instruction: nothing of ours may catch this."""


@dataclass(frozen=True)
class Fault:
    """At the `step`-th watched call: before it, or after it and before its answer is seen."""

    step: int
    when: When
    kind: Kind


@dataclass
class Schedule:
    """Counts the watched calls of all workers and strikes where a fault is due.

    `on_pause` is what the world does while a worker stands still.
    """

    faults: list[Fault] = field(default_factory=list)
    on_pause: Callable[[], None] = lambda: None
    calls: list[str] = field(default_factory=list)
    struck: list[tuple[str, Fault]] = field(default_factory=list)
    pausing: bool = False

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        if self.pausing:  # the other workers run undisturbed meanwhile
            return call()
        self.calls.append(name)
        step = len(self.calls)
        self._strike(name, step, "before")
        answer = call()
        self._strike(name, step, "after")
        return answer

    def _strike(self, name: str, step: int, when: When) -> None:
        due = [fault for fault in self.faults if (fault.step, fault.when) == (step, when)]
        for fault in due:
            self.faults.remove(fault)
            self.struck.append((name, fault))
            if fault.kind == "crash":
                raise Crash(f"{when} {name}")
            self.pausing = True
            try:
                self.on_pause()
            finally:
                self.pausing = False


class Faulty:
    """`target` with faults around the calls of `steps`; everything else passes through."""

    def __init__(self, target: Any, steps: frozenset[str], schedule: Schedule) -> None:
        self._target = target
        self._steps = steps
        self._schedule = schedule

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._target, name)
        if name not in self._steps:
            return member
        return lambda *args, **kwargs: self._schedule.around(name, lambda: member(*args, **kwargs))
