"""The labels of tasks, their classes and their documented constants.

A label belongs to a class; the labels of a class share the order of their lane (see `queues.base`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, Field

QUERY_TASK_LABEL = "query"
ANSWER_TASK_LABEL = "answer"
ADD_TASK_LABEL = "add"
MEM_READ_TASK_LABEL = "mem_read"
MEM_ORGANIZE_TASK_LABEL = "mem_organize"
MEM_DREAM_TASK_LABEL = "mem_dream"
MEM_UPDATE_TASK_LABEL = "mem_update"
MEM_ARCHIVE_TASK_LABEL = "mem_archive"
API_MIX_SEARCH_TASK_LABEL = "api_mix_search"
PREF_ADD_TASK_LABEL = "pref_add"
MEM_FEEDBACK_TASK_LABEL = "mem_feedback"
MEM_ACTIVATE_TASK_LABEL = "mem_activate"  # ours: prepare prefixes of what stands in working memory

# The names that the first documents used.
QUERY_LABEL = QUERY_TASK_LABEL
ANSWER_LABEL = ANSWER_TASK_LABEL
ADD_LABEL = ADD_TASK_LABEL

TURN_CLASS = "turn"
MEMORY_CLASS = "memory"
BACKGROUND_CLASS = "background"
ACTIVATION_CLASS = "activation"  # of its own: a build takes seconds, and nothing else waits for it

CLASS_OF_LABEL: dict[str, str] = {
    QUERY_TASK_LABEL: TURN_CLASS,
    ANSWER_TASK_LABEL: TURN_CLASS,
    ADD_TASK_LABEL: TURN_CLASS,
    MEM_UPDATE_TASK_LABEL: MEMORY_CLASS,
    MEM_FEEDBACK_TASK_LABEL: MEMORY_CLASS,
    PREF_ADD_TASK_LABEL: MEMORY_CLASS,
    MEM_READ_TASK_LABEL: BACKGROUND_CLASS,
    MEM_ORGANIZE_TASK_LABEL: BACKGROUND_CLASS,
    API_MIX_SEARCH_TASK_LABEL: BACKGROUND_CLASS,
    MEM_ACTIVATE_TASK_LABEL: ACTIVATION_CLASS,
}


def class_of(label: str) -> str:
    """The class of a label; every label outside the table is a class of its own."""
    return CLASS_OF_LABEL.get(label, label)


class TaskPriorityLevel(IntEnum):
    """1 is served first; the lower levels keep a guaranteed share."""

    LEVEL_1 = 1
    LEVEL_2 = 2
    LEVEL_3 = 3


class TaskState(StrEnum):
    """What status answers say of a task."""

    WAITING = "waiting"
    IN_PROGRESS = "in_progress"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


DEFAULT_STREAM_KEY_PREFIX = "scheduler:messages:stream:v2.0"

# Categories of web logs.
ADD_MESSAGE_LOG = "addMessage"
ADD_MEMORY_LOG = "addMemory"
UPDATE_MEMORY_LOG = "updateMemory"
MERGE_MEMORY_LOG = "mergeMemory"
ARCHIVE_MEMORY_LOG = "archiveMemory"
KNOWLEDGE_BASE_UPDATE_LOG = "knowledgeBaseUpdate"
SCHEDULE_MEMORY_LOG = "scheduleMemory"
TASK_STATUS_LOG = "taskStatus"
MODEL_FAULT_LOG = "modelFault"  # ours: a model's reply could not be used, and rules did the work

# Memory areas, as web logs and API answers name them.
LONG_TERM_MEMORY_TYPE = "LongTermMemory"
USER_MEMORY_TYPE = "UserMemory"
WORKING_MEMORY_TYPE = "WorkingMemory"
TEXT_MEMORY_TYPE = "TextMemory"
ACTIVATION_MEMORY_TYPE = "ActivationMemory"
PARAMETER_MEMORY_TYPE = "ParameterMemory"
PREFERENCE_MEMORY_TYPE = "PreferenceMemory"
USER_INPUT_TYPE = "UserInput"
NOT_APPLICABLE_TYPE = "NotApplicable"


class RunningTaskItem(BaseModel):
    """One run of a handler over a batch of messages, as `get_running_tasks` shows it."""

    item_id: str = Field(default_factory=lambda: str(uuid4()))
    user_id: str
    mem_cube_id: str
    task_info: str = ""
    task_name: str  # "<label>_handler"
    start_time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    end_time: datetime | None = None
    status: str = "running"  # running, completed, failed
    result: Any = None
    error_message: str | None = None
    messages: list[Any] = Field(default_factory=list)

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from start to end; None while it runs."""
        return (self.end_time - self.start_time).total_seconds() if self.end_time else None
