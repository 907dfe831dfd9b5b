"""What is being worked on, carried along as context variables.

Threads do not inherit context variables: every hand-over to a thread goes through `run_in_context`
(or `contextvars.copy_context`), so that a log line deep in a handler still names its trace.
"""

from __future__ import annotations

import contextvars
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

trace_id: contextvars.ContextVar[str] = contextvars.ContextVar("memos_trace_id", default="")
user_id: contextvars.ContextVar[str] = contextvars.ContextVar("memos_user_id", default="")
cube_id: contextvars.ContextVar[str] = contextvars.ContextVar("memos_cube_id", default="")
task_id: contextvars.ContextVar[str] = contextvars.ContextVar("memos_task_id", default="")
api_path: contextvars.ContextVar[str] = contextvars.ContextVar("memos_api_path", default="")

# Cubes that whatever runs here may reach in a store that can fence others off; None: all of them.
fence: contextvars.ContextVar[frozenset[str] | None] = contextvars.ContextVar("memos_fence", default=None)

# Inside a handler: the chat turns of the messages that it runs, for a text that it searches with.
own_turns: contextvars.ContextVar[Callable[[str], frozenset[str]] | None] = contextvars.ContextVar(
    "memos_own_turns", default=None
)


def turns_left_out(query: str) -> frozenset[str]:
    """The ids of the turns whose rows a search for `query` does not find here; outside a handler none."""
    of_query = own_turns.get()
    return frozenset() if of_query is None else of_query(query)


def new_trace_id() -> str:
    """A fresh trace id: 32 hex digits, the form that OpenTelemetry uses."""
    return uuid.uuid4().hex


def current_trace_id() -> str:
    """The trace being worked on, or a fresh one where there is none."""
    return trace_id.get() or new_trace_id()


@contextmanager
def bound(
    *,
    trace: str | None = None,
    user: str | None = None,
    cube: str | None = None,
    task: str | None = None,
    path: str | None = None,
) -> Iterator[None]:
    """Set what is given for the length of the block, and put back what was there before."""
    wanted = ((trace_id, trace), (user_id, user), (cube_id, cube), (task_id, task), (api_path, path))
    tokens = [(variable, variable.set(value)) for variable, value in wanted if value is not None]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


def run_in_context(function: Callable[P, R]) -> Callable[P, R]:
    """`function` bound to a copy of the caller's context, to be handed to another thread."""
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.run(function, *args, **kwargs)

    return run
