"""Policies: how the tasks of each label are ordered, repeated, leased and bounded.

Order, concurrency and level belong to the *class* of a label; everything else to the label. The
policies live beside the queue (`PolicyTable`), so that every process that serves it agrees; the
`SchedulerOrchestrator` is the documented face of that table.

A registration that is a plain function writes no policy field. Otherwise the last write wins and
raises the table's version. A value that contradicts a built-in class is a ConfigError; the priority of
a documented `(function, priority, min_idle_ms)` tuple is ignored there with a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memos.errors import ConfigError
from memos.mem_scheduler.schemas.task_schemas import (
    BACKGROUND_CLASS,
    MEM_UPDATE_TASK_LABEL,
    MEMORY_CLASS,
    TURN_CLASS,
    TaskPriorityLevel,
    class_of,
)

LEASE_MS_DEFAULT = 30_000
LEASE_MS_MIN = 1_000


@dataclass(frozen=True, slots=True)
class TaskPolicy:
    """How tasks of one label are run.

    min_idle_ms: length of a lease; a worker that dies is noticed after it. Floor 1,000.
    timeout_s: how long a handler may run before it is marked as stuck, logged, and its lease no longer
    renewed (a thread cannot be killed: the run itself goes on). None: no limit.
    """

    ordered: bool = False  # one batch of a lane at a time, strictly in order
    concurrency: int = 4  # batches of one unordered lane at a time
    level: TaskPriorityLevel = TaskPriorityLevel.LEVEL_3
    batch_size_max: int = 256
    max_attempts: int = 5  # runs of the handler before the message is dead-lettered
    max_recoveries: int = 3  # lost leases before the message is dead-lettered
    min_idle_ms: int = LEASE_MS_DEFAULT
    timeout_s: float | None = None
    backoff_base_s: float = 0.5  # exponential with full jitter: uniform(0, min(max, base * 2^attempt))
    backoff_max_s: float = 30.0
    retry_order: Literal["strict", "aside"] = "strict"  # of an ordered lane: block it, or let others pass
    block_s_max: float = 60.0  # how long a strict retry may block its lane before it is dead-lettered
    coalesce: bool = False

    def __post_init__(self) -> None:
        for name in ("concurrency", "batch_size_max", "max_attempts"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
        if not isinstance(self.min_idle_ms, int) or self.min_idle_ms < LEASE_MS_MIN:
            raise ConfigError(f"min_idle_ms must be at least {LEASE_MS_MIN}, not {self.min_idle_ms!r}")
        if self.max_recoveries < 0:
            raise ConfigError(f"max_recoveries must not be negative, not {self.max_recoveries!r}")
        for name in ("backoff_base_s", "backoff_max_s", "block_s_max"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, not {getattr(self, name)!r}")
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise ConfigError(f"timeout_s must be above 0 or None, not {self.timeout_s!r}")


BUILT_IN_CLASSES: dict[str, TaskPolicy] = {
    TURN_CLASS: TaskPolicy(ordered=True, concurrency=1, level=TaskPriorityLevel.LEVEL_1),
    MEMORY_CLASS: TaskPolicy(ordered=True, concurrency=1, level=TaskPriorityLevel.LEVEL_2),
    BACKGROUND_CLASS: TaskPolicy(ordered=True, concurrency=1, level=TaskPriorityLevel.LEVEL_3),
}

REGISTERED_DEFAULT = TaskPolicy()
UNKNOWN_DEFAULT = TaskPolicy(concurrency=1)  # a label nobody has registered yet


def default_policy(label: str) -> TaskPolicy:
    """The policy of a label before anybody wrote one."""
    return BUILT_IN_CLASSES.get(class_of(label), REGISTERED_DEFAULT)


COALESCING_LABELS = frozenset({MEM_UPDATE_TASK_LABEL})
