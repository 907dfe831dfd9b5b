"""The handlers of the API over one runtime, and `init_server()`, the documented view of it.

`init_server()` builds the process's runtime at the first call (reading the environment) and returns the
same objects at every later one; a forked child gets its own. Importing this package builds nothing.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memos.api.handlers.activation import ActivationHandler
    from memos.api.handlers.add import AddHandler
    from memos.api.handlers.base_handler import HandlerDependencies
    from memos.api.handlers.chat import ChatHandler
    from memos.api.handlers.cube import CubeHandler
    from memos.api.handlers.dead import DeadHandler
    from memos.api.handlers.explain import ExplainHandler
    from memos.api.handlers.feedback import FeedbackHandler
    from memos.api.handlers.graph import GraphHandler
    from memos.api.handlers.insight import InsightHandler
    from memos.api.handlers.logs import LogHandler
    from memos.api.handlers.memory import MemoryHandler
    from memos.api.handlers.queue import QueueHandler
    from memos.api.handlers.records import RecordHandler
    from memos.api.handlers.search import SearchHandler
    from memos.api.handlers.suggest import SuggestHandler
    from memos.api.handlers.tasks import TaskHandler
    from memos.api.handlers.working import WorkingHandler
    from memos.runtime import Runtime

_CACHED_MAX = 2  # the process's own runtime, and one that a test or command built beside it


@dataclass(frozen=True)
class Handlers:
    """Every handler over one runtime. `chat` is None while the chat API is off; `chat_service` is not."""

    runtime: Runtime
    components: dict[str, Any]
    dependencies: HandlerDependencies
    add: AddHandler
    search: SearchHandler
    chat: ChatHandler | None
    chat_service: ChatHandler
    feedback: FeedbackHandler
    memory: MemoryHandler
    cube: CubeHandler
    explain: ExplainHandler
    records: RecordHandler
    graph: GraphHandler
    suggest: SuggestHandler
    logs: LogHandler
    tasks: TaskHandler
    queue: QueueHandler
    dead: DeadHandler
    working: WorkingHandler
    insight: InsightHandler
    activation: ActivationHandler


_lock = threading.RLock()
_cached: list[Handlers] = []


def _after_fork() -> None:
    """A forked child starts with nothing: the parent's threads, and their locks, are not here."""
    global _lock, _cached
    _lock, _cached = threading.RLock(), []


os.register_at_fork(after_in_child=_after_fork)


def init_server() -> dict[str, Any]:
    """The components of the server by their documented names; builds and starts them at the first call."""
    return current_handlers().components


def current_handlers() -> Handlers:
    """The handlers over the process's runtime."""
    from memos.runtime import current

    return handlers_of(current())


def handlers_of(runtime: Runtime) -> Handlers:
    """The handlers over `runtime`: the same ones for the same runtime."""
    with _lock:
        for known in _cached:
            if known.runtime is runtime:
                return known
        made = _make(runtime)
        _cached.insert(0, made)
        del _cached[_CACHED_MAX:]
        return made


def _make(runtime: Runtime) -> Handlers:
    from memos.api.handlers.activation import ActivationHandler
    from memos.api.handlers.add import AddHandler
    from memos.api.handlers.base_handler import HandlerDependencies
    from memos.api.handlers.chat import ChatHandler
    from memos.api.handlers.cube import CubeHandler
    from memos.api.handlers.dead import DeadHandler
    from memos.api.handlers.explain import ExplainHandler
    from memos.api.handlers.feedback import FeedbackHandler
    from memos.api.handlers.freshness import FreshnessReader
    from memos.api.handlers.graph import GraphHandler
    from memos.api.handlers.insight import InsightHandler
    from memos.api.handlers.logs import LogHandler
    from memos.api.handlers.memory import MemoryHandler
    from memos.api.handlers.queue import QueueHandler
    from memos.api.handlers.records import RecordHandler
    from memos.api.handlers.search import SearchHandler
    from memos.api.handlers.suggest import SuggestHandler
    from memos.api.handlers.tasks import TaskHandler
    from memos.api.handlers.working import WorkingHandler

    components = _components(runtime)
    dependencies = HandlerDependencies.from_init_server(components)
    chat = ChatHandler(dependencies, runtime.chat)
    freshness = FreshnessReader(runtime.store, runtime.queue, runtime.clock)
    search = SearchHandler(dependencies, freshness=freshness)
    return Handlers(
        runtime=runtime,
        components=components,
        dependencies=dependencies,
        add=AddHandler(dependencies),
        search=search,
        explain=ExplainHandler(runtime.store, runtime.queue, runtime.retriever, search),
        chat=chat if runtime.settings.api.enable_chat else None,
        chat_service=chat,
        feedback=FeedbackHandler(dependencies),
        memory=MemoryHandler(dependencies, indexer=runtime.indexer, clock=runtime.clock),
        cube=CubeHandler(dependencies),
        records=RecordHandler(runtime.store),
        graph=GraphHandler(runtime.store, runtime.retriever),
        logs=LogHandler(runtime.store),
        suggest=SuggestHandler(runtime.store, runtime.retriever),
        activation=ActivationHandler(runtime.activation),
        tasks=TaskHandler(queue=runtime.queue, tracker=runtime.status_tracker, clock=runtime.clock),
        queue=QueueHandler(runtime.queue, runtime.clock),
        dead=DeadHandler(runtime.queue),
        working=WorkingHandler(runtime.store),
        insight=InsightHandler(runtime),
    )


def _components(runtime: Runtime) -> dict[str, Any]:
    """The documented keys. What this server does not have is None, not a stand-in."""
    from memos.memory.cube import NaiveMemCube

    cube = NaiveMemCube(
        store=runtime.store, indexer=runtime.indexer, retriever=runtime.retriever, clock=runtime.clock
    )
    capacities = runtime.store.capacities
    return {
        "graph_db": runtime.store,
        "mem_reader": runtime.reader,
        "llm": runtime.llm,
        "chat_llms": dict(runtime.chat_llms),
        "playground_chat_llms": dict(runtime.chat_llms),
        "embedder": runtime.embedder,
        "reranker": runtime.reranker,
        "internet_retriever": None,
        "memory_manager": runtime.chat.writer,
        "default_cube_config": {
            "long_term_memory_capacity": capacities.long_term,
            "user_memory_capacity": capacities.user,
            "preference_memory_capacity": capacities.preference,
            "working_memory_capacity": capacities.working,
        },
        "mem_scheduler": runtime.scheduler,
        "naive_mem_cube": cube,
        "searcher": runtime.searcher,
        "api_module": runtime.retriever,
        "text_mem": cube.text_mem,
        "online_bot": None,
        "feedback_server": None,
        "redis_client": runtime.redis_client,
        "deepsearch_agent": None,
    }
