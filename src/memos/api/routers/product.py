"""All /product routes: here add, search, chat, memories; the scheduler's beside. Endpoints translate; the work is in the handlers."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from memos.api.errors import EnvelopeRoute
from memos.api.handlers import Handlers
from memos.api.product_models import (
    APIADDRequest,
    APIChatCompleteRequest,
    APISearchRequest,
    ChatCompleteResponse,
    ChatPlaygroundRequest,
    ChatRequest,
    DeleteMemoryRequest,
    DeleteMemoryResponse,
    GetMemoryRequest,
    GetMemoryResponse,
    MemoryResponse,
    SearchResponse,
)
from memos.api.routers.scheduler import scheduler_router
from memos.api.streams import chat_of, streamed

PREFIX = "/product"


def product_router(handlers: Callable[[], Handlers], *, instance_id: str) -> APIRouter:
    """The routes over whatever `handlers` returns at the time of a request."""
    router = APIRouter(prefix=PREFIX, tags=["memory"], route_class=EnvelopeRoute)

    @router.post("/add", response_model=MemoryResponse)
    def add_memories(request: APIADDRequest) -> MemoryResponse:
        """Store a conversation; every memory can be recalled when this answers."""
        return handlers().add.handle_add_memories(request)

    @router.post("/search", response_model=SearchResponse)
    def search_memories(request: APISearchRequest) -> SearchResponse:
        """Recall the memories that fit a query, best first, with their dates."""
        return handlers().search.handle_search_memories(request)

    @router.post("/chat/complete", response_model=ChatCompleteResponse)
    def chat_complete(request: APIChatCompleteRequest) -> ChatCompleteResponse:
        """Answer out of memory, in one piece."""
        return chat_of(handlers()).handle_chat_complete(request)

    @router.post("/chat/stream", response_class=StreamingResponse)
    def chat_stream(request: ChatRequest) -> StreamingResponse:
        """Answer out of memory as a stream of `reasoning`, `text`, `error` and `end` frames."""
        return streamed(chat_of(handlers()).handle_chat_stream(request))

    @router.post("/chat/stream/playground", response_class=StreamingResponse)
    def chat_stream_playground(request: ChatPlaygroundRequest) -> StreamingResponse:
        """The same, with what was recalled and every step on the way."""
        return streamed(chat_of(handlers()).handle_chat_stream(request, kind="playground"))

    @router.post("/get_memory", response_model=GetMemoryResponse)
    def get_memories(request: GetMemoryRequest) -> GetMemoryResponse:
        """The memories of a cube, newest first."""
        return handlers().memory.handle_get_memories(request)

    @router.get("/get_memory/{memory_id}", response_model=GetMemoryResponse)
    def get_memory(memory_id: str) -> GetMemoryResponse:
        """One memory; data is null when there is none of that id."""
        return handlers().memory.handle_get_memory(memory_id)

    @router.post("/delete_memory", response_model=DeleteMemoryResponse)
    def delete_memories(request: DeleteMemoryRequest) -> DeleteMemoryResponse:
        """Delete memories by id or by match, from text, vectors, links and working memory at once."""
        return handlers().memory.handle_delete_memories(request)

    router.include_router(scheduler_router(handlers, instance_id=instance_id))
    return router
