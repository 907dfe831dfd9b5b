"""When activation memory of a cube is to be refreshed: at most every so many seconds, and only if the
working memory that it is made of has changed.

The state stands in the store by cube, so that a busy cube puts off no other and a restart forgets
nothing. This marks refreshes as due; making them is the activation backend's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memos.errors import ConfigError
from memos.memory.store import MemoryStore, PutState

STATE = "activation"


@dataclass(frozen=True, slots=True)
class ActivationState:
    """When a refresh was last marked as due, for which version of working memory, and how often so far."""

    marked_at: float | None = None
    working_version: int = 0
    marks: int = 0


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
        return ActivationState(float(value["marked_at"]), int(value["working_version"]), int(value["marks"]))

    def due(self, state: ActivationState, *, working_version: int, at: float) -> bool:
        """Whether working memory has another version now, and the last mark is long enough ago."""
        if self._interval_s is None or working_version == state.working_version:
            return False
        return state.marked_at is None or at - state.marked_at >= self._interval_s

    def mark(self, store: MemoryStore, cube_id: str, *, working_version: int, at: float) -> list[PutState]:
        """The change that marks a refresh as due, to be committed with the working set; none when it is not."""
        state = self.read(store, cube_id)
        if not self.due(state, working_version=working_version, at=at):
            return []
        value = {"marked_at": at, "working_version": working_version, "marks": state.marks + 1}
        return [PutState(cube_id, STATE, value)]
