"""Requests and responses of the HTTP API: the documented names, fields and defaults.

Validation happens here, at the border, with errors that name the field, the value and the way out.
Unknown fields are ignored, so that a client written for a larger server still works. Every answer is
the envelope `{code, message, data}`; `request_id` names the request in logs and traces.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from memos import context
from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_id, check_text
from memos.memory.turns import ROLES, parse_conversation

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


# An empty list of cube ids is the same as none: the cube named like the user.
UserId = Annotated[str, AfterValidator(lambda v: check_id("user_id", v))]
CubeId = Annotated[str, AfterValidator(lambda v: check_id("mem_cube_id", v))]
SessionId = Annotated[str, AfterValidator(lambda v: check_id("session_id", v) if v else v)]
TaskId = Annotated[str, AfterValidator(lambda v: check_id("task_id", v) if v else v)]
Query = Annotated[str, AfterValidator(lambda v: check_text("query", v, bytes_max=QUERY_BYTES_MAX))]
Feedback = Annotated[str, AfterValidator(lambda v: check_text("feedback_content", v))]
CubeIds = Annotated[list[str], AfterValidator(_cube_ids)]
ItemIds = Annotated[list[str], AfterValidator(_item_ids)]
Tags = Annotated[list[str], AfterValidator(_tags)]
Messages = Annotated[str | list[Any], BeforeValidator(_messages)]
History = Annotated[list[dict[str, Any]], AfterValidator(_history)]
Filter = dict[str, Any]


class SearchMode(StrEnum):
    """How a search is run. Without a model all three run the same hybrid recall."""

    FAST = "fast"
    FINE = "fine"
    MIXTURE = "mixture"


class BaseRequest(BaseModel):
    """What all requests share."""

    model_config = ConfigDict(extra="ignore")

    user_id: UserId = Field(description="who asks; without cube ids also the cube")


class APIADDRequest(BaseRequest):
    """Store a conversation."""

    session_id: SessionId | None = Field(None, description="the conversation it belongs to")
    task_id: TaskId | None = Field(None, description="a business task, to ask for its status later")
    writable_cube_ids: CubeIds | None = Field(None, description="default: the cube named like the user")
    async_mode: Literal["async", "sync"] = "async"
    mode: Literal["fast", "fine"] | None = Field(None, description="sync only; fine needs a language model")
    custom_tags: Tags | None = None
    info: dict[str, Any] | None = Field(None, description="kept with each memory as it is")
    messages: Messages | None = Field(None, description="a text, or a list of {role, content, …}")
    chat_history: History | None = None
    is_feedback: bool = False
    is_upload_skill: bool = False
    mem_cube_id: CubeId | None = Field(None, description="deprecated: use writable_cube_ids")
    memory_content: str | None = Field(None, description="deprecated: use messages")
    doc_path: str | None = Field(None, description="refused: a server does not read paths of its clients")
    source: str | None = Field(None, description="deprecated")
    operation: list[Any] | None = Field(None, description="deprecated")

    @model_validator(mode="after")
    def _has_content(self) -> APIADDRequest:
        if self.doc_path:
            raise InvalidInput(
                "doc_path is not read: send the file in messages, as a part of type 'file' with file_data"
            )
        if self.is_upload_skill:
            raise InvalidInput(
                "is_upload_skill: this version stores no skills; send conversations in messages"
            )
        if self.messages is None and self.memory_content is None:
            raise InvalidInput("messages is missing: give a text or a list of {role, content} messages")
        if self.messages is not None and self.memory_content is not None:
            raise InvalidInput(
                "messages and memory_content are both given: memory_content is the old name, drop it"
            )
        if self.memory_content is not None:
            check_text("memory_content", self.memory_content)
        return self


class APISearchRequest(BaseRequest):
    """Recall memories."""

    query: Query
    readable_cube_ids: CubeIds | None = Field(None, description="default: the cube named like the user")
    mode: SearchMode = SearchMode.FAST
    session_id: SessionId | None = Field(None, description="favours this conversation, hides nothing")
    top_k: int = Field(10, ge=1, le=TOP_K_MAX)
    relativity: float = Field(0.45, ge=0, le=1, description="leave out memories that fit less; 0: none")
    dedup: Literal["no", "sim", "mmr"] | None = "mmr"
    rerank: bool = True
    pref_top_k: int = Field(6, ge=0, le=TOP_K_MAX)
    include_preference: bool = True
    search_tool_memory: bool = True
    tool_mem_top_k: int = Field(6, ge=0, le=TOP_K_MAX)
    include_skill_memory: bool = True
    skill_mem_top_k: int = Field(3, ge=0, le=TOP_K_MAX)
    filter: Filter | None = None
    internet_search: bool = False
    search_memory_type: str = "All"
    reference_time: str | None = Field(None, description="the 'now' of words such as yesterday")
    chat_history: History | None = None
    source: str | None = None
    neighbor_discovery: bool = False
    mem_cube_id: CubeId | None = Field(None, description="deprecated: use readable_cube_ids")


class ChatRequest(BaseRequest):
    """Ask, and be answered out of memory."""

    query: Query
    readable_cube_ids: CubeIds | None = None
    writable_cube_ids: CubeIds | None = None
    history: History | None = None
    mode: SearchMode = SearchMode.FAST
    system_prompt: str | None = None
    top_k: int = Field(10, ge=1, le=TOP_K_MAX)
    session_id: SessionId | None = None
    include_preference: bool = True
    pref_top_k: int = Field(6, ge=0, le=TOP_K_MAX)
    model_name_or_path: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    add_message_on_answer: bool = True
    relativity: float = Field(0.45, ge=0, le=1)
    filter: Filter | None = None
    internet_search: bool = False
    threshold: float = Field(0.5, ge=0, le=1)
    mem_cube_id: CubeId | None = Field(None, description="deprecated: use the lists of cube ids")


class ChatPlaygroundRequest(ChatRequest):
    """A chat whose stream also shows what was recalled."""

    beginner_guide_step: str | None = None


class ChatBusinessRequest(ChatRequest):
    """A chat on behalf of a business user."""

    business_key: str = ""
    need_search: bool = True


class APIChatCompleteRequest(ChatRequest):
    """A chat answered in one piece."""


class APIFeedbackRequest(BaseRequest):
    """What the user says about an answer."""

    session_id: SessionId | None = "default_session"
    task_id: TaskId | None = None
    history: History | None = None
    feedback_content: Feedback
    retrieved_memory_ids: ItemIds | None = None
    feedback_time: str | None = None
    corrected_answer: bool = False
    async_mode: Literal["async", "sync"] = "async"
    writable_cube_ids: CubeIds | None = None
    mem_cube_id: CubeId | None = Field(None, description="deprecated: use writable_cube_ids")
    info: dict[str, Any] | None = None


class GetMemoryRequest(BaseModel):
    """List the memories of a cube, newest first."""

    model_config = ConfigDict(extra="ignore")

    mem_cube_id: CubeId
    user_id: UserId | None = None
    include_preference: bool = True
    filter: Filter | None = None
    page: int | None = Field(None, ge=1)
    page_size: int | None = Field(None, ge=1, le=1_000)


class GetMemoryByIdsRequest(BaseModel):
    """Fetch memories by id."""

    model_config = ConfigDict(extra="ignore")

    memory_ids: ItemIds


class DeleteMemoryRequest(BaseModel):
    """Delete memories: by id, or all that match."""

    model_config = ConfigDict(extra="ignore")

    writable_cube_ids: CubeIds | None = None
    memory_ids: ItemIds | None = None
    file_ids: ItemIds | None = Field(None, description="documents, with all that was read from them")
    user_id: UserId | None = None
    session_id: SessionId | None = None
    filter: Filter | None = None

    @model_validator(mode="after")
    def _one_way(self) -> DeleteMemoryRequest:
        by_match = any(v is not None for v in (self.user_id, self.session_id, self.filter))
        if (self.memory_ids is not None) + by_match + (self.file_ids is not None) != 1:
            raise InvalidInput(
                "say what to delete in exactly one way: memory_ids, file_ids, or any of user_id, session_id "
                "and filter"
            )
        if self.file_ids == []:
            raise InvalidInput("file_ids is an empty list; name at least one document")
        if self.memory_ids == []:
            raise InvalidInput("memory_ids is an empty list; name at least one memory")
        if by_match and not (self.user_id or self.session_id or self.filter):
            raise InvalidInput("an empty user_id, session_id or filter would match everything; give a value")
        return self


class BaseResponse(BaseModel, Generic[T]):
    """The envelope of every answer."""

    code: int = 200
    message: str = "success"
    data: T | None = None
    request_id: str | None = Field(default_factory=lambda: context.trace_id.get() or None)


class MemoryResponse(BaseResponse[list[dict[str, Any]]]):
    """What was stored: `{memory, memory_id, memory_type, cube_id}` each.

    `seqs` is each cube's sequence number that holds the change; `skipped` what was not stored and why;
    `quarantined` what is kept for review and never recalled (`memos quarantine`), and why; `documents` what
    became of each file: `{file_id, name, cube_id, format, pages, parts, state, replaced, notes}`.
    """

    seqs: dict[str, int] = Field(default_factory=dict)
    skipped: list[dict[str, Any]] = Field(default_factory=list)
    quarantined: list[dict[str, Any]] = Field(default_factory=list)
    documents: list[dict[str, Any]] = Field(default_factory=list)


class SearchResponse(BaseResponse[dict[str, Any]]):
    """What was recalled, in the documented buckets.

    `seqs` is the sequence number at which each cube was read; `degraded` says which part of recall did
    not take part, and why.
    """

    seqs: dict[str, int] = Field(default_factory=dict)
    degraded: list[str] = Field(default_factory=list)


class GetMemoryResponse(BaseResponse[dict[str, Any]]):
    """Memories in the documented buckets; data is null when there is none of that id."""


class DeleteMemoryResponse(BaseResponse[dict[str, Any]]):
    """`{status, deleted}`."""


class ChatCompleteResponse(BaseResponse[dict[str, Any]]):
    """`{response, reasoning}`."""


class StatusResponse(BaseResponse[list[dict[str, Any]]]):
    """`[{task_id, status}]`."""


class AllStatusResponse(BaseResponse[dict[str, dict[str, int]]]):
    """Counts of tasks by state."""


class TaskQueueResponse(BaseResponse[dict[str, Any]]):
    """What is queued for a user."""
