"""What a handler of one's own recalls for the message that it runs: everything but the turn of that message."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from memos import context
from memos.api.handlers import Handlers, handlers_of
from memos.api.product_models import APIChatCompleteRequest
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_UPDATE_TASK_LABEL, QUERY_TASK_LABEL
from memos.memory.item import MemoryItem
from memos.memory.store import ItemFilter
from memos.memory.textual import TextualMemoryItem
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import ManualClock

QUESTION = "Is my dog allergic to chicken?"
FACT = "My dog Max is allergic to chicken."

Find = Callable[[str], Sequence[TextualMemoryItem]]


class Told:
    """A runtime whose chats are stored, driven by hand; `found` is what its handler of queries recalled."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.runtime: Runtime = build(Settings(home=folder), start=False, clock=self.clock)
        self.handlers: Handlers = handlers_of(self.runtime)
        self.scheduler = self.runtime.scheduler
        self.found: list[list[str]] = []

    def chat(self, text: str) -> None:
        self.clock.advance(60.0)
        self.handlers.chat_service.answer(APIChatCompleteRequest(user_id="u", query=text, session_id="s"))

    def settle(self) -> None:
        for _ in range(100):
            if not self.scheduler.run_once(lanes_max=4):
                return
        raise AssertionError("not settled")

    def by_retriever(self, query: str) -> list[TextualMemoryItem]:
        return self.scheduler.retriever.search(query=query, user_id="u", mem_cube_id="u", top_k=50)

    def by_cube(self, query: str) -> list[TextualMemoryItem]:
        found: list[TextualMemoryItem] = self.scheduler.current_mem_cube.text_mem.search(query, 50)
        return found

    def note(self, found: Sequence[TextualMemoryItem]) -> None:
        self.found.append([one.id for one in found])

    def turns(self, text: str) -> list[MemoryItem]:
        """The stored rows of that text, oldest first."""
        rows = self.runtime.store.find(ItemFilter(cube_ids=("u",), raw=True)).items
        return sorted((one for one in rows if one.memory == text), key=lambda one: one.created_at)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    made.chat(FACT)
    made.settle()
    yield made
    made.runtime.close()


@pytest.mark.parametrize("way", ["by_retriever", "by_cube"])
def test_a_question_asked_before_is_found_and_the_running_one_is_not(told: Told, way: str) -> None:
    """By the documented retriever and by the cube; outside of a handler both are found."""
    find: Find = getattr(told, way)
    told.chat(QUESTION)
    told.settle()

    def on_query(messages: list[ScheduleMessageItem]) -> None:
        for message in messages:
            told.note(find(message.content))

    told.scheduler.register_handlers({QUERY_TASK_LABEL: on_query})
    told.chat(QUESTION)
    told.settle()
    earlier, own = told.turns(QUESTION)
    assert earlier.turn_id and own.turn_id and earlier.turn_id != own.turn_id
    (found,) = told.found
    assert told.turns(FACT)[0].id in found
    assert earlier.id in found
    assert own.id not in found
    outside = told.scheduler.retriever.search(QUESTION, "u", "u", top_k=50, search_args={"dedup": "no"})
    assert {earlier.id, own.id} <= {one.id for one in outside}


def test_the_answer_and_what_was_read_out_of_the_turn_go_with_it(told: Told) -> None:
    """A search in other words leaves the turn of its message out as well, the label changed or not."""

    def on_query(messages: list[ScheduleMessageItem]) -> None:
        chained = [one.model_copy(update={"label": "look"}) for one in messages]
        told.scheduler.submit_messages(chained)

    def on_look(messages: list[ScheduleMessageItem]) -> None:
        told.note(told.by_retriever("chicken, allergies, and where I live"))

    told.scheduler.register_handlers({QUERY_TASK_LABEL: on_query, "look": on_look})
    told.chat("I live in Oslo. Is chicken bad for Max?")
    told.settle()
    (own,) = told.turns("I live in Oslo. Is chicken bad for Max?")
    of_turn = [
        one.id
        for one in told.runtime.store.find(ItemFilter(cube_ids=("u",))).items
        if one.turn_id == own.turn_id
    ]
    assert len(of_turn) >= 2
    (found,) = told.found
    assert told.turns(FACT)[0].id in found
    assert not set(of_turn) & set(found)


def test_each_message_of_a_call_finds_what_the_others_said(told: Told) -> None:
    """Two questions in one call: the text says which of them is searched for."""

    def of_call(content: str, **info: str) -> ScheduleMessageItem:
        return ScheduleMessageItem(user_id="u", mem_cube_id="u", label="look", content=content, info=info)

    def on_look(messages: list[ScheduleMessageItem]) -> None:
        assert len(messages) == 2
        for message in messages:
            told.note(told.by_retriever(message.content))
        told.note(told.by_retriever("dog chicken allergic"))

    told.scheduler.register_handlers({"look": lambda messages: None})
    for _ in range(4):  # calls grow while they are quick
        told.scheduler.submit_messages([of_call("nothing") for _ in range(16)])
        told.settle()
    told.chat(QUESTION)
    told.chat("Which food is my dog allergic to?")
    told.settle()
    (first,), (second,) = told.turns(QUESTION), told.turns("Which food is my dog allergic to?")
    told.scheduler.register_handlers({"look": on_look})
    told.scheduler.submit_messages([of_call(one.memory, turn_id=one.turn_id) for one in (first, second)])
    told.settle()
    of_first, of_second, of_neither = told.found
    assert (first.id in of_first, second.id in of_first) == (False, True)
    assert (first.id in of_second, second.id in of_second) == (True, False)
    assert not {first.id, second.id} & set(of_neither)


@pytest.mark.parametrize("how", ["async", "to_thread", "run_in_context", "thread"])
def test_it_holds_wherever_the_context_goes(told: Told, how: str) -> None:
    """A coroutine, its threads, and a thread that was given the context; a bare thread knows of no message."""

    def look(message: ScheduleMessageItem) -> None:
        told.note(told.by_retriever(message.content))

    async def on_query_async(messages: list[ScheduleMessageItem]) -> None:
        await asyncio.sleep(0)
        for message in messages:
            if how == "to_thread":
                await asyncio.to_thread(look, message)
            else:
                look(message)

    def on_query(messages: list[ScheduleMessageItem]) -> None:
        for message in messages:
            target = context.run_in_context(look) if how == "run_in_context" else look
            thread = threading.Thread(target=target, args=(message,))
            thread.start()
            thread.join()

    threads = how in {"run_in_context", "thread"}
    told.scheduler.register_handlers({QUERY_TASK_LABEL: on_query if threads else on_query_async})
    told.chat(QUESTION)
    told.settle()
    (own,) = told.turns(QUESTION)
    (found,) = told.found
    assert (own.id in found) == (how == "thread")


def test_the_documented_steps_of_a_turn_leave_it_out(told: Told) -> None:
    """`process_session_turn` over the message's own text, in place of the built-in update."""

    def on_update(messages: list[ScheduleMessageItem]) -> None:
        for message in messages:
            _, new = told.scheduler.process_session_turn(message.content, "u", "u")
            told.found.append([one.id for one in new])

    told.scheduler.register_handlers({MEM_UPDATE_TASK_LABEL: on_update})
    told.chat(QUESTION)
    told.settle()
    (own,) = told.turns(QUESTION)
    (found,) = told.found
    assert found
    assert own.id not in found
