"""The bench of the store suite: opening a store of each backend, and making items for it.

A new backend joins by a branch in `open_store` and a name in `BACKENDS`; the tests know the protocol only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.postgres import BOUNDS, schemas_of

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.item import Capacities, MemoryItem
from memos.memory.postgres import PostgresAddress
from memos.memory.store import AddItems, IndexedItem, MemoryStore
from memos.models.base import Vectors
from memos.testing import ManualClock

BACKENDS = ("sqlite", "postgres", "pgvector")
DIM = 4
START = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)

OpenStore = Callable[..., MemoryStore]


@dataclass
class Maker:
    """Items, messages and logs with sensible fields. Items of one maker are a minute apart."""

    count: int = field(default=0)

    def item(self, item_id: str, memory: str = "", **fields: Any) -> MemoryItem:
        """An item; `memory` is its id when none is given."""
        self.count += 1
        at = START + timedelta(minutes=self.count)
        given: dict[str, Any] = {"cube_id": "cube", "user_id": "ann", "created_at": at, "updated_at": at}
        return MemoryItem(id=item_id, memory=memory or item_id, **{**given, **fields})

    def indexed(self, item_id: str, memory: str = "", **fields: Any) -> IndexedItem:
        """The item with the words of its text as terms."""
        vector = fields.pop("vector", None)
        return self.with_terms(self.item(item_id, memory, **fields), vector=vector)

    def with_terms(self, item: MemoryItem, *, vector: Vectors | None = None) -> IndexedItem:
        """`item` with the words of its text as terms."""
        terms: dict[str, int] = {}
        for word in item.memory.lower().split():
            terms[word] = terms.get(word, 0) + 1
        return IndexedItem(item, terms, vector)

    def add(self, *item_ids: str, **fields: Any) -> AddItems:
        """A change that adds items of these ids."""
        return AddItems(tuple(self.indexed(item_id, **fields) for item_id in item_ids))

    def unit(self, *numbers: float) -> Vectors:
        """A unit vector in the direction of `numbers`, filled up with zeros."""
        vector = np.zeros(DIM, dtype=np.float32)
        vector[: len(numbers)] = numbers
        return vector / np.linalg.norm(vector)

    def message(self, label: str = "mem_update", **fields: Any) -> ScheduleMessageItem:
        """A message to be chained."""
        return ScheduleMessageItem(user_id="ann", mem_cube_id="cube", label=label, content="hello", **fields)

    def log(self, label: str = "addMemory", **fields: Any) -> ScheduleLogForWebItem:
        """A web log."""
        given: dict[str, Any] = {"user_id": "ann", "mem_cube_id": "cube", "log_content": "something"}
        return ScheduleLogForWebItem(label=label, **{**given, **fields})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START.timestamp())


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture(params=BACKENDS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[OpenStore]:
    """Opens stores on one and the same data; each call another object, as another process would have."""
    if request.param != "sqlite":
        with _opening_on_postgres(request.param, clock, tmp_path) as open_one:
            yield open_one
        return
    with ExitStack() as opened:

        def open_one(
            *,
            capacities: Capacities | None = None,
            web_logs_max: int = 1_000,
            folder: Path = tmp_path / "store",
        ) -> MemoryStore:
            from memos.memory.sqlite import SqliteStore

            return opened.enter_context(
                SqliteStore(
                    folder / "memory.db",
                    clock=clock,
                    capacities=capacities,
                    web_logs_max=web_logs_max,
                )
            )

        yield open_one


@contextmanager
def _opening_on_postgres(kind: str, clock: ManualClock, tmp_path: Path) -> Iterator[OpenStore]:
    """A folder stands for a schema; one whose stores are all closed is emptied for the next folder."""
    from memos.memory.postgres import PostgresStore

    schemas = schemas_of(kind)
    addresses: dict[Path, PostgresAddress] = {}
    with ExitStack() as opened:

        def open_one(
            *,
            capacities: Capacities | None = None,
            web_logs_max: int = 1_000,
            folder: Path = tmp_path / "store",
        ) -> MemoryStore:
            if folder not in addresses:
                if all(store.closed for store in stores):
                    for before in list(addresses):
                        schemas.give_back(addresses.pop(before))
                addresses[folder] = schemas.take()
            store = PostgresStore(
                addresses[folder],
                clock=clock,
                capacities=capacities,
                bounds=BOUNDS,
                web_logs_max=web_logs_max,
            )
            stores.append(store)
            return opened.enter_context(store)

        stores: list[PostgresStore] = []
        yield open_one
    for address in addresses.values():
        schemas.give_back(address)


@pytest.fixture
def store(open_store: OpenStore) -> Iterator[MemoryStore]:
    """One open store; whatever a test did, it must hold together at the end."""
    opened = open_store()
    yield opened
    assert opened.verify() == []
