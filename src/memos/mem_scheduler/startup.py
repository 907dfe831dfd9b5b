"""The startup mode `process`: handlers run in a worker process that `start` starts, not in this one.

The scheduler here then only takes messages in and answers for them; the queue is shared. What is
registered here is handed to the process, at its start and whenever it changes, so functions must be
importable there: those at the top level of a module are, lambdas and functions inside of others are not.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from memos.errors import ConfigError


class WorkerProcess(Protocol):
    """The process that runs the handlers. Thread-safe."""

    def register(self, handlers: Mapping[str, Any]) -> None:
        """Serve these too; as `portable` made them."""
        ...

    def unregister(self, labels: Iterable[str]) -> None:
        """Serve these no more."""
        ...

    def hurry(self) -> None:
        """Let `stop` hand back at once what runs."""
        ...

    def stop(self, grace_s: float | None) -> bool:
        """Drain and end; whether all that ran was finished."""
        ...


class Launch(Protocol):
    """Starts the process; returns when it claims. Raises what stands in its way."""

    def __call__(self, handlers: Mapping[str, Any]) -> WorkerProcess: ...


@dataclass(frozen=True, slots=True)
class SchedulerMethod:
    """A handler that is a method of the scheduler itself: the process takes that of its own."""

    name: str


def is_being_imported() -> bool:
    """Whether this is a process that multiprocessing spawned and that still imports the program's module.

    The mark is the one by which multiprocessing itself refuses to start a process from there.
    """
    process = sys.modules.get("multiprocessing.process")
    return process is not None and getattr(process.current_process(), "_inheriting", False)


def own_labels(handlers: Mapping[str, Any], scheduler: object) -> frozenset[str]:
    """The labels whose functions are methods of the scheduler itself."""
    return frozenset(label for label, value in handlers.items() if _is_own(_function_of(value), scheduler))


def _function_of(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _is_own(function: Any, scheduler: object) -> bool:
    return getattr(function, "__self__", None) is scheduler


def portable(handlers: Mapping[str, Any], scheduler: object) -> dict[str, Any]:
    """`handlers` as they can be handed to another process. Raises ConfigError naming the label."""
    made: dict[str, Any] = {}
    for label, value in handlers.items():
        function, *rest = value if isinstance(value, tuple) else (value,)
        if _is_own(function, scheduler):
            function = SchedulerMethod(function.__name__)
        made[label] = (function, *rest) if isinstance(value, tuple) else function
        try:
            pickle.dumps(made[label])
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"the handler of label {label!r} cannot be handed to the worker process ({error}); define it "
                "at the top level of a module, or use scheduler_startup_mode=thread"
            ) from error
    return made


def resolved(handlers: Mapping[str, Any], scheduler: object) -> dict[str, Any]:
    """What `portable` made, for the scheduler of the process."""

    def one(function: Any) -> Any:
        return getattr(scheduler, function.name) if isinstance(function, SchedulerMethod) else function

    return {
        label: (one(value[0]), *value[1:]) if isinstance(value, tuple) else one(value)
        for label, value in handlers.items()
    }
