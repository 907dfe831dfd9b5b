"""All /product routes: here memories, chat and cubes; the scheduler's beside.

Endpoints translate; the work, and the question whether who asks may do it, is in the handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Body
from fastapi.responses import StreamingResponse

from memos.api.activation_models import ActivationResponse
from memos.api.cube_models import (
    CreateCubeRequest,
    CubeResponse,
    DeleteMemoryByRecordIdRequest,
    ExistMemCubeIdRequest,
    ExistMemCubeIdResponse,
    GetUserNamesByMemoryIdsRequest,
    GetUserNamesByMemoryIdsResponse,
    GraphResponse,
    RecordResponse,
    RecoverMemoryByRecordIdRequest,
    RegisterCubeRequest,
    SuggestionRequest,
    SuggestionResponse,
    WorkingMemoryResponse,
)
from memos.api.errors import ERRORS, EnvelopeRoute
from memos.api.explain_models import ExplainRequest, ExplainResponse
from memos.api.handlers import Handlers
from memos.api.model_base import CubeId, ItemIds
from memos.api.product_models import (
    APIADDRequest,
    APIChatCompleteRequest,
    APIFeedbackRequest,
    APISearchRequest,
    ChatBusinessRequest,
    ChatCompleteResponse,
    ChatPlaygroundRequest,
    ChatRequest,
    DeleteMemoryRequest,
    DeleteMemoryResponse,
    GetMemoryByIdsRequest,
    GetMemoryDashboardRequest,
    GetMemoryPlaygroundRequest,
    GetMemoryRequest,
    GetMemoryResponse,
    MemoryResponse,
    SearchResponse,
)
from memos.api.routers.insight import insight_router
from memos.api.routers.scheduler import scheduler_router
from memos.api.streams import STREAM, chat_of, streamed

PREFIX = "/product"


def product_router(handlers: Callable[[], Handlers], *, instance_id: str) -> APIRouter:
    """The routes over whatever `handlers` returns at the time of a request."""
    router = APIRouter(prefix=PREFIX, route_class=EnvelopeRoute, responses=ERRORS)
    for part in (_memories, _chats, _listings, _cubes):
        router.include_router(part(handlers))
    router.include_router(scheduler_router(handlers, instance_id=instance_id))
    router.include_router(insight_router(handlers))
    return router


def _memories(handlers: Callable[[], Handlers]) -> APIRouter:
    router = APIRouter(tags=["memory"], route_class=EnvelopeRoute)

    @router.post("/add", response_model=MemoryResponse)
    def add_memories(request: APIADDRequest) -> MemoryResponse:
        """Store a conversation; every memory can be recalled when this answers."""
        return handlers().add.handle_add_memories(request)

    @router.post("/search", response_model=SearchResponse)
    async def search_memories(request: APISearchRequest) -> SearchResponse:
        """Recall the memories that fit a query, best first, with their dates and how fresh they are."""
        search = (await anyio.to_thread.run_sync(handlers)).search
        waited_ms = await search.wait(request)
        return await anyio.to_thread.run_sync(search.handle_search_memories, request, waited_ms)

    @router.post("/explain", response_model=ExplainResponse)
    def explain(request: ExplainRequest) -> ExplainResponse:
        """Why a search finds a memory, or at which gate it loses it; and what is still queued for it."""
        return handlers().explain.handle_explain(request)

    @router.post("/feedback", response_model=MemoryResponse)
    def feedback_memories(request: APIFeedbackRequest) -> MemoryResponse:
        """Say what was right or wrong about an answer; the memories behind it change."""
        return handlers().feedback.handle_feedback_memories(request)

    @router.post("/delete_memory", response_model=DeleteMemoryResponse)
    def delete_memories(request: DeleteMemoryRequest) -> DeleteMemoryResponse:
        """Delete memories by id or by match, from text, vectors, links and working memory at once."""
        return handlers().memory.handle_delete_memories(request)

    @router.post("/suggestions", response_model=SuggestionResponse)
    def suggestions(request: SuggestionRequest) -> SuggestionResponse:
        """Questions worth asking, made of what the cube knows."""
        return handlers().suggest.handle_suggestions(request)

    return router


def _chats(handlers: Callable[[], Handlers]) -> APIRouter:
    router = APIRouter(prefix="/chat", tags=["chat"], route_class=EnvelopeRoute)

    @router.post("/complete", response_model=ChatCompleteResponse)
    def chat_complete(request: APIChatCompleteRequest) -> ChatCompleteResponse:
        """Answer out of memory, in one piece."""
        return chat_of(handlers()).handle_chat_complete(request)

    @router.post("/stream", response_class=StreamingResponse, responses=STREAM)
    def chat_stream(request: ChatRequest) -> StreamingResponse:
        """Answer out of memory as a stream of `reasoning`, `text`, `error` and `end` frames."""
        return streamed(chat_of(handlers()).handle_chat_stream(request))

    @router.post("/stream/playground", response_class=StreamingResponse, responses=STREAM)
    def chat_stream_playground(request: ChatPlaygroundRequest) -> StreamingResponse:
        """The same, with what was recalled and every step on the way."""
        return streamed(chat_of(handlers()).handle_chat_stream(request, kind="playground"))

    @router.post("/stream/business_user", response_class=StreamingResponse, responses=STREAM)
    def chat_stream_business_user(request: ChatBusinessRequest) -> StreamingResponse:
        """The plain stream, for who carries one of the configured business keys."""
        found = handlers()
        keys = [key.get_secret_value() for key in found.runtime.settings.api.business_chat_keys]
        return streamed(chat_of(found).handle_chat_stream_for_business_user(request, keys=keys))

    return router


def _listings(handlers: Callable[[], Handlers]) -> APIRouter:
    router = APIRouter(tags=["memory"], route_class=EnvelopeRoute)

    @router.post("/get_memory", response_model=GetMemoryResponse)
    def get_memories(request: GetMemoryRequest) -> GetMemoryResponse:
        """The memories of a cube, newest first."""
        return handlers().memory.handle_get_memories(request)

    @router.get("/get_memory/{memory_id}", response_model=GetMemoryResponse)
    def get_memory(memory_id: str) -> GetMemoryResponse:
        """One memory; data is null when there is none of that id."""
        return handlers().memory.handle_get_memory(memory_id)

    @router.post("/get_memory_by_ids", response_model=GetMemoryResponse)
    def get_memory_by_ids(
        request: Annotated[ItemIds | GetMemoryByIdsRequest, Body()],
    ) -> GetMemoryResponse:
        """Memories by a list of ids; those that are not there are named in the message."""
        ids = request if isinstance(request, list) else request.memory_ids
        return handlers().memory.handle_get_memory_by_ids(ids)

    @router.post("/get_memory_dashboard", response_model=GetMemoryResponse)
    def get_memories_dashboard(request: GetMemoryDashboardRequest) -> GetMemoryResponse:
        """The memories of a cube, or of every cube of a user, newest first."""
        return handlers().memory.handle_get_memories_dashboard(request)

    @router.post("/get_all", response_model=GraphResponse)
    def get_all_memories(request: GetMemoryPlaygroundRequest) -> GraphResponse:
        """What cubes hold, or what fits a query, as nodes, edges and a tree."""
        return handlers().graph.handle_get_all(request)

    @router.post("/get_user_names_by_memory_ids", response_model=GetUserNamesByMemoryIdsResponse)
    def get_user_names_by_memory_ids(
        request: GetUserNamesByMemoryIdsRequest,
    ) -> GetUserNamesByMemoryIdsResponse:
        """The cube that each memory lives in, or null."""
        return handlers().cube.handle_user_names(request.memory_ids)

    @router.get("/activation/{mem_cube_id}", response_model=ActivationResponse)
    def activation(mem_cube_id: CubeId) -> ActivationResponse:
        """What the model need not read again of this cube's prompts: per reader, in tokens and bytes."""
        return handlers().activation.handle_activation(mem_cube_id)

    return router


