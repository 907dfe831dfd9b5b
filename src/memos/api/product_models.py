"""Requests and responses of the HTTP API: the documented names, fields and defaults.

Every answer is the envelope `{code, message, data}`; `request_id` names the request in logs and traces.
What an answer of ours says beyond the documented fields stands beside `data`, never inside of it, so that
a client written for the reference finds what it knows.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator
from typing_extensions import TypedDict  # pydantic refuses the one of `typing` before Python 3.12

from memos.api.model_base import (
    TOP_K_MAX,
    BaseRequest,
    BaseResponse,
    CubeId,
    CubeIds,
    Feedback,
    Filter,
    History,
    ItemIds,
    Messages,
    Query,
    SessionId,
    Stages,
    Tags,
    TaskId,
    UserId,
    example,
)
from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_text

WAIT_MS_MAX = 60_000


class SearchMode(StrEnum):
    """How a search is run. Without a model all three run the same hybrid recall."""

    FAST = "fast"
    FINE = "fine"
    MIXTURE = "mixture"


class APIADDRequest(BaseRequest):
    """Store a conversation."""

    model_config = example(
        user_id="alice",
        session_id="harbour",
        messages=[{"role": "user", "content": "My boat is called Petrel."}],
    )

    session_id: SessionId | None = Field(None, description="the conversation it belongs to")
    task_id: TaskId | None = Field(None, description="a business task, to ask for its status later")
    writable_cube_ids: CubeIds | None = Field(None, description="default: the cube named like the user")
    async_mode: Literal["async", "sync"] = "async"
    mode: Literal["fast", "fine"] | None = Field(
        None, description="sync only: fine reads facts and preferences in the call"
    )
    custom_tags: Tags | None = None
    info: dict[str, Any] | None = Field(None, description="kept with each memory as it is")
    messages: Messages | None = Field(None, description="a text, or a list of {role, content, …}")
    chat_history: History | None = Field(None, description="no effect")
    is_feedback: bool = False
    is_upload_skill: bool = False
    mem_cube_id: CubeId | None = Field(None, description="deprecated: use writable_cube_ids")
    memory_content: str | None = Field(None, description="deprecated: use messages")
    doc_path: str | None = Field(None, description="refused: a server does not read paths of its clients")
    source: str | None = Field(None, description="deprecated, no effect")
    operation: list[Any] | None = Field(None, description="deprecated, no effect")

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
    """Recall memories.

    `min_seq` asks for a cube as it is at that sequence number or later (what `add` returned as `seqs`), for
    at most `wait_ms`; a whole number counts for every cube. What came of it stands in `freshness`.
    """

    model_config = example(user_id="alice", query="What is my boat called?", top_k=5)

    query: Query
    readable_cube_ids: CubeIds | None = Field(None, description="default: the cube named like the user")
    mode: SearchMode = SearchMode.FAST
    session_id: SessionId | None = Field(None, description="favours this conversation, hides nothing")
    top_k: int = Field(10, ge=1, le=TOP_K_MAX)
    relativity: float = Field(0.45, ge=0, le=1, description="leave out memories that fit less; 0: none")
    dedup: Literal["no", "sim", "mmr"] | None = "mmr"
    rerank: bool = Field(True, description="no effect: recall ranks by its own stages")
    pref_top_k: int = Field(6, ge=0, le=TOP_K_MAX)
    include_preference: bool = True
    search_tool_memory: bool = Field(True, description="no effect: tool calls are remembered as turns")
    tool_mem_top_k: int = Field(6, ge=0, le=TOP_K_MAX, description="no effect")
    include_skill_memory: bool = Field(True, description="no effect: there are no skills")
    skill_mem_top_k: int = Field(3, ge=0, le=TOP_K_MAX, description="no effect")
    filter: Filter | None = None
    internet_search: bool = Field(False, description="no effect: not part of this server")
    search_memory_type: str = "All"
    reference_time: str | None = Field(None, description="the 'now' of words such as yesterday")
    valid_at: str | None = Field(None, description="what held then, in the place of what holds now")
    known_at: str | None = Field(None, description="what was known then")
    stages: Stages | None = Field(
        None, description="stages of recall that run, or with a '-' those that do not; default: the settings'"
    )
    chat_history: History | None = Field(None, description="no effect")
    source: str | None = Field(None, description="no effect: use filter")
    neighbor_discovery: bool = Field(False, description="no effect: neighbours always take part")
    mem_cube_id: CubeId | None = Field(None, description="deprecated: use readable_cube_ids")
    min_seq: int | dict[str, int] | None = Field(
        None, description="read each cube at this sequence number or later; a number, or one by cube"
    )
    wait_ms: int = Field(0, ge=0, le=WAIT_MS_MAX, description="how long to wait for min_seq")


class ChatRequest(BaseRequest):
    """Ask, and be answered out of memory."""

    model_config = example(user_id="alice", query="What is my boat called?")

    query: Query
    readable_cube_ids: CubeIds | None = None
    writable_cube_ids: CubeIds | None = None
    history: History | None = None
    mode: SearchMode = Field(SearchMode.FAST, description="no effect: a chat recalls as 'fast'")
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
    internet_search: bool = Field(False, description="no effect: not part of this server")
    threshold: float = Field(0.5, ge=0, le=1, description="no effect: use relativity")
    mem_cube_id: CubeId | None = Field(None, description="deprecated: use the lists of cube ids")


class ChatPlaygroundRequest(ChatRequest):
    """A chat whose stream also shows what was recalled."""

    beginner_guide_step: str | None = Field(None, description="no effect")


class ChatBusinessRequest(ChatRequest):
    """A chat on behalf of a business user. `need_search` false: answered without memories."""

    business_key: str = ""
    need_search: bool = True


class APIChatCompleteRequest(ChatRequest):
    """A chat answered in one piece."""


class APIFeedbackRequest(BaseRequest):
    """What the user says about an answer."""

    model_config = example(
        user_id="alice",
        feedback_content="No, the boat is called Kestrel now.",
        history=[
            {"role": "user", "content": "What is my boat called?"},
            {"role": "assistant", "content": "Petrel."},
        ],
    )

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
    """List the memories of a cube, newest first. Without a page all of them."""

    model_config = example(mem_cube_id="alice", page=1, page_size=20)

    mem_cube_id: CubeId
    user_id: UserId | None = None
    include_preference: bool = True
    include_tool_memory: bool = Field(True, description="no effect: tool calls are remembered as turns")
    include_skill_memory: bool = Field(True, description="no effect: there are no skills")
    filter: Filter | None = None
    page: int | None = Field(None, ge=1)
    page_size: int | None = Field(None, ge=1, le=1_000)


class GetMemoryDashboardRequest(GetMemoryRequest):
    """The same over every cube in which the user has memories, where no cube is named."""

    model_config = example(user_id="alice", page=1, page_size=20)

    mem_cube_id: CubeId | None = None  # type: ignore[assignment]  # the documented request is wider here


class GetMemoryPlaygroundRequest(BaseRequest):
    """Everything that cubes hold as a graph, or what fits `search_query`."""

    model_config = example(user_id="alice", memory_type="text_mem")

    memory_type: Literal["text_mem", "act_mem", "param_mem", "para_mem"] = "text_mem"
    mem_cube_ids: CubeIds | None = Field(None, description="default: the cube named like the user")
    search_query: Query | None = None
    search_type: Literal["embedding", "fulltext"] = Field(
        "fulltext", description="what search_query is looked for by: its words, or its vector"
    )


class GetMemoryByIdsRequest(BaseModel):
    """Fetch memories by id."""

    model_config = example(memory_ids=["3f0c8f0e-1d1c-4a5b-9a0e-7a1f5f0e9b11"])

    memory_ids: ItemIds


class DeleteMemoryRequest(BaseModel):
    """Delete memories: by id, or all that match."""

    model_config = example(writable_cube_ids=["alice"], memory_ids=["3f0c8f0e-1d1c-4a5b-9a0e-7a1f5f0e9b11"])

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


class AddedMemory(TypedDict):
    """One stored memory."""

    memory: str
    memory_id: str
    memory_type: str
    cube_id: str


class FoundMemory(TypedDict):
    """One memory as the API shows it; `metadata` also repeats id, memory and ref_id."""

    id: str
    memory: str
    ref_id: str
    metadata: dict[str, Any]


class CubeMemories(TypedDict):
    """The memories of one cube. `total_nodes`: of a listing, how many there are on all pages."""

    cube_id: str
    memories: list[FoundMemory]


class Freshness(TypedDict):
    """How fresh one cube was read.

    `seq` is what was read and `fresh` whether that is at least what was asked for, after `waited_ms`.
    `unread`: turns that are stored and searchable, of which no facts were read yet. `queued`: tasks of the
    cube that wait or run, by label, as of the answer.
    """

    seq: int
    fresh: bool
    waited_ms: int
    unread: int
    queued: dict[str, int]


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

    `seqs` is the sequence number at which each cube was read; `freshness` says more about that, by cube;
    `degraded` says which part of recall did not take part, and why.
    """

    seqs: dict[str, int] = Field(default_factory=dict)
    freshness: dict[str, Freshness] = Field(default_factory=dict)
    degraded: list[str] = Field(default_factory=list)


