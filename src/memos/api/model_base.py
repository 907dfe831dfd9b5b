"""What requests and responses share: ids that are checked, the envelope, and the example on each page.

Validation happens here, at the border, with errors that name the field, the value and the way out.
Unknown fields are ignored, so that a client written for a larger server still works.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from memos import context
from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_id, check_text
from memos.memory.turns import ROLES, parse_conversation
from memos.retrieval.stage_table import switched

QUERY_BYTES_MAX = 64 * 1024
CUBES_MAX = 100
TAGS_MAX = 100
IDS_MAX = 1_000
TOP_K_MAX = 1_000

T = TypeVar("T")


def _cube_ids(value: list[str]) -> list[str]:
    if len(value) > CUBES_MAX:
        raise InvalidInput(f"{len(value)} cube ids; at most {CUBES_MAX} are taken in one call")
    return list(dict.fromkeys(check_id("cube id", cube) for cube in value))


def _item_ids(value: list[str]) -> list[str]:
    if len(value) > IDS_MAX:
        raise InvalidInput(f"{len(value)} memory ids; at most {IDS_MAX} are taken in one call")
    return list(dict.fromkeys(check_id("memory id", one) for one in value))


def _tags(value: list[str]) -> list[str]:
    if len(value) > TAGS_MAX:
        raise InvalidInput(f"{len(value)} tags; at most {TAGS_MAX} are kept with a memory")
    return [check_id("tag", tag, chars_max=200) for tag in value]


def _messages(value: Any) -> Any:
    parse_conversation(value)
    return value


def _history(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for index, message in enumerate(value):
        if message.get("role") not in ROLES:
            raise InvalidInput(
                f"history[{index}].role is {message.get('role')!r}; known roles are {', '.join(ROLES)}"
            )
        content = message.get("content")
        if not isinstance(content, str):
            raise InvalidInput(f"history[{index}].content must be text, not {type(content).__name__}")
    return value


def _stages(names: list[str]) -> list[str]:
    switched(names)
    return names


# An empty list of cube ids is the same as none: the cube named like the user.
UserId = Annotated[str, AfterValidator(lambda v: check_id("user_id", v))]
CubeId = Annotated[str, AfterValidator(lambda v: check_id("mem_cube_id", v))]
SessionId = Annotated[str, AfterValidator(lambda v: check_id("session_id", v) if v else v)]
RecordId = Annotated[str, AfterValidator(lambda v: check_id("record_id", v, chars_max=200))]
TaskId = Annotated[str, AfterValidator(lambda v: check_id("task_id", v) if v else v)]
Query = Annotated[str, AfterValidator(lambda v: check_text("query", v, bytes_max=QUERY_BYTES_MAX))]
Feedback = Annotated[str, AfterValidator(lambda v: check_text("feedback_content", v))]
Stages = Annotated[list[str], AfterValidator(_stages)]
CubeIds = Annotated[list[str], AfterValidator(_cube_ids)]
ItemIds = Annotated[list[str], AfterValidator(_item_ids)]
Tags = Annotated[list[str], AfterValidator(_tags)]
Messages = Annotated[str | list[Any], BeforeValidator(_messages)]
History = Annotated[list[dict[str, Any]], AfterValidator(_history)]
Filter = dict[str, Any]


def example(**fields: Any) -> ConfigDict:
    """The configuration of a model whose page in the description of the API shows `fields`."""
    return ConfigDict(extra="ignore", json_schema_extra={"examples": [fields]})


class BaseRequest(BaseModel):
    """What all requests share."""

    model_config = ConfigDict(extra="ignore")

    user_id: UserId = Field(description="who asks; without cube ids also the cube")


class BaseResponse(BaseModel, Generic[T]):
    """The envelope of every answer. `warnings`: what of the request had no effect, and why."""

    code: int = 200
    message: str = "success"
    data: T | None = None
    request_id: str | None = Field(default_factory=lambda: context.trace_id.get() or None)
    warnings: list[str] = Field(default_factory=list)
