"""One fact from its first telling to its deletion, on the whole runtime, with and without SIGKILL.

add → contradicted → corrected by feedback → recalled → answered with → deleted, each step in processes of
their own over one home with the durable queue. With kills, the process that runs a step's task dies
between the store's commit and the queue's finish, and another one ends the step when the lease is over;
what stands in the files afterwards is the same as without.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.postgres import schemas_of
from tests.simulation.one_fact import Kill, Process, Row, World

from memos.clock import SystemClock
from memos.memory.postgres import PostgresAddress
from memos.models.base import Embedder
from memos.runtime_models import build_models
from memos.settings import Settings

LONG_TERM, OF_USER = "LongTermMemory", "UserMemory"
pytestmark = pytest.mark.timeout(600)  # dozens of processes, one after the other


@dataclass(frozen=True)
class Story:
    """The turns, the facts that are read from them, and the names that stand in them."""

    first: str
    second: str
    correction: str
    question: str
    repeated: str  # a turn that says the fact again, and is deleted before it is read
    cities: tuple[str, str, str]
    facts: tuple[str, str, str]
    has_links: bool


ENGLISH = Story(
    "I live in Paris.",
    "I moved to Lyon last week.",
    "No, I live in Marseille.",
    "Which city do I live in?",
    "I live in Marseille.",
    ("Paris", "Lyon", "Marseille"),
    ("The user lives in Paris.", "The user lives in Lyon.", "The user lives in Marseille."),
    True,
)
CHINESE = Story(
    "我住在巴黎。",
    "我上周搬到了里昂。",
    "不对，我住在马赛。",
    "我住在哪个城市？",
    "我住在马赛。",
    ("巴黎", "里昂", "马赛"),
    ("用户住在巴黎。", "用户住在里昂。", "用户住在马赛。"),
    False,
)


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    models = build_models(Settings().models, SystemClock())
    assert models.embedder is not None
    yield models.embedder
    models.close()


@contextmanager
def world(home: Path, embedder: Embedder, address: PostgresAddress | None = None) -> Iterator[World]:
    made = World(home, embedder, address=address)
    try:
        yield made
        if made.process is not None:
            made.process.quit()
            made.process = None
    finally:
        if made.process is not None:
            made.process.abandon()


def turn(version: int, **changes: Any) -> Row:
    """A turn as it was said."""
    row = Row(LONG_TERM, "activated", version, True, "done", 0, False, None, frozenset(), "", (), True)
    return replace(row, **changes)


def fact(city: str, version: int, *sources: str, **changes: Any) -> Row:
    """What was read from a turn."""
    told = ("lives_in", city)
    row = Row(OF_USER, "activated", version, False, "none", 0, False, told, frozenset(sources), "", (), True)
    return replace(row, **changes)


def past(city: str, by: str, *sources: str) -> Row:
    """A fact that held until another one took its place."""
    return fact(city, 2, *sources, status="archived", ended=True, superseded_by=by, indexed=False)


class Walk:
    """The steps over one world, each with what must stand in the files after it."""

    def __init__(self, world: World, story: Story, where: str) -> None:
        self.world = world
        self.story = story
        self.where = where
        self.messages: Counter[str] = Counter()

    def kills(self, *labels: str) -> list[Kill]:
        return [(label, self.where) for label in labels] if self.where else []

    def check(
        self,
        rows: dict[str, Row],
        tasks: list[tuple[str, tuple[tuple[str, str], ...]]],
        logs: dict[str, int],
        messages: list[str],
    ) -> None:
        """The rows are these; since the last look these tasks changed something, each once, these logs
        were written, and these messages ran; nothing waits, nothing was given up."""
        assert self.world.rows() == rows
        assert self.world.tasks() == sorted((label, tuple(sorted(ops))) for label, ops in tasks)
        assert self.world.logs() == Counter(logs)
        self.messages.update(messages)
        assert self.world.settled() == self.messages

    def check_found(self, name: str, *, present: bool, city: str) -> None:
        """Every channel finds the item by its own words, or none does."""
        links = [city.casefold()] if self.story.has_links else []
        for channel, found in self.world.recalled(name, links=links).items():
            if channel != "links" or links:
                assert (name in found) == present, (channel, found)

    def added(self) -> None:
        """A turn is stored; what was read from it is a fact of the user."""
        story = self.story
        [[told_id]] = self.world.step([{"name": "add", "text": story.first}], self.kills("mem_read"))
        paris = story.facts[0]
        self.check(
            {story.first: turn(2), paris: fact(story.cities[0], 1, story.first)},
            [("add", (("add", story.first),)), ("mem_read", (("add", paris), ("read", story.first)))],
            {"addMemory": 1},
            ["mem_read"],
        )
        assert self.world.id_of(story.first) == told_id
        assert self.world.working() == (0, [])
        self.check_found(paris, present=True, city=story.cities[0])
        self.check_found(story.first, present=True, city=story.cities[0])

    def contradicted(self) -> None:
        """The newer value holds; the older one is archived with its end, and out of every index; the turn
        behind it stays, marked as outdated, and is found behind what holds."""
        story = self.story
        self.world.step([{"name": "add", "text": story.second}], self.kills("mem_read"))
        paris, lyon, _ = story.facts
        self.check(
            {
                story.first: turn(3, corrected_by=(lyon,)),
                paris: past(story.cities[0], lyon, story.first),
                story.second: turn(2),
                lyon: fact(story.cities[1], 1, story.second),
            },
            [
                ("add", (("add", story.second),)),
                (
                    "mem_read",
                    (("add", lyon), ("archive", paris), ("read", story.second), ("update", story.first)),
                ),
            ],
            {"addMemory": 1, "updateMemory": 1, "archiveMemory": 1},
            ["mem_read"],
        )
        self.check_found(paris, present=False, city=story.cities[0])
        self.check_found(lyon, present=True, city=story.cities[1])
        found = self.world.live().do("search", text=story.question)
        assert found[0] in (lyon, story.second)
        assert story.first in found[1:]

    def corrected(self) -> None:
        """The correction holds; both turns stay, marked as corrected."""
        story = self.story
        _, lyon, marseille = story.facts
        wrong = self.world.id_of(lyon)
        self.world.step(
            [{"name": "feedback", "text": story.correction, "ids": [wrong]}], self.kills("mem_feedback")
        )
        self.check(
            self.after_correction(0),
            [
                (
                    "mem_feedback",
                    (
                        ("add", marseille),
                        ("archive", lyon),
                        ("update", story.first),
                        ("update", story.second),
                    ),
                )
            ],
            {"knowledgeBaseUpdate": 1, "archiveMemory": 1},
            ["mem_feedback"],
        )
        self.check_found(lyon, present=False, city=story.cities[1])
        self.check_found(marseille, present=True, city=story.cities[2])
        assert self.world.live().do("search", text=story.question)[0] == marseille

    def after_correction(self, uses: int) -> dict[str, Row]:
        story = self.story
        paris, lyon, marseille = story.facts
        return {
            story.first: turn(4, corrected_by=(lyon, marseille)),
            paris: past(story.cities[0], lyon, story.first),
            story.second: turn(3, corrected_by=(marseille,)),
            lyon: past(story.cities[1], marseille, story.second),
            marseille: fact(story.cities[2], 1 + uses, uses=uses),
        }

    def recalled(self) -> None:
        """A question brings the correction into working memory, before the turns that it corrects."""
        story = self.story
        self.world.step(
            [{"name": "submit", "label": "query", "content": story.question}],
            self.kills("query", "mem_update"),
        )
        self.check(
            self.after_correction(0),
            [("mem_update", (("replace_working", ""),))],
            {"addMessage User": 1, "scheduleMemory": 1},
            ["query", "mem_update"],
        )
        version, places = self.world.working()
        assert (version, places[0]) == (1, story.facts[2])
        assert set(places[1:]) <= {story.first, story.second}

    def answered(self) -> None:
        """The chat answers with the correction alone, which counts as used, once."""
        story = self.story
        [response] = self.world.step([{"name": "chat", "text": story.question}], self.kills("answer"))
        assert story.cities[2] in response
        assert not any(city in response for city in story.cities[:2])
        self.check(
            self.after_correction(1),
            [("answer", (("touch", story.facts[2]),))],
            {"addMessage User": 1, "addMessage Assistant": 1, "scheduleMemory": 1},
            ["query", "mem_update", "answer"],
        )

    def deleted(self) -> None:
        """The fact and the turns behind it are deleted while tasks wait that name all of it: gone
        everywhere, and no task that runs afterwards brings anything back."""
        story = self.story
        made = self.world
        made.live().quit()
        made.process = None
        process = made.live(start=False)
        known = made.ids()
        [again] = process.do("add", text=story.repeated)
        process.do("chat", text=story.question)
        process.do("feedback", text=story.correction, ids=known)
        for label in ("add", "mem_read", "mem_organize"):
            process.do("submit", label=label, content=json.dumps(known))
        said = {"memory_ids": known}
        process.do("submit", label="answer", content=story.facts[2], info=said)
        _, places = made.working()
        assert set(made.rows()) == {*self.after_correction(1), story.repeated}
        named = [made.id_of(one) for one in (story.first, story.second, story.facts[2])]
        process = self.delete(process, [*named, again])
        assert process.do("delete", ids=[*named, again]) == 0  # what was deleted is deleted
        self.check_gone()
        process.quit()
        made.process = None
        made.step([], self.kills("mem_read"))
        gone = sorted(("delete", one) for one in (*self.after_correction(1), story.repeated))
        places_left = [("replace_working", "")] * len(places)
        self.check(
            made.rows(),
            [("add", (("add", story.repeated),)), ("", (*gone, *places_left))],
            {
                "addMessage User": 1,
                "addMessage Assistant": 2,
                "scheduleMemory": 1,
                "knowledgeBaseUpdate": 1,
            },
            [
                "mem_read",
                "mem_read",
                "query",
                "mem_update",
                "answer",
                "answer",
                "mem_feedback",
                "add",
                "mem_organize",
            ],
        )
        self.check_gone()
        assert made.live().do("search", text=story.question) == []

    def delete(self, process: Process, ids: list[str]) -> Process:
        """With kills the process dies with the deletion committed and not answered."""
        if not self.where:
            assert process.do("delete", ids=ids) == len(ids)
            return process
        process.do("arm", label="request", where="commit")
        assert process.do("delete", ids=ids) is None
        process.killed()
        self.world.process = None
        return self.world.live(start=False)

    def check_gone(self) -> None:
        """Tombstones are all that is left: no text, no index entry, no place."""
        rows = self.world.rows()
        assert set(rows) == {*self.after_correction(1), self.story.repeated}
        assert {(row.status, row.fact, row.sources, row.indexed) for row in rows.values()} == {
            ("deleted", None, frozenset(), False)
        }
        assert self.world.working()[1] == []
        for city in self.story.cities:
            found = self.world.recalled(city, links=[city.casefold()])
            assert found == {"text": set(), "vector": set(), "links": set()}
            assert not {"item", "posting", "mention", "alias", "outbox"} & set(self.world.everywhere(city))

    def all(self) -> None:
        self.added()
        self.contradicted()
        self.corrected()
        self.recalled()
        self.answered()
        self.deleted()


@pytest.mark.parametrize("story", [ENGLISH, CHINESE], ids=["english", "chinese"])
def test_a_fact_without_kills(tmp_path: Path, embedder: Embedder, story: Story) -> None:
    """Rows, indexes, working memory, journal, logs and queue say the same at every step of a fact's life."""
    with world(tmp_path / "home", embedder) as made:
        Walk(made, story, "").all()


@pytest.mark.parametrize("where", ["commit", "finish"])
def test_a_fact_with_a_kill_at_every_step(tmp_path: Path, embedder: Embedder, where: str) -> None:
    """A process killed after the commit and before the finish of every task leaves each effect there once."""
    with world(tmp_path / "home", embedder) as made:
        Walk(made, ENGLISH, where).all()


def test_a_fact_on_postgres(tmp_path: Path, embedder: Embedder) -> None:
    """The same life of a fact on PostgreSQL, with a kill after every commit: a copy of the store shows the
    same rows at every step."""
    with schemas_of("pgvector").lent() as address, world(tmp_path / "home", embedder, address) as made:
        Walk(made, ENGLISH, "commit").all()
