"""The policy table in memory, and the rule that every table applies.

Order, concurrency and level belong to a class: a policy that contradicts a built-in class is refused
with ConfigError, because a lane has one order whatever label stands at its head.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, fields

from memos.errors import ConfigError
from memos.mem_scheduler.orchestrator import BUILT_IN_CLASSES, TaskPolicy, default_policy
from memos.mem_scheduler.schemas.task_schemas import TaskPriorityLevel, class_of

_DEFAULTS_MAX = 1_024
_FIELDS = frozenset(field.name for field in fields(TaskPolicy))


def check_policy(label: str, policy: TaskPolicy) -> None:
    """ConfigError when `policy` contradicts the built-in class of `label`."""
    name = class_of(label)
    fixed = BUILT_IN_CLASSES.get(name)
    if fixed is None:
        return
    for field, wanted, given in (
        ("ordered", fixed.ordered, policy.ordered),
        ("concurrency", fixed.concurrency, policy.concurrency),
        ("level", fixed.level, policy.level),
    ):
        if given != wanted:
            raise ConfigError(
                f"{field}={given!r} for {label!r}: the labels of the built-in class {name!r} share "
                f"{field}={wanted!r}; leave it, or register the handler under a label of its own"
            )


def slots_of(policy: TaskPolicy) -> int:
    """How many batches of one lane may be leased at a time."""
    return 1 if policy.ordered else policy.concurrency


def policy_text(policy: TaskPolicy) -> str:
    """A policy as JSON, as the durable tables keep it."""
    return json.dumps(asdict(policy))


def policy_of(text: str) -> TaskPolicy:
    """The policy of `policy_text`; a field that another version wrote is left out."""
    values = {name: value for name, value in json.loads(text).items() if name in _FIELDS}
    values["level"] = TaskPriorityLevel(values["level"])
    return TaskPolicy(**values)


class KnownPolicies:
    """What a process knows of the table: answers from memory, without a lock, so the queue may ask under its own."""

    def __init__(self) -> None:
        self._written: dict[str, TaskPolicy] = {}
        self._defaults: dict[str, TaskPolicy] = {}  # asked for several times a message: worth a look-up
        self._version = 0

    @property
    def version(self) -> int:
        return self._version

    def get(self, label: str) -> TaskPolicy:
        found = self._written.get(label) or self._defaults.get(label)
        if found is None:
            found = default_policy(label)
            if len(self._defaults) < _DEFAULTS_MAX:
                self._defaults[label] = found
        return found

    def labels(self) -> list[str]:
        return sorted(self._written)


class MemoryPolicyTable(KnownPolicies):
    """Policies by label. Thread-safe."""

    def __init__(self, on_change: Callable[[str], None] = lambda label: None) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._on_change = on_change

    def put(self, label: str, policy: TaskPolicy) -> None:
        check_policy(label, policy)
        with self._lock:
            self._written[label] = policy
            self._version += 1
        self._on_change(label)