def _cubes(handlers: Callable[[], Handlers]) -> APIRouter:
    router = APIRouter(tags=["cubes"], route_class=EnvelopeRoute)

    @router.post("/create_cube", response_model=CubeResponse)
    def create_cube(request: CreateCubeRequest) -> CubeResponse:
        """Make an empty cube; a cube also comes into being with its first memory."""
        return handlers().cube.handle_create_cube(request)

    @router.post("/register_cube", response_model=CubeResponse)
    def register_cube(request: RegisterCubeRequest) -> CubeResponse:
        """Make sure that a cube is there."""
        return handlers().cube.handle_register_cube(request)

    @router.post("/exist_mem_cube_id", response_model=ExistMemCubeIdResponse)
    def exist_mem_cube_id(request: ExistMemCubeIdRequest) -> ExistMemCubeIdResponse:
        """Whether a cube is there."""
        return handlers().cube.handle_exist_cube(request)

    @router.get("/working_memory", response_model=WorkingMemoryResponse)
    def working_memory(mem_cube_id: str) -> WorkingMemoryResponse:
        """The places of a cube's working memory, what they held, and what more places would have held."""
        return handlers().cube.handle_working_memory(mem_cube_id)

    @router.post("/delete_memory_by_record_id", response_model=RecordResponse)
    def delete_memory_by_record_id(request: DeleteMemoryByRecordIdRequest) -> RecordResponse:
        """Set everything in a cube aside under a record id, or delete it for good."""
        return handlers().records.handle_delete(request)

    @router.post("/recover_memory_by_record_id", response_model=RecordResponse)
    def recover_memory_by_record_id(request: RecoverMemoryByRecordIdRequest) -> RecordResponse:
        """Bring back what was set aside under a record id."""
        return handlers().records.handle_recover(request)

    return router
