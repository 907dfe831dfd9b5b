"""When a cube is to be looked over for memories that have faded: the rules, and the time of the last look.

The time stands in the store, committed by the look itself, so that a restart neither skips a look nor
repeats one. With both rules off (the default) nothing is ever looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from memos.errors import ConfigError
from memos.memory.store import MemoryStore, PutState

STATE = "retention"


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
