"""The built-in handlers: one table to read, label -> function and policy.

A handler is `handle(ctx, messages)`; `messages` are all of one label, user and cube, oldest first. The
policy is None where the label's built-in class says it all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from memos.mem_scheduler.handlers import (
    add,
    answer,
    api_mix_search,
    mem_activate,
    mem_feedback,
    mem_organize,
    mem_read,
    mem_update,
    pref_add,
    query,
)
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import (
    ADD_TASK_LABEL,
    ANSWER_TASK_LABEL,
    API_MIX_SEARCH_TASK_LABEL,
    MEM_ACTIVATE_TASK_LABEL,
    MEM_FEEDBACK_TASK_LABEL,
    MEM_ORGANIZE_TASK_LABEL,
    MEM_READ_TASK_LABEL,
    MEM_UPDATE_TASK_LABEL,
    PREF_ADD_TASK_LABEL,
    QUERY_TASK_LABEL,
)

HandlerFunction = Callable[[HandlerContext, Sequence[ScheduleMessageItem]], None]


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A row of the table."""

    handle: HandlerFunction
    policy: TaskPolicy | None = None


HANDLERS: Mapping[str, BuiltIn] = {
    QUERY_TASK_LABEL: BuiltIn(query.handle),
    ANSWER_TASK_LABEL: BuiltIn(answer.handle),
    ADD_TASK_LABEL: BuiltIn(add.handle),
    MEM_UPDATE_TASK_LABEL: BuiltIn(mem_update.handle),
    MEM_READ_TASK_LABEL: BuiltIn(mem_read.handle),
    MEM_ORGANIZE_TASK_LABEL: BuiltIn(mem_organize.handle),
    PREF_ADD_TASK_LABEL: BuiltIn(pref_add.handle),
    MEM_FEEDBACK_TASK_LABEL: BuiltIn(mem_feedback.handle),
    API_MIX_SEARCH_TASK_LABEL: BuiltIn(api_mix_search.handle),
    MEM_ACTIVATE_TASK_LABEL: BuiltIn(mem_activate.handle),
}
