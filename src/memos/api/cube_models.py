"""Requests and responses about whole cubes: making them, asking for them, setting them aside."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator
from typing_extensions import TypedDict  # pydantic refuses the one of `typing` before Python 3.12

from memos.api.model_base import (
    BaseRequest,
    BaseResponse,
    CubeId,
    ItemIds,
    Messages,
    RecordId,
    UserId,
    example,
)
from memos.errors import InvalidInput


class CreateCubeRequest(BaseModel):
    """Make an empty cube. Without `cube_id` the name is its id."""

    model_config = example(cube_name="boats", owner_id="alice", cube_id="boats")

    cube_name: CubeId
    owner_id: UserId
    cube_id: CubeId | None = None
    cube_path: str | None = Field(None, description="refused: a server does not read paths of its clients")

    @model_validator(mode="after")
    def _no_path(self) -> CreateCubeRequest:
        if self.cube_path:
            raise InvalidInput("cube_path is not read: a cube of this server lives in its own store")
        return self


class RegisterCubeRequest(BaseModel):
    """Make a cube known under an id; it is made where it is not there yet."""

    model_config = example(mem_cube_name_or_path="boats", user_id="alice")

    mem_cube_name_or_path: CubeId
    mem_cube_id: CubeId | None = None
    user_id: UserId | None = None

    @model_validator(mode="after")
    def _no_path(self) -> RegisterCubeRequest:
        if self.mem_cube_id is None and any(mark in self.mem_cube_name_or_path for mark in "/\\"):
            raise InvalidInput(
                "mem_cube_name_or_path looks like a path, and no path is read: give a name, or mem_cube_id"
            )
        return self


class CubeMade(TypedDict):
    """A cube. `created`: whether this request made it."""

    cube_id: str
    cube_name: str
    owner_id: str | None
    created: bool


class CubeResponse(BaseResponse[CubeMade]):
    """The cube."""


class ExistMemCubeIdRequest(BaseModel):
    """Ask for a cube."""

    model_config = example(mem_cube_id="alice")

    mem_cube_id: CubeId


class ExistMemCubeIdResponse(BaseResponse[dict[str, bool]]):
    """`{mem_cube_id: whether it is there}`."""


class GetUserNamesByMemoryIdsRequest(BaseModel):
    """Ask where memories live."""

    model_config = example(memory_ids=["3f0c8f0e-1d1c-4a5b-9a0e-7a1f5f0e9b11"])

    memory_ids: ItemIds


class GetUserNamesByMemoryIdsResponse(BaseResponse[dict[str, str | None]]):
    """`{memory_id: the cube it lives in, or null}`."""


class DeleteMemoryByRecordIdRequest(BaseModel):
    """Set everything in a cube aside under a record id; with `hard_delete` delete what was set aside."""

    model_config = example(mem_cube_id="alice", record_id="cleanup-1")

    mem_cube_id: CubeId
    record_id: RecordId
    hard_delete: bool = False


class RecoverMemoryByRecordIdRequest(BaseModel):
    """Bring back what was set aside under a record id."""

    model_config = example(mem_cube_id="alice", delete_record_id="cleanup-1")

    mem_cube_id: CubeId
    delete_record_id: RecordId


class Moved(TypedDict):
    """How many memories were moved."""

    status: str
    count: int


class RecordResponse(BaseResponse[Moved]):
    """`{status, count}`."""


class SuggestionRequest(BaseRequest):
    """Ask for questions worth asking."""

    model_config = example(user_id="alice", mem_cube_id="alice", language="en")

    mem_cube_id: CubeId
    language: Literal["zh", "en"] = "zh"
    message: Messages | None = Field(None, description="a conversation to follow up on")


class SuggestionResponse(BaseResponse[dict[str, list[str]]]):
    """`{query: [question, …]}`."""


class GraphResponse(BaseResponse[list[dict[str, Any]]]):
    """A graph a cube: `{cube_id, memories: [{nodes, edges, tree_structure}], memory_statistics}`."""


class WorkingPlace(TypedDict):
    """One place. `reason`: why the memory is there."""

    place: int
    memory_id: str
    memory: str
    score: float
    reason: str
    since: datetime


class WorkingCurvePoint(TypedDict):
    """The share of accesses that so many places would have held."""

    capacity: int
    hit_rate: float


class WorkingMemoryReport(TypedDict):
    """A working memory as a cache; docs/working-memory.md explains every figure."""

    mem_cube_id: str
    version: int
    capacity: int
    places: list[WorkingPlace]
    ghosts: int
    basis: Literal["uses", "recalls"]
    accesses: float
    hit_rate: float
    ghost_rate: float
    gain: float
    sentence: str
    curve: list[WorkingCurvePoint]
    use_share: float
    changes: dict[str, int]
    sufficed: int
    replaced: int


class WorkingMemoryResponse(BaseResponse[WorkingMemoryReport]):
    """The places, what they held of what was asked for, and what other capacities would have held."""
