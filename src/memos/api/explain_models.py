"""Why a memory was found, or why not: the request and the walk through every gate."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator
from typing_extensions import TypedDict  # pydantic refuses the one of `typing` before Python 3.12

from memos.api.model_base import BaseResponse, example
from memos.api.product_models import APISearchRequest, FoundMemory
from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_id, check_text

EXPECTED_BYTES_MAX = 16 * 1024


class ExplainRequest(APISearchRequest):
    """A search, and the memory that was expected of it: by id, or by what it says."""

    model_config = example(
        user_id="alice", query="What is my boat called?", expected="The boat is called Petrel."
    )

    memory_id: str | None = Field(None, description="the memory that was expected")
    expected: str | None = Field(None, description="what the expected memory says")

    @model_validator(mode="after")
    def _one_expectation(self) -> ExplainRequest:
        if (self.memory_id is None) == (self.expected is None):
            raise InvalidInput("say what was expected in exactly one way: memory_id, or expected (its text)")
        if self.memory_id is not None:
            check_id("memory_id", self.memory_id)
        if self.expected is not None:
            check_text("expected", self.expected, bytes_max=EXPECTED_BYTES_MAX)
        return self


class Gate(TypedDict):
    """One gate on the way from a message to a hit: whether the memory passed, and in words why."""

    gate: str
    passed: bool
    detail: str


class QueuedTask(TypedDict):
    """A task that concerns the memory. `ahead`: how many of its lane are before it; None: it does not wait."""

    key: str
    label: str
    state: str
    ahead: int | None
    attempts: int
    error: str


class Explained(TypedDict):
    """The verdict in one word and in one sentence, every gate up to the one that was not passed, the tasks
    that concern the memory, its rank in each channel of recall, the score that each stage gave it, and by
    which ways it was found."""

    verdict: str
    explanation: str
    memory: FoundMemory | None
    gates: list[Gate]
    tasks: list[QueuedTask]
    channels: dict[str, dict[str, Any]]
    score_rank: int | None
    candidates: int
    relativity: float | None
    place: int | None
    stages: dict[str, float]
    found_by: list[dict[str, str]]


class ExplainResponse(BaseResponse[Explained]):
    """Why, or why not."""
