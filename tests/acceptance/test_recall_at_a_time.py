"""What held, or was known, at a time: by the documented search, over HTTP models and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from memos.api.handlers import Handlers, handlers_of
from memos.api.product_models import APIADDRequest, APISearchRequest
from memos.cli.main import app
from memos.memory.item import MemoryItem
from memos.memory.store import ItemFilter
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import ManualClock

QUERY = "Which city does the user live in?"
DAY = timedelta(days=1)


class Life:
    """A user who moves: Paris, then Lyon, then Brest, each told when it happened."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.runtime: Runtime = build(Settings(home=folder), start=False, clock=self.clock)
        self.handlers: Handlers = handlers_of(self.runtime)
        self.moments: list[datetime] = []
        for city in ("Paris", "Lyon", "Brest"):
            self.clock.advance(30 * 86_400.0)
            self.moments.append(datetime.fromtimestamp(self.clock.now(), UTC))
            self.add(f"I live in {city} now.")

    def add(self, text: str) -> None:
        request = APIADDRequest(user_id="u", messages=text, session_id="s", async_mode="sync", mode="fine")
        self.handlers.add.handle_add_memories(request)
        for _ in range(100):
            if not self.runtime.scheduler.run_once(lanes_max=4):
                return
        raise AssertionError("not settled")

    def facts(self, **asked: Any) -> list[str]:
        """The derived facts that a search at a time gives."""
        request = APISearchRequest(user_id="u", query=QUERY, relativity=0, dedup="no", **asked)
        data = self.handlers.search.handle_search_memories(request).data or {}
        found = [one for bucket in data["text_mem"] for one in bucket["memories"]]
        return [one["memory"] for one in found if not one["metadata"]["raw"]]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    made.runtime.close()


def cities(facts: list[str]) -> set[str]:
    return {city for city in ("Paris", "Lyon", "Brest") for fact in facts if city in fact}


def test_the_fact_that_held_at_a_time_takes_the_place_of_the_one_that_holds(life: Life) -> None:
    """Ten days after each move exactly that city holds; before the first move none does."""
    assert cities(life.facts()) == {"Brest"}
    for moved, city in zip(life.moments, ("Paris", "Lyon", "Brest"), strict=True):
        assert cities(life.facts(valid_at=(moved + 10 * DAY).isoformat())) == {city}
        assert cities(life.facts(known_at=(moved + 10 * DAY).isoformat())) == {city}
    assert cities(life.facts(valid_at=(life.moments[0] - 10 * DAY).isoformat())) == set()


def test_a_turn_counts_from_the_day_on_which_it_was_said(life: Life) -> None:
    """At an earlier time no later turn is found, and none is pushed back by a later correction."""
    when = (life.moments[0] + 10 * DAY).isoformat()
    request = APISearchRequest(user_id="u", query=QUERY, relativity=0, dedup="no", valid_at=when)
    data = life.handlers.search.handle_search_memories(request).data or {}
    texts = [one["memory"] for bucket in data["text_mem"] for one in bucket["memories"]]
    assert texts and all("Paris" in text for text in texts)


def test_the_way_to_what_held_then_is_told(life: Life) -> None:
    """A displaced fact says by which fact it was found."""
    when = (life.moments[0] + 10 * DAY).isoformat()
    request = APISearchRequest(user_id="u", query=QUERY, relativity=0, dedup="no", valid_at=when)
    data = life.handlers.search.handle_search_memories(request).data or {}
    found = [one for bucket in data["text_mem"] for one in bucket["memories"]]
    (fact,) = [one for one in found if not one["metadata"]["raw"]]
    live: list[MemoryItem] = list(life.runtime.store.find(ItemFilter(cube_ids=("u",), raw=False)).items)
    assert {"stage": "timeline", "from": live[0].id} in fact["metadata"]["found_by"]


def test_a_deleted_fact_is_not_brought_back_by_a_time(life: Life) -> None:
    """What is deleted is gone at every time."""
    from memos.memory.item import ItemStatus
    from memos.memory.store import SetStatus

    past = life.runtime.store.find(
        ItemFilter(cube_ids=("u",), raw=False, statuses=(ItemStatus.ARCHIVED,))
    ).items
    gone = next(item for item in past if "Paris" in item.memory)
    life.runtime.store.apply([SetStatus((gone.id,), ItemStatus.DELETED, "test")])
    when = (life.moments[0] + 10 * DAY).isoformat()
    assert cities(life.facts(valid_at=when)) == set()


def test_the_command_line_asks_about_a_time_too(
    tmp_path: Path, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`memos search --valid-at` and `--known-at` give the same facts as the search of the API."""
    monkeypatch.setenv("MEMOS_HOME", str(tmp_path))
    for option in ("--valid-at", "--known-at"):
        when = (life.moments[1] + 10 * DAY).isoformat()
        words = ["search", QUERY, "--cube", "u", option, when, "--json"]
        ran = CliRunner().invoke(app, words, catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        told = [json.loads(line)["memory"] for line in ran.stdout.splitlines() if line.startswith("{")]
        assert any("Lyon" in text for text in told) and not any("Brest" in text for text in told)
