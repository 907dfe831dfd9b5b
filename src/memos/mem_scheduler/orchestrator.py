"""Policies: how the tasks of each label are ordered, repeated, leased and bounded.

Order, concurrency and level belong to the *class* of a label; everything else to the label. The
policies live beside the queue (`PolicyTable`), so that every process that serves it agrees; the
`SchedulerOrchestrator` is the documented face of that table.

A registration that is a plain function writes no policy field. Otherwise the last write wins and
raises the table's version. A value that contradicts a built-in class is a ConfigError; the priority of
a documented `(function, priority, min_idle_ms)` tuple is ignored there with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from memos import log
from memos.errors import ConfigError, InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.mem_scheduler.schemas.task_schemas import (
    ACTIVATION_CLASS,
    BACKGROUND_CLASS,
    MEM_ACTIVATE_TASK_LABEL,
    MEM_UPDATE_TASK_LABEL,
    MEMORY_CLASS,
    TURN_CLASS,
    TaskPriorityLevel,
    class_of,
)

if TYPE_CHECKING:
    from memos.mem_scheduler.queues.base import PolicyTable

logger = log.get_logger(__name__)
FieldT = TypeVar("FieldT")

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
    ACTIVATION_CLASS: TaskPolicy(ordered=True, concurrency=1, level=TaskPriorityLevel.LEVEL_3),
}

REGISTERED_DEFAULT = TaskPolicy()

# Of the messages of these that wait in a lane the newest runs for all: their handlers know of it.
_LABEL_DEFAULTS: dict[str, TaskPolicy] = {
    MEM_UPDATE_TASK_LABEL: replace(BUILT_IN_CLASSES[MEMORY_CLASS], coalesce=True),
    MEM_ACTIVATE_TASK_LABEL: replace(BUILT_IN_CLASSES[ACTIVATION_CLASS], coalesce=True),
}


def default_policy(label: str) -> TaskPolicy:
    """The policy of a label before anybody wrote one."""
    found = _LABEL_DEFAULTS.get(label)
    return found or BUILT_IN_CLASSES.get(class_of(label), REGISTERED_DEFAULT)


class _PolicyField(MutableMapping[str, FieldT]):
    """One field of the policies as a mapping label -> value; writes go to the table at once.

    Reading a label for which nothing was written raises KeyError, as a plain dict would; `del` puts the
    default back.
    """

    def __init__(
        self,
        table: PolicyTable,
        read: Callable[[TaskPolicy], FieldT],
        write: Callable[[str, TaskPolicy, FieldT], TaskPolicy],
        on_write: Callable[[], None],
    ) -> None:
        self._table = table
        self._read = read
        self._write = write
        self._on_write = on_write

    def __getitem__(self, label: str) -> FieldT:
        if label not in self._table.labels():
            raise KeyError(label)
        return self._read(self._table.get(label))

    def __setitem__(self, label: str, value: FieldT) -> None:
        check_id("label", label)
        self._table.put(label, self._write(label, written_or_default(self._table, label), value))
        self._on_write()

    def __delitem__(self, label: str) -> None:
        self[label]  # KeyError for a label without a policy, as a dict says it
        self[label] = self._read(default_policy(label))

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.labels())

    def __len__(self) -> int:
        return len(self._table.labels())

    def __repr__(self) -> str:
        return repr(dict(self))


def written_or_default(table: PolicyTable, label: str) -> TaskPolicy:
    """The policy that a partial change starts from: never the single slot of an unregistered label."""
    return table.get(label) if label in table.labels() else default_policy(label)


def checked_min_idle_ms(label: str, value: object) -> int:
    """`value` as a lease length; below the floor it is raised to it, with a warning.

    A lease shorter than the floor could not be renewed in time on a busy machine, and its task would
    start twice.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0 or value <= 0:
        raise InvalidInput(
            f"min_idle_ms of label {label!r} is {value!r}; give whole milliseconds of at least {LEASE_MS_MIN}"
        )
    if value < LEASE_MS_MIN:
        logger.warning("policy.min_idle_raised", label=label, asked_ms=value, min_idle_ms=LEASE_MS_MIN)
        return LEASE_MS_MIN
    return int(value)


def checked_priority(label: str, value: object) -> TaskPriorityLevel:
    """`value` as a priority level. Raises InvalidInput naming the label and the value."""
    try:
        return TaskPriorityLevel(value)  # type: ignore[arg-type]
    except ValueError as error:
        raise InvalidInput(
            f"priority of label {label!r} is {value!r}; give a TaskPriorityLevel (1, 2 or 3)"
        ) from error


class SchedulerOrchestrator:
    """The documented face of a queue's policies: priorities and lease lengths by label."""

    def __init__(self, table: PolicyTable, *, on_write: Callable[[], None] = lambda: None) -> None:
        self._table = table
        self._on_write = on_write
        self.tasks_min_idle_ms: MutableMapping[str, int] = _PolicyField(
            table,
            lambda policy: policy.min_idle_ms,
            lambda label, policy, ms: replace(policy, min_idle_ms=checked_min_idle_ms(label, ms)),
            on_write,
        )
        self.tasks_priorities: MutableMapping[str, TaskPriorityLevel] = _PolicyField(
            table,
            lambda policy: policy.level,
            lambda label, policy, level: replace(policy, level=checked_priority(label, level)),
            on_write,
        )

    def get_task_idle_min(self, label: str) -> int:
        """The lease length of a label in milliseconds."""
        return self._table.get(label).min_idle_ms

    def get_task_priority(self, label: str) -> TaskPriorityLevel:
        """The level of a label."""
        return self._table.get(label).level

    def get_policy(self, label: str) -> TaskPolicy:
        """The whole policy of a label."""
        return self._table.get(label)

    def written_or_default(self, label: str) -> TaskPolicy:
        """The policy that a partial change of `label` starts from."""
        return written_or_default(self._table, label)

    def set_task_config(
        self,
        label: str,
        *,
        priority: TaskPriorityLevel | int | None = None,
        min_idle_ms: int | None = None,
    ) -> None:
        """Write what is given in one step. ConfigError when it contradicts a built-in class."""
        check_id("label", label)
        policy = written_or_default(self._table, label)
        if priority is not None:
            policy = replace(policy, level=checked_priority(label, priority))
        if min_idle_ms is not None:
            policy = replace(policy, min_idle_ms=checked_min_idle_ms(label, min_idle_ms))
        if priority is not None or min_idle_ms is not None:
            self.set_policy(label, policy)

    def set_policy(self, label: str, policy: TaskPolicy) -> None:
        """Write a whole policy. ConfigError when it contradicts a built-in class."""
        self._table.put(label, policy)
        self._on_write()
