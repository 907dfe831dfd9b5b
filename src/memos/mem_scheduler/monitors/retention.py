"""When a cube is to be looked over for memories that have faded: the rules, and the time of the last look.

The time stands in the store, committed by the look itself, so that a restart neither skips a look nor
repeats one. With both rules off (the default) nothing is ever looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from memos.clock import Clock
from memos.errors import ConfigError
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_ORGANIZE_TASK_LABEL
from memos.memory.store import ItemFilter, MemoryStore, PutState

STATE = "retention"
FORGET_SCOPE = "forget"
CUBES_MAX = 50  # looks asked for in one round
LOOKED_AT_MAX = 1_000  # cubes whose last look is read in one round
CHECK_S = 60.0


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """threshold: retention (see `memos.memory.forgetting`) below which a memory is archived; 0: never.
    ttl_days: days after which it is archived whatever its use; 0: never. interval_s: between two looks."""

    threshold: float = 0.0
    ttl_days: float = 0.0
    interval_s: float = 3_600.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold < 1.0:
            raise ConfigError(f"retention_threshold={self.threshold!r} must be at least 0 and below 1")
        if self.ttl_days < 0 or self.interval_s <= 0:
            raise ConfigError(
                f"retention_ttl_days={self.ttl_days!r} must not be negative and "
                f"retention_interval_s={self.interval_s!r} must be above 0"
            )

    @property
    def active(self) -> bool:
        """Whether anything is ever archived by them."""
        return self.threshold > 0 or self.ttl_days > 0


NO_RETENTION = RetentionRules()


class RetentionMonitor:
    """Says when a look is due. Holds no state of its own."""

    def __init__(self, rules: RetentionRules) -> None:
        self.rules = rules

    def due(self, store: MemoryStore, cube_id: str, at: float) -> bool:
        """Whether the last look over the cube is long enough ago."""
        if not self.rules.active:
            return False
        state = store.state(cube_id, STATE)
        return state is None or at - float(state["looked_at"]) >= self.rules.interval_s

    @staticmethod
    def looked(cube_id: str, at: float) -> PutState:
        """The change that records a look."""
        return PutState(cube_id, STATE, {"looked_at": at})


class RetentionRounds:
    """Asks for the looks that are due, as `mem_organize` messages with the scope `forget`.

    A duty of the housekeeper, on its thread. A look is asked for once an interval, in the name of the user
    of the cube's newest memory.
    """

    def __init__(
        self,
        rules: RetentionRules,
        store: MemoryStore,
        clock: Clock,
        *,
        submit: Callable[[Sequence[ScheduleMessageItem]], Any],
        served: Callable[[], bool],
    ) -> None:
        self._monitor = RetentionMonitor(rules)
        self._store = store
        self._clock = clock
        self._submit = submit
        self._served = served
        self._asked: dict[str, float] = {}
        self._checked_at: float | None = None
        self._next = 0

    def ask(self) -> int:
        """Ask for the looks of this round; returns how many."""
        rules, at = self._monitor.rules, self._clock.now()
        if not rules.active or not self._served():
            return 0
        wait_s = min(CHECK_S, rules.interval_s)
        if self._checked_at is not None and 0 <= at - self._checked_at < wait_s:
            return 0
        self._checked_at = at
        self._asked = {cube: when for cube, when in self._asked.items() if 0 <= at - when < rules.interval_s}
        messages = [self._message(cube_id) for cube_id in self._due(at)]
        wanted = [one for one in messages if one is not None]
        if wanted:
            self._submit(wanted)
            self._asked |= {one.mem_cube_id: at for one in wanted}
        return len(wanted)

    def _due(self, at: float) -> list[str]:
        cubes = self._store.cubes()
        first = self._next if self._next < len(cubes) else 0
        window = cubes[first : first + LOOKED_AT_MAX]
        due: list[str] = []
        for place, cube_id in enumerate(window, start=first + 1):
            self._next = place
            if cube_id not in self._asked and self._monitor.due(self._store, cube_id, at):
                due.append(cube_id)
            if len(due) == CUBES_MAX:
                break
        return due

    def _message(self, cube_id: str) -> ScheduleMessageItem | None:
        newest = self._store.find(ItemFilter(cube_ids=(cube_id,)), limit=1).items
        if not newest:
            return None
        return ScheduleMessageItem(
            user_id=newest[0].user_id,
            mem_cube_id=cube_id,
            label=MEM_ORGANIZE_TASK_LABEL,
            content=FORGET_SCOPE,
        )
