"""Which function handles which label, and what a registration says about the label's policy.

A registration is a plain function, `(function, priority or None, min_idle_ms or None)`, or
`(function, TaskPolicy)`; functions may be `async def`. A call of `register` is checked whole before any
of it takes effect. A plain function writes no policy field, except that it resets coalescing: a new
function was not written for messages that stand for several. The scheduler's own methods are.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from memos import log
from memos.errors import InvalidInput
from memos.mem_scheduler.orchestrator import (
    BUILT_IN_CLASSES,
    SchedulerOrchestrator,
    TaskPolicy,
    checked_min_idle_ms,
    checked_priority,
)
from memos.mem_scheduler.queues.policies import check_policy
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, check_id
from memos.mem_scheduler.schemas.task_schemas import class_of

logger = log.get_logger(__name__)

Handler = Callable[[list[ScheduleMessageItem]], Any]


@dataclass(frozen=True, slots=True)
class _Registration:
    handler: Handler
    priority: int | None = None
    min_idle_ms: int | None = None
    policy: TaskPolicy | None = None

    @property
    def is_plain(self) -> bool:
        return self.priority is None and self.min_idle_ms is None and self.policy is None


class HandlerRegistry:
    """Thread-safe. Labels in `disabled`, and those outside of `only` where it names any, are kept but not
    served."""

    def __init__(
        self,
        orchestrator: SchedulerOrchestrator,
        *,
        disabled: Iterable[str] = (),
        only: Iterable[str] = (),
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._orchestrator = orchestrator
        self._disabled = frozenset(disabled)
        self._only = frozenset(only)
        self._on_change = on_change
        self._lock = threading.Lock()
        self._handlers: dict[str, Handler] = {}  # replaced, never changed: readers need no lock

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Function by label, disabled labels included."""
        return MappingProxyType(self._handlers)

    @property
    def disabled(self) -> frozenset[str]:
        return self._disabled

    def served(self) -> frozenset[str]:
        """The labels that this process claims."""
        served = frozenset(self._handlers) - self._disabled
        return served & self._only if self._only else served

    def get(self, label: str) -> Handler | None:
        """The function that serves `label` here, if any."""
        if label in self._disabled or (self._only and label not in self._only):
            return None
        return self._handlers.get(label)

    def register(self, handlers: Mapping[str, Any], *, own: Container[str] = ()) -> None:
        """Add or replace handlers. Raises InvalidInput or ConfigError; then nothing was changed.

        `own`: the labels whose functions are the scheduler's own methods.
        """
        if not isinstance(handlers, Mapping):
            raise InvalidInput(
                f"register_handlers takes a mapping label -> function, not {type(handlers).__name__}"
            )
        checked = {check_id("label", label): _parse(label, value) for label, value in handlers.items()}
        policies = {
            label: self._policy(label, one, keeps_coalescing=label in own) for label, one in checked.items()
        }
        with self._lock:
            for label, policy in policies.items():
                if policy is not None:
                    self._orchestrator.set_policy(label, policy)
            self._handlers = {
                **self._handlers,
                **{label: one.handler for label, one in checked.items()},
            }
        self._on_change()

    def unregister(self, labels: Iterable[str]) -> dict[str, bool]:
        """Stop serving `labels`; says of each whether there was a handler. Their messages wait."""
        wanted = [labels] if isinstance(labels, str) else list(labels)
        with self._lock:
            removed = {label: label in self._handlers for label in wanted}
            self._handlers = {
                label: handler for label, handler in self._handlers.items() if label not in removed
            }
        self._on_change()
        return removed

    def _policy(self, label: str, one: _Registration, *, keeps_coalescing: bool) -> TaskPolicy | None:
        """The policy to write for a registration; None: leave what is there."""
        before = self._orchestrator.get_policy(label)
        if one.is_plain and keeps_coalescing:
            return None
        if one.is_plain:
            return replace(before, coalesce=False) if before.coalesce else None
        if one.policy is not None:
            check_policy(label, one.policy)
            return one.policy
        policy = self._orchestrator.written_or_default(label)
        if one.priority is not None:
            level = checked_priority(label, one.priority)
            if class_of(label) in BUILT_IN_CLASSES:
                if level != policy.level:
                    logger.warning(
                        "policy.priority_ignored", label=label, asked=int(level), level=int(policy.level)
                    )
            else:
                policy = replace(policy, level=level)
        if one.min_idle_ms is not None:
            policy = replace(policy, min_idle_ms=checked_min_idle_ms(label, one.min_idle_ms))
        return policy if keeps_coalescing else replace(policy, coalesce=False)


def _parse(label: str, value: object) -> _Registration:
    if isinstance(value, tuple):
        if len(value) == 2 and isinstance(value[1], TaskPolicy):
            return _Registration(_callable(label, value[0]), policy=value[1])
        if len(value) == 2:
            return _Registration(_callable(label, value[0]), _priority(label, value[1]))
        if len(value) == 3:
            return _Registration(
                _callable(label, value[0]),
                _priority(label, value[1]),
                None if value[2] is None else checked_min_idle_ms(label, value[2]),
            )
        raise InvalidInput(
            f"the registration of label {label!r} is a tuple of {len(value)} values; give a function, "
            "(function, priority, min_idle_ms) or (function, TaskPolicy)"
        )
    return _Registration(_callable(label, value))


def _priority(label: str, value: object) -> int | None:
    return None if value is None else checked_priority(label, value)


def _callable(label: str, value: object) -> Handler:
    if not callable(value):
        raise InvalidInput(
            f"the handler of label {label!r} is {value!r}, which cannot be called; "
            "give a function that takes a list of ScheduleMessageItem"
        )
    if inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value):
        raise InvalidInput(
            f"the handler of label {label!r} is a generator function ({value!r}): calling it would run none "
            "of it; drop its yield"
        )
    return value
