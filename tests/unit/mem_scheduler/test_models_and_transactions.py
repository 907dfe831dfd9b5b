"""No question to a model is asked while the store is held: others write and read meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.postgres import BOUNDS, schemas_of
from tests.simulation.test_model_kills import STEPS, Step
from tests.unit.mem_scheduler.parts import Parts, assembled, message

from memos.clock import SystemClock
from memos.memory.item import MemoryItem
from memos.memory.postgres import PostgresAddress, PostgresStore
from memos.memory.store import AddItems, ItemFilter
from memos.models.base import ChatMessage, Completion
from memos.testing import ScriptedLLM


@dataclass
class Meanwhile(ScriptedLLM):
    """While it is asked, a thread of its own writes to the cube and reads it back; `wrote` counts that."""

    step: Step
    parts: list[Parts] = field(default_factory=list)
    wrote: int = 0
    address: PostgresAddress | None = None
    open_transactions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__([*self.step.replies])

    def complete(self, messages: Sequence[ChatMessage], **wanted: Any) -> Completion:
        thread = threading.Thread(target=self._write)
        thread.start()
        thread.join(10.0)
        assert not thread.is_alive(), "the store is held while the model is asked"
        return super().complete(messages, **wanted)

    def _write(self) -> None:
        (parts,) = self.parts
        if self.address is not None:
            self.open_transactions += open_transactions(self.address)
        item = MemoryItem(f"meanwhile-{self.wrote}", "c", "u", "Somebody else said this.")
        parts.store.apply([AddItems(tuple(parts.services.indexer.index([item])))])
        assert parts.store.find(ItemFilter(ids=(item.id,))).total == 1
        self.wrote += 1


def open_transactions(address: PostgresAddress) -> list[str]:
    """What connections of the store's database are in, those that wait for work left out."""
    with psycopg.connect(address.url, autocommit=True) as connection:
        return [
            f"{state}: {query}"
            for state, query in connection.execute(
                "SELECT state, query FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
            )
        ]


def asked(step: Step) -> Mapping[str, Any]:
    return {"user_id": "u", "mem_cube_id": "c", "content": step.content}


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> Iterator[PostgresAddress | None]:
    """Where the store is; None: in a file."""
    if request.param == "sqlite":
        yield None
        return
    with schemas_of("postgres").lent() as lent:
        yield lent


@pytest.mark.parametrize("name", ["rank", "preferences", "feedback", "summaries"])
def test_others_write_while_a_model_is_asked(
    tmp_path: Path, address: PostgresAddress | None, name: str
) -> None:
    """For each label that asks: every question lets another writer through, and the work is done.

    On PostgreSQL no connection has a transaction open, nor a lock on any of its tables, while it is asked.
    """
    step = STEPS[name]
    llm = Meanwhile(step, address=address)
    store = address and PostgresStore(address, clock=SystemClock(), bounds=BOUNDS)
    with assembled(tmp_path, llm=llm, store=store) as parts:
        llm.parts.append(parts)
        if step.items:
            parts.store.apply([AddItems(tuple(parts.services.indexer.index(list(step.items))))])
        parts.scheduler.submit_messages(message(step.label, **asked(step)))
        parts.drain()
        assert llm.wrote == len(step.replies) == len(llm.calls)
        assert llm.open_transactions == []
        assert [status.state for status in parts.queue.statuses()] == ["completed"]
        assert parts.store.verify() == []
