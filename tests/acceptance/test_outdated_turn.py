"""A turn whose value was displaced by a newer turn, by the documented handlers: recalled behind, not quoted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memos.api.handlers import Handlers, handlers_of
from memos.api.product_models import APIADDRequest, APIChatCompleteRequest, APISearchRequest
from memos.memory.item import MemoryItem
from memos.memory.store import ItemFilter
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import ManualClock

ENGLISH = ("I live in Paris.", "I moved to Lyon last week.", "Which city do I live in?", "Paris", "Lyon")
CHINESE = ("我住在巴黎。", "我上周搬到了里昂。", "我住在哪个城市？", "巴黎", "里昂")


class Told:
    """A runtime that is told turns, driven by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        settings = Settings(home=folder)
        self.runtime: Runtime = build(settings, start=False, clock=self.clock)
        self.handlers: Handlers = handlers_of(self.runtime)

    def add(self, text: str) -> None:
        self.clock.advance(3_600.0)
        asked = APIADDRequest(user_id="u", messages=text, session_id="s")
        self.handlers.add.handle_add_memories(asked)
        for _ in range(100):
            if not self.runtime.scheduler.run_once(lanes_max=4):
                return
        raise AssertionError("not settled")

    def turns(self) -> dict[str, MemoryItem]:
        found = self.runtime.store.find(ItemFilter(cube_ids=("u",), raw=True)).items
        return {item.memory: item for item in found}

    def search(self, text: str) -> list[str]:
        asked = APISearchRequest(user_id="u", query=text, relativity=0, top_k=10)
        data = self.handlers.search.handle_search_memories(asked).data or {}
        return [one["memory"] for one in data["text_mem"][0]["memories"]]

    def chat(self, text: str) -> str:
        asked = APIChatCompleteRequest(user_id="u", query=text, add_message_on_answer=False)
        return self.handlers.chat_service.answer(asked).response


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    yield made
    made.runtime.close()


@pytest.mark.parametrize("story", [ENGLISH, CHINESE], ids=["english", "chinese"])
def test_the_newer_value_is_found_first_and_quoted_alone(told: Told, story: tuple[str, ...]) -> None:
    """In English and Chinese: the older turn is live, marked with the fact that holds, found behind it,
    and left out of the answer."""
    old, new, question, gone, holds = story
    told.add(old)
    assert gone in told.chat(question)
    told.add(new)
    [fact] = told.runtime.store.find(ItemFilter(cube_ids=("u",), raw=False)).items
    turns = told.turns()
    assert holds in fact.memory
    assert (turns[old].extra.get("corrected_by"), turns[new].extra.get("corrected_by")) == ([fact.id], None)
    found = told.search(question)
    assert holds in found[0] and old in found[1:]
    answer = told.chat(question)
    assert holds in answer and gone not in answer
    assert told.runtime.store.verify() == []


@pytest.mark.parametrize(
    ("turn", "new", "question", "kept"),
    [
        ("I live in Paris. I work at Google.", "I moved to Lyon last week.", "Where do I work?", "Google"),
        ("I live in Paris and I work at Google.", "I moved to Lyon last week.", "Where do I work?", "Google"),
        ("我住在巴黎。我在谷歌工作。", "我上周搬到了里昂。", "我在哪里工作？", "谷歌"),
    ],
)
def test_what_else_the_older_turn_said_is_still_answered(
    told: Told, turn: str, new: str, question: str, kept: str
) -> None:
    """A displaced home takes nothing from the employer that was told in the same breath."""
    told.add(turn)
    told.add(new)
    assert kept in told.search(question)[0]
    assert kept in told.chat(question)


SEVERAL = [
    (
        "I live in Paris. I work at Google.",
        "I moved to Lyon last week.",
        ("Which city do I live in?", "Paris", "Lyon", "I live in Paris"),
        ("Where do I work?", "Google"),
    ),
    (
        "I work at Google and I live in Paris.",
        "I moved to Lyon last week.",
        ("Which city do I live in?", "Paris", "Lyon", "I live in Paris"),
        ("Where do I work?", "Google"),
    ),
    (
        "我在谷歌工作。我住在巴黎。",
        "我上周搬到了里昂。",
        ("我住在哪个城市？", "巴黎", "里昂", "我住在巴黎"),
        ("我在哪里工作？", "谷歌"),
    ),
]


@pytest.mark.parametrize(("turn", "new", "moved", "still"), SEVERAL, ids=["sentences", "clauses", "chinese"])
def test_the_outdated_clause_alone_stands_behind_what_holds(
    told: Told, turn: str, new: str, moved: tuple[str, ...], still: tuple[str, ...]
) -> None:
    """The turn stays as it was said and is not corrected; of what it says the home is marked, found behind the
    newer one and left out of the answer, while the employer is found first and answered."""
    question, gone, holds, clause = moved
    told.add(turn)
    assert gone in told.chat(question)
    told.add(new)
    [home] = [
        one
        for one in told.runtime.store.find(ItemFilter(cube_ids=("u",), raw=False)).items
        if holds in one.memory
    ]
    row = told.turns()[turn]
    assert row.extra["outdated_clauses"] == [{"text": clause, "by": home.id}]
    assert "corrected_by" not in row.extra
    found = told.search(question)
    assert holds in found[0] and turn in found
    answer = told.chat(question)
    assert holds in answer and gone not in answer
    question, kept = still
    assert kept in told.search(question)[0]
    answer = told.chat(question)
    assert kept in answer and gone not in answer
    assert told.runtime.store.verify() == []


def test_the_hit_says_which_clause_and_what_holds(told: Told) -> None:
    """In the documented metadata of a search."""
    told.add("I live in Paris. I work at Google.")
    told.add("I moved to Lyon last week.")
    asked = APISearchRequest(user_id="u", query="Where do I work?", relativity=0, top_k=10)
    data = told.handlers.search.handle_search_memories(asked).data or {}
    [turn] = [one for one in data["text_mem"][0]["memories"] if one["memory"].endswith("I work at Google.")]
    [marked] = turn["metadata"]["info"]["outdated_clauses"]
    [holds] = told.runtime.store.find(ItemFilter(cube_ids=("u",), ids=(marked["by"],))).items
    assert marked["text"] == "I live in Paris" and "Lyon" in holds.memory


def test_what_holds_again_is_not_held_back(told: Told) -> None:
    """After a move back the older turn's clause, outdated by a fact that is gone itself, is told as it was said."""
    told.add("I live in Paris. I work at Google.")
    told.add("I moved to Lyon last week.")
    told.add("I moved back to Paris yesterday.")
    assert "Paris" in told.search("Which city do I live in?")[0]
    answer = told.chat("Which city do I live in?")
    assert "Paris" in answer and "Lyon" not in answer


def test_a_newer_successor_takes_over_the_mark(told: Told) -> None:
    """The clause names the fact that holds now, once."""
    told.add("I live in Paris. I work at Google.")
    told.add("I moved to Lyon last week.")
    told.add("I moved to Oslo yesterday.")
    [marked] = told.turns()["I live in Paris. I work at Google."].extra["outdated_clauses"]
    [holds] = told.runtime.store.find(ItemFilter(cube_ids=("u",), ids=(marked["by"],))).items
    assert "Oslo" in holds.memory and holds.live
