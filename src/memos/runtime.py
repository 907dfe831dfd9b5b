"""The composition root: `build(settings)` joins the parts, `Runtime.close()` takes them apart again.

This is the only module that knows which backend stands behind which protocol. Opening goes from the
store outwards and closing the other way round: the scheduler drains, the queue closes, the store last.
`current()` is the process's one runtime (locked; a forked child builds its own), which the documented
`server_router` names and `init_server()` are views of; at exit it is drained and closed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from memos import log
from memos.clock import Clock, SystemClock
from memos.errors import ConfigError, MemosError, ModelUnavailable
from memos.settings import Settings

if TYPE_CHECKING:
    from memos.mem_chat.chat import MemChat
    from memos.mem_scheduler.general_scheduler import GeneralScheduler
    from memos.mem_scheduler.queues.base import TaskQueue
    from memos.mem_scheduler.utils.status_tracker import TaskStatusTracker
    from memos.mem_scheduler.web_log import LogSink
    from memos.memory.indexer import Indexer
    from memos.memory.reader import MemReader
    from memos.memory.store import MemoryStore
    from memos.models.base import LLM, Embedder, Reranker
    from memos.retrieval.hybrid import HybridRetriever
    from memos.retrieval.searcher import Searcher

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Every part of a running system. Close it, or use it as a context manager."""

    settings: Settings
    clock: Clock
    store: MemoryStore
    queue: TaskQueue
    embedder: Embedder | None
    embedder_missing: str  # why there is no embedder; "" when there is one
    reranker: Reranker | None
    llm: LLM | None
    indexer: Indexer
    retriever: HybridRetriever
    searcher: Searcher
    reader: MemReader
    log_sink: LogSink
    scheduler: GeneralScheduler
    status_tracker: TaskStatusTracker
    chat: MemChat
    redis_client: Any = None

    def close(self) -> None:
        """Drain and close everything. Safe to call twice."""
        for step in (self.scheduler.stop, self.queue.close, self.store.close):
            with contextlib.suppress(MemosError):
                step()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
