"""When activation memory of a cube is to be refreshed: at most every so many seconds, and only if there is
something to do.

The state stands in the store by cube, so that a busy cube puts off no other and a restart forgets nothing. A
change within the interval is not lost: it marks one refresh for when the interval ends. This marks refreshes
as due, and keeps what the last one came to; making them is the task `mem_activate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memos.errors import ConfigError
from memos.memory.store import MemoryStore, PutState

STATE = "activation"
DONE = "activation_done"  # of its own: the task and what marks it run at the same time


@dataclass(frozen=True, slots=True)
class ActivationState:
    """For when a refresh was last marked as due, for which version of working memory, how often so far; and
    whether the last one left nothing to do."""

    marked_at: float | None = None
    working_version: int = 0
    marks: int = 0
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Due:
    """A refresh is to run in `delay_s`; `change` marks it."""

    change: PutState
    delay_s: float


class ActivationMonitor:
    """interval_s: seconds between two refreshes of a cube; None: there is no activation memory."""

    def __init__(self, interval_s: float | None) -> None:
        if interval_s is not None and interval_s < 0:
            raise ConfigError(f"act_mem_update_interval={interval_s!r} must not be negative")
        self._interval_s = interval_s

    def read(self, store: MemoryStore, cube_id: str) -> ActivationState:
        """The state as the store has it."""
        value: Mapping[str, Any] | None = store.state(cube_id, STATE)
        if value is None:
            return ActivationState()
        done = store.state(cube_id, DONE) or {}
        return ActivationState(
            float(value["marked_at"]),
            int(value["working_version"]),
            int(value["marks"]),
            bool(done.get("settled", True)),
        )

    def due_in(self, state: ActivationState, *, working_version: int, at: float) -> float | None:
        """Seconds until the next refresh; None when none is to be marked: nothing changed since the last mark,
        or one is on its way."""
        if self._interval_s is None:
            return None
        if working_version == state.working_version and state.settled:
            return None
        if state.marked_at is None:
            return 0.0
        if state.marked_at > at:
            return None
        return max(0.0, state.marked_at + self._interval_s - at)

    def mark(self, store: MemoryStore, cube_id: str, *, working_version: int, at: float) -> Due | None:
        """The mark, to be committed with what makes it due; None when it is not."""
        if self._interval_s is None:
            return None
        state = self.read(store, cube_id)
        delay_s = self.due_in(state, working_version=working_version, at=at)
        if delay_s is None:
            return None
        value = {"marked_at": at + delay_s, "working_version": working_version, "marks": state.marks + 1}
        return Due(PutState(cube_id, STATE, value), delay_s)

    def done(self, cube_id: str, *, working_version: int, settled: bool) -> PutState:
        """What a refresh came to. Not settled: look again with the next query, after the interval."""
        return PutState(cube_id, DONE, {"working_version": working_version, "settled": settled})
