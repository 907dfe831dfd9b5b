"""The documented names of the server, built when they are first used.

    from memos.api.routers.server_router import mem_scheduler, add_handler, chat_stream_playground

Importing this module loads neither FastAPI nor numpy nor any model and reads no environment. The first
access to a component's name builds and starts the process's runtime (once, under a lock) from the
environment as it then is; `router` loads FastAPI but builds nothing until a request comes. Names are
looked up anew each time, so that a forked child sees its own components. At exit the runtime drains and
closes, so that a program which never calls `stop()` still ends by itself.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any

from memos.api import handlers as _handlers
from memos.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import APIRouter
    from fastapi.responses import StreamingResponse

    from memos.api.handlers.add import AddHandler
    from memos.api.handlers.base_handler import HandlerDependencies
    from memos.api.handlers.chat import ChatHandler
    from memos.api.handlers.cube import CubeHandler
    from memos.api.handlers.feedback import FeedbackHandler
    from memos.api.handlers.search import SearchHandler
    from memos.api.product_models import ChatPlaygroundRequest
    from memos.mem_scheduler.general_scheduler import GeneralScheduler
    from memos.mem_scheduler.utils.status_tracker import TaskStatusTracker
    from memos.memory.cube import NaiveMemCube
    from memos.memory.store import MemoryStore
    from memos.models.base import LLM

    router: APIRouter
    components: dict[str, Any]
    dependencies: HandlerDependencies
    search_handler: SearchHandler
    add_handler: AddHandler
    chat_handler: ChatHandler | None
    feedback_handler: FeedbackHandler
    cube_handler: CubeHandler
    mem_scheduler: GeneralScheduler
    llm: LLM | None
    naive_mem_cube: NaiveMemCube
    redis_client: Any
    status_tracker: TaskStatusTracker
    graph_db: MemoryStore
    INSTANCE_ID: str

_NAMES = {
    "components": lambda h: h.components,
    "dependencies": lambda h: h.dependencies,
    "search_handler": lambda h: h.search,
    "add_handler": lambda h: h.add,
    "chat_handler": lambda h: h.chat,
    "feedback_handler": lambda h: h.feedback,
    "cube_handler": lambda h: h.cube,
    "mem_scheduler": lambda h: h.runtime.scheduler,
    "llm": lambda h: h.runtime.llm,
    "naive_mem_cube": lambda h: h.components["naive_mem_cube"],
    "redis_client": lambda h: h.runtime.redis_client,
    "status_tracker": lambda h: h.runtime.status_tracker,
    "graph_db": lambda h: h.runtime.store,
}

_lock = threading.Lock()
_router: APIRouter | None = None
_instance: tuple[int, str] | None = None


def chat_stream_playground(chat_req: ChatPlaygroundRequest) -> StreamingResponse:
    """The playground stream; its `body_iterator` is asynchronous and gives frames as `str`.

    Raises HTTPException 503 while the chat API is off (ENABLE_CHAT_API), InvalidInput for a bad request.
    """
    from memos.api.streams import chat_of, streamed

    return streamed(chat_of(_handlers.current_handlers()).handle_chat_stream(chat_req, kind="playground"))


def __getattr__(name: str) -> Any:
    if name == "router":
        return _the_router()
    if name == "INSTANCE_ID":
        return _instance_id()
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return _NAMES[name](_handlers.current_handlers())
    except AttributeError as error:
        # Left alone it would read as "cannot import name", and hide what is wrong.
        raise ConfigError(f"building the server failed: {error}") from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES, "router", "INSTANCE_ID"])


def _the_router() -> APIRouter:
    global _router
    from memos.api.routers.product import product_router

    with _lock:
        if _router is None:
            _router = product_router(_handlers.current_handlers, instance_id=_instance_id())
        return _router


def _instance_id() -> str:
    """host:pid:random, one for each process."""
    global _instance
    if _instance is None or _instance[0] != os.getpid():
        _instance = (os.getpid(), f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}")
    return _instance[1]
