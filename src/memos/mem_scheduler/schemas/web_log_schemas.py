"""What the scheduler tells the world about memory: one `ScheduleLogForWebItem` per event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, Field
from typing_extensions import TypedDict  # pydantic refuses the one of `typing` before Python 3.12


class MemorySizes(TypedDict):
    """How many memories each area holds; -1 = not known."""

    long_term_memory_size: int
    user_memory_size: int
    working_memory_size: int
    transformed_act_memory_size: int
    parameter_memory_size: int


class MemoryCapacities(TypedDict):
    """How many memories each area may hold; -1 = no limit known."""

    long_term_memory_capacity: int
    user_memory_capacity: int
    working_memory_capacity: int
    transformed_act_memory_capacity: int
    parameter_memory_capacity: int


DEFAULT_MEMORY_SIZES: MemorySizes = {
    "long_term_memory_size": -1,
    "user_memory_size": -1,
    "working_memory_size": -1,
    "transformed_act_memory_size": -1,
    "parameter_memory_size": -1,
}

DEFAULT_MEMORY_CAPACITIES: MemoryCapacities = {
    "long_term_memory_capacity": 10_000,
    "user_memory_capacity": 10_000,
    "working_memory_capacity": 20,
    "transformed_act_memory_capacity": -1,
    "parameter_memory_capacity": -1,
}


class ScheduleLogForWebItem(BaseModel):
    """One log event for a front end.

    `memory_len` is the number of memories in the target area after the event, `memory_delta` the
    change the event made.
    """

    item_id: str = Field(default_factory=lambda: str(uuid4()))
    task_id: str | None = None
    user_id: str
    mem_cube_id: str
    label: str
    from_memory_type: str | None = None
    to_memory_type: str | None = None
    log_content: str
    current_memory_sizes: MemorySizes = Field(default_factory=lambda: MemorySizes(**DEFAULT_MEMORY_SIZES))
    memory_capacities: MemoryCapacities = Field(
        default_factory=lambda: MemoryCapacities(**DEFAULT_MEMORY_CAPACITIES)
    )
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    memcube_log_content: list[dict[str, Any]] | None = None
    metadata: list[dict[str, Any]] | None = None
    memcube_name: str | None = None
    memory_len: int | None = None
    memory_delta: int | None = None
    status: str | None = None
    source_doc_id: str | None = None
    chat_history: list[Any] | None = None
    api_path: str | None = None
    trace_id: str = ""

    def debug_info(self) -> dict[str, Any]:
        """The fields that help to find the event, without any memory text."""
        return {
            "item_id": self.item_id,
            "task_id": self.task_id,
            "user_id": self.user_id,
            "mem_cube_id": self.mem_cube_id,
            "trace_id": self.trace_id,
            "label": self.label,
            "from_memory_type": self.from_memory_type,
            "to_memory_type": self.to_memory_type,
            "status": self.status,
            "timestamp": self.timestamp.isoformat(),
            "log_content_length": len(self.log_content),
        }
