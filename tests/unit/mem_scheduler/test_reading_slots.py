"""A model's statement that fills a slot takes the place of the older value, and only where it was said so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mem_scheduler.parts import Parts, assembled, message

from memos.clock import utc
from memos.mem_scheduler.model_steps.reading import SCHEMA
from memos.mem_scheduler.model_steps.slots import fact_in
from memos.memory.document_items import DOCUMENT_KEY, DOCUMENT_ROLE
from memos.memory.item import ItemStatus, MemoryItem, ReadState
from memos.memory.store import ItemFilter
from memos.models.structured import is_strict
from memos.testing import ManualClock, ScriptedLLM

MAY = datetime(2024, 5, 10, 9, tzinfo=UTC)
Make = Callable[..., Parts]


@pytest.fixture
def made(tmp_path: Path, clock: ManualClock) -> Iterator[Make]:
    """Parts whose reader answers one reply a reading."""
    with ExitStack() as stack:
        yield lambda *replies: stack.enter_context(
            assembled(tmp_path, clock=clock, reader_llm=ScriptedLLM(replies))
        )


def reply(text: str = "", quote: str = "", **fields: Any) -> dict[str, Any]:
    given = {"kind": "person", "key": "", "tags": [], "date": "", "confidence": 0.8, **fields}
    rows = [{"text": text, "evidence": [{"item": 0, "quote": quote}], **given}] if text else []
    return {"statements": rows, "nothing": ""}


def read(parts: Parts, text: str) -> str:
    """A turn that was said now, a day after the one before, and read."""
    parts.clock.advance(86_400.0)  # type: ignore[attr-defined]
    now = utc(parts.clock.now())
    [turn] = parts.remember(text, read=ReadState.DUE, role="user", happened_at=now)
    parts.scheduler.submit_messages(message("mem_read", json.dumps([turn])))
    parts.drain()
    return turn


def derived(parts: Parts) -> dict[str, MemoryItem]:
    every = ItemFilter(raw=False, statuses=tuple(ItemStatus))
    return {item.memory: item for item in parts.store.find(every, limit=100).items}


def turn(text: str, **fields: Any) -> MemoryItem:
    return MemoryItem("t", "c", "u", text, **{"role": "user", "happened_at": MAY, **fields})


@pytest.mark.parametrize(
    ("before", "said", "quote", "noted", "statement", "old"),
    [
        (
            "I live in Paris.",
            "By now Lyon is where I call home.",
            "Lyon is where I call home",
            "The user lives in Lyon.",
            "The user lives in Lyon.",
            "The user lives in Paris.",
        ),
        (
            "I live in Paris.",
            "These days you find me and my boxes in Lyon.",
            "find me and my boxes in Lyon",
            "The user now lives in Lyon.",
            "The user lives in Lyon.",
            "The user lives in Paris.",
        ),
        (
            "我住在巴黎。",
            "我和纸箱子们已经在里昂安了家。",
            "已经在里昂安了家",
            "用户现在住在里昂。",
            "用户住在里昂。",
            "用户住在巴黎。",
        ),
    ],
)
def test_what_a_model_reads_supersedes_what_rules_read(
    made: Make, before: str, said: str, quote: str, noted: str, statement: str, old: str
) -> None:
    """The older value is archived with the time until which it held and the id of the newer one."""
    parts = made(reply(), reply(noted, quote))
    first = read(parts, before)
    read(parts, said)
    items = derived(parts)
    gone, holds = items[old], items[statement]
    assert gone.status is ItemStatus.ARCHIVED and gone.valid_until == holds.happened_at
    assert gone.extra["superseded_by"] == holds.id and holds.live
    assert "slot:lives_in" in holds.tags and holds.extra["read_by"] == "scripted"
    [raw] = parts.store.get([first])
    assert raw.live and raw.memory == before


def test_what_rules_read_later_supersedes_what_a_model_read(made: Make) -> None:
    """A model's fact is a fact: the next value ends it."""
    parts = made(reply("The user lives in Lyon.", "Lyon is where I call home"), reply())
    read(parts, "By now Lyon is where I call home.")
    read(parts, "I moved to Porto.")
    items = derived(parts)
    assert items["The user lives in Lyon."].status is ItemStatus.ARCHIVED
    assert items["The user lives in Porto."].live


def test_a_fact_that_rules_noted_is_not_noted_again_in_other_words(made: Make) -> None:
    """One value of a slot is one statement."""
    parts = made(reply("The user has moved to Lyon.", "I moved to Lyon"))
    read(parts, "I moved to Lyon.")
    assert list(derived(parts)) == ["The user lives in Lyon."]


def test_the_model_does_not_date_a_fact(made: Make) -> None:
    """A date that nobody said cannot put the newer value before the older one."""
    parts = made(reply(), reply("The user lives in Lyon.", "Lyon is where I call home", date="1990-01-01"))
    read(parts, "I live in Paris.")
    read(parts, "By now Lyon is where I call home.")
    items = derived(parts)
    assert items["The user lives in Lyon."].live
    assert not items["The user lives in Paris."].live


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("The user lives in Lyon.", "Do I call Lyon home?"),
        ("The user lives in Lyon.", "I do not call Lyon home."),
        ("The user lives in Lyon.", "I might call Lyon home one day."),
        ("The user lives in Lyon.", "As a child I called Lyon home."),
        ("The user lives in Lyon.", "Zoe calls Lyon home."),
        ("The user lives in Lyon and likes it.", "Lyon is where I call home."),
        ("The user's wife lives in Lyon.", "Lyon is where I call home."),
        ("Zoe lives in Lyon.", "Lyon is where I call home."),
        ("The user lives in Porto.", "Lyon is where I call home."),
        ("用户住在里昂。", "我以前把里昂当家。"),
        ("用户住在里昂。", "我没把里昂当家。"),
        ("用户住在里昂。", "小王把里昂当家。"),
    ],
)
def test_what_was_not_said_so_fills_no_slot(statement: str, said: str) -> None:
    """Questions, denials, suppositions, the past, others, more than one thing: a statement, and no fact."""
    assert fact_in(statement, [turn(said)]) is None


def test_assistants_documents_and_two_speakers_fill_no_slot() -> None:
    """Only one speaker's own words displace what is known of them."""
    said = "Lyon is where I call home."
    told = "The user lives in Lyon."
    assert fact_in(told, [turn(said)]) is not None
    assert fact_in(told, [turn(said, role="assistant")]) is None
    assert fact_in(told, [turn(said, role=DOCUMENT_ROLE, extra={DOCUMENT_KEY: {"id": "d"}})]) is None
    assert fact_in(told, [turn(said), turn(said, participants=("Ann",))]) is None


def test_the_lists_of_the_schema_are_bounded_and_it_stays_strict() -> None:
    """A model that is held to the schema comes to an end of its lists."""

    def unbounded(schema: Any) -> list[Any]:
        inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []
        own = isinstance(schema, dict) and schema.get("type") == "array" and "maxItems" not in schema
        return ([schema] if own else []) + [one for part in inner for one in unbounded(part)]

    assert unbounded(SCHEMA) == [] and is_strict(SCHEMA)