class GetMemoryResponse(BaseResponse[dict[str, Any]]):
    """Memories in the documented buckets; data is null when there is none of that id."""


class DeletedMemories(TypedDict):
    """What became of a deletion: `deleted` is how many memories lived until then."""

    status: str
    deleted: int


class DeleteMemoryResponse(BaseResponse[DeletedMemories]):
    """`{status, deleted}`."""


class ReusedTokens(TypedDict):
    """Tokens of the prompt that the model need not have read again, and why not more (docs/activation.md)."""

    predicted_tokens: int
    reused_tokens: int | None
    prompt_tokens: int
    reason: str


class ChatAnswered(TypedDict):
    """An answer in one piece. `activation` is null where no model answered."""

    response: str
    reasoning: str
    activation: ReusedTokens | None


class ChatCompleteResponse(BaseResponse[ChatAnswered]):
    """`{response, reasoning, activation}`."""


class TaskStatusRow(TypedDict):
    """The state of one task: waiting, in_progress, completed, failed or cancelled."""

    task_id: str
    status: str


class StatusResponse(BaseResponse[list[TaskStatusRow]]):
    """`[{task_id, status}]`."""


class TaskSummary(TypedDict):
    """Tasks by state."""

    waiting: int
    in_progress: int
    pending: int
    completed: int
    failed: int
    cancelled: int
    total: int


class AllStatus(TypedDict):
    """What the queue holds now, and everything whose outcome it remembers."""

    scheduler_summary: TaskSummary
    all_tasks_summary: TaskSummary


class AllStatusResponse(BaseResponse[AllStatus]):
    """Counts of tasks by state."""


class TaskQueueStatus(TypedDict):
    """What a user has in the queue, lane by lane: `pending` is taken by a worker, `remaining` is not."""

    user_id: str
    user_name: str
    mem_cube_id: str | None
    stream_keys: list[str]
    users_count: int
    pending_tasks_count: int
    remaining_tasks_count: int
    pending_tasks_detail: list[str]
    remaining_tasks_detail: list[str]


class TaskQueueResponse(BaseResponse[TaskQueueStatus]):
    """What is queued for a user."""


class Waited(TypedDict):
    """What a wait came to."""

    running_tasks: int
    waited_seconds: float
    timed_out: bool
    user_name: str


class WaitResponse(BaseResponse[Waited]):
    """`message` is idle or timeout."""
