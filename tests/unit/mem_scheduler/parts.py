"""Real parts, joined small: SQLite in a temporary folder, the queue in memory, recall without vectors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memos.clock import Clock, SystemClock, utc
from memos.configs.mem_scheduler import GeneralSchedulerConfig
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.handlers.context import Services
from memos.mem_scheduler.monitors.activity import ActivityMonitor
from memos.mem_scheduler.monitors.intent import IntentMonitor
from memos.mem_scheduler.queues.local import LocalQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.activation.base import ActivationBackend
from memos.memory.activation.block import MemoryBlocks
from memos.memory.activation.keeper import PrefixKeeper
from memos.memory.indexer import Indexer
from memos.memory.item import Capacities, MemoryItem
from memos.memory.postgres import PostgresStore
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems, ItemFilter
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.searcher import Searcher
from memos.testing import RecordingSink

USER = "user_1"
CUBE = "cube_1"


@dataclass(frozen=True)
class CubeView:
    """What stands for a cube object: its id."""

    cube_id: str


@dataclass
class Parts:
    """A scheduler and what it was made of."""

    scheduler: GeneralScheduler
    store: SqliteStore | PostgresStore
    queue: LocalQueue
    services: Services
    sink: RecordingSink
    clock: Clock

    def remember(self, *texts: str, cube_id: str = CUBE, user_id: str = USER, **fields: Any) -> list[str]:
        """Store texts as raw memories, without a task; returns their ids."""
        now = utc(self.clock.now())
        count = self.store.find(ItemFilter(cube_ids=(cube_id,)), limit=1).total
        items = [
            replace(
                MemoryItem(
                    id=f"{cube_id}-{count + number}",
                    cube_id=cube_id,
                    user_id=user_id,
                    memory=text,
                    position=count + number,
                    created_at=now,
                    updated_at=now,
                ),
                **fields,
            )
            for number, text in enumerate(texts)
        ]
        indexed = self.services.indexer.index(items, participants=frozenset())
        self.store.apply([AddItems(tuple(indexed))])
        return [item.id for item in items]

    def drain(self, rounds_max: int = 1_000) -> int:
        """Run batches in this thread until nothing is ready; returns how many there were."""
        batches = 0
        for _ in range(rounds_max):
            ran = self.scheduler.run_once(lanes_max=16)
            if not ran:
                return batches
            batches += ran
        raise AssertionError(f"still work after {rounds_max} rounds")


def message(label: str, content: str = "hello", **fields: Any) -> ScheduleMessageItem:
    """A message of the usual user and cube."""
    return ScheduleMessageItem(
        **{"user_id": USER, "mem_cube_id": CUBE, **fields}, label=label, content=content
    )


@contextmanager
def assembled(
    folder: Path,
    *,
    clock: Clock | None = None,
    config: GeneralSchedulerConfig | None = None,
    capacities: Capacities | None = None,
    queue: LocalQueue | None = None,
    store: SqliteStore | PostgresStore | None = None,
    backend: ActivationBackend | None = None,
    **replaced: Any,
) -> Iterator[Parts]:
    """Everything over the store in `folder`; `replaced` are services to use instead.

    store: an open one to use (and close) instead of the file. backend: what keeps prefixes, over the blocks of this
    store.
    """
    clock = clock or SystemClock()
    queue = queue or LocalQueue(clock=clock, random=random.Random(1))
    if store is None:
        store = SqliteStore(folder / "memory.db", clock=clock, capacities=capacities)
    retriever = HybridRetriever(store, None, clock=clock)
    sink = RecordingSink()
    services = Services(
        store=store,
        indexer=Indexer(None),
        retriever=retriever,
        searcher=Searcher(retriever),
        clock=clock,
        sink=sink,
        intent=IntentMonitor(),
        activity=ActivityMonitor(window=5),
        cube_of=CubeView,
    )
    if backend is not None:
        blocks = MemoryBlocks(store, store, tokens_max=3_000)
        replaced["activation"] = PrefixKeeper(store, blocks, backend, clock=clock)
    services = replace(services, **replaced)
    settings = config or GeneralSchedulerConfig(thread_pool_max_workers=4, stop_grace_s=5)
    scheduler = GeneralScheduler(settings, queue=queue, services=services)
    try:
        yield Parts(scheduler, store, queue, services, sink, clock)
    finally:
        scheduler.stop(grace_s=5)
        queue.close()
        store.close()
