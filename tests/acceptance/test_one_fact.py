"""One fact through its life by the documented handlers: added, contradicted, corrected, recalled, deleted.

At each step the rows, recall (so the indexes), working memory, the journal and the logs are looked at; and
each step's task is run by a process that dies between commit and finish first, so that it runs twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memos.api.handlers import Handlers, handlers_of
from memos.api.product_models import (
    APIADDRequest,
    APIFeedbackRequest,
    APISearchRequest,
    DeleteMemoryRequest,
)
from memos.errors import ItemGone
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.store import ItemFilter
from memos.runtime import Runtime, build
from memos.settings import ModelSettings, Settings
from memos.testing import ManualClock

QUESTION = "Which city do I live in?"


class Died(BaseException):
    """The process is gone between commit and finish."""


class Life:
    """A runtime driven by hand, whose every handler is killed once after its commit."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        settings = Settings(home=folder, models=ModelSettings(embedder="none"))
        self.runtime: Runtime = build(settings, start=False, clock=self.clock)
        self.handlers: Handlers = handlers_of(self.runtime)
        self.killed: set[str] = set()
        scheduler = self.runtime.scheduler
        for label, handler in dict(scheduler.handlers).items():
            scheduler.register_handlers({label: self._mortal(handler)})

    def _mortal(self, handler: Any) -> Any:
        def run(messages: list[ScheduleMessageItem]) -> None:
            handler(messages)
            keys = {one.redis_message_id for one in messages}
            if not keys <= self.killed:
                self.killed |= keys
                raise Died

        return run

    def settle(self) -> None:
        """Run everything that waits; whoever dies is replaced when its lease is over."""
        for _ in range(200):
            try:
                if not self.runtime.scheduler.run_once(lanes_max=4):
                    status = self.runtime.scheduler.get_tasks_status()
                    if status["remaining"] == status["running"] == 0:
                        return
                    self.clock.advance(31.0)
            except Died:
                self.clock.advance(31.0)
        raise AssertionError("not settled")

    def add(self, text: str) -> str:
        self.clock.advance(3_600.0)
        response = self.handlers.add.handle_add_memories(
            APIADDRequest(user_id="u", messages=text, session_id="s")
        )
        self.settle()
        return str((response.data or [])[0]["memory_id"])

    def rows(self) -> dict[str, MemoryItem]:
        every = ItemFilter(cube_ids=("u",), statuses=tuple(ItemStatus))
        return {item.id: item for item in self.runtime.store.find(every, limit=100).items}

    def fact(self) -> MemoryItem:
        """The one live derived fact."""
        [item] = self.runtime.store.find(ItemFilter(cube_ids=("u",), raw=False)).items
        return item

    def recalled(self) -> list[str]:
        asked = APISearchRequest(user_id="u", query=QUESTION, relativity=0, top_k=10)
        data = self.handlers.search.handle_search_memories(asked).data or {}
        return [one["memory"] for one in data["text_mem"][0]["memories"]]

    def ask(self) -> list[str]:
        """Working memory after the question."""
        self.clock.advance(60.0)
        self.runtime.scheduler.submit_messages(
            ScheduleMessageItem(user_id="u", mem_cube_id="u", label="query", content=QUESTION)
        )
        self.settle()
        return [item.memory for item in self.runtime.store.working("u").items]

    def ops(self, item_id: str) -> list[str]:
        return [row.op for row in reversed(self.runtime.store.journal(item_id=item_id, limit=100))]

    def logs(self, label: str) -> int:
        return len(self.runtime.store.web_logs(label=label))


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    made.runtime.close()


def test_one_fact_through_its_life(life: Life) -> None:
    """Every step takes effect everywhere, once, though every task ran twice."""
    store = life.runtime.store

    turn = life.add("I live in Paris.")
    paris = life.fact()
    assert "Paris" in paris.memory and paris.sources[0].item_id == turn
    assert life.ops(turn)[0] == "add" and life.ops(paris.id) == ["add"]
    assert any("Paris" in text for text in life.recalled())
    assert any("Paris" in text for text in life.ask())

    second = life.add("I live in Berlin now.")
    berlin = life.fact()
    assert "Berlin" in berlin.memory
    old = life.rows()[paris.id]
    assert (old.status, old.extra["superseded_by"]) == (ItemStatus.ARCHIVED, berlin.id)
    assert old.valid_until == (berlin.happened_at or berlin.created_at)
    assert life.ops(paris.id) == ["add", "archive"]
    assert paris.memory not in life.recalled()
    assert paris.memory not in [item.memory for item in store.working("u").items]
    assert {life.rows()[one].status for one in (turn, second)} == {ItemStatus.ACTIVATED}

    life.clock.advance(60.0)
    told = life.logs("knowledgeBaseUpdate")
    life.handlers.feedback.handle_feedback_memories(
        APIFeedbackRequest(
            user_id="u", feedback_content="No, I live in Rome.", retrieved_memory_ids=[berlin.id]
        )
    )
    life.settle()
    rome = life.fact()
    assert "Rome" in rome.memory and rome.sources[0].type == "feedback"
    assert life.rows()[berlin.id].extra["superseded_by"] == rome.id
    assert life.rows()[second].extra["corrected_by"] == [rome.id]
    assert life.ops(berlin.id) == ["add", "archive"] and life.ops(rome.id) == ["add"]
    assert life.logs("knowledgeBaseUpdate") == told + 1

    texts = life.recalled()
    assert texts.index(rome.memory) < texts.index("I live in Berlin now.")
    assert berlin.memory not in texts and paris.memory not in texts
    working = life.ask()
    assert rome.memory in working and berlin.memory not in working

    life.handlers.memory.delete(DeleteMemoryRequest(memory_ids=[rome.id]).memory_ids or [])
    with pytest.raises(ItemGone):
        store.get([rome.id])
    assert rome.memory not in life.recalled()
    assert rome.memory not in [item.memory for item in store.working("u").items]
    assert life.rows()[rome.id].memory == ""
    assert life.ops(rome.id)[-1] == "delete"
    assert store.verify() == []
    assert life.killed, "the tasks were killed after their commit"
    assert len(life.killed) == len({one.key for one in life.runtime.queue.statuses()})
