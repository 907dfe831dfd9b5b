"""Whatever a model's endpoint answers, nothing is lost: random replies over real HTTP, through whole turns."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memos.errors import BadCompletion, ModelError
from memos.mem_chat.chat import ChatQuery, MemChat
from memos.mem_chat.events import End, Failure, Text
from memos.memory.indexer import Indexer
from memos.memory.item import MemoryItem
from memos.memory.reader import MemReader
from memos.memory.sqlite import SqliteStore
from memos.memory.store import ItemFilter
from memos.models.base import ChatMessage
from memos.models.extractive import ExtractiveAnswerer
from memos.models.openai.chat import OpenAIChat
from memos.models.structured import mismatch, read_object
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.keywords import analyse
from memos.testing import ManualClock
from memos.testing_server import CutOff, Fault, Garbage, ModelServer, Say, Scripted, rate_limit

REPLIES = 200  # of each kind, in the default run
MANY = 1_500

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "trigger_retrieval": {"type": "boolean"},
        "missing_evidence": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
    },
    "required": ["trigger_retrieval"],
    "additionalProperties": False,
}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NAMES = st.sampled_from(
    ["choices", "message", "delta", "content", "error", "usage", "finish_reason", "trigger_retrieval"]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
CHOICES = st.fixed_dictionaries(
    {}, optional={"delta": TREES, "message": TREES, "finish_reason": TREES, "index": TREES}
)
ANSWERS = st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=2)}, optional={"usage": TREES})
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NEAR_JSON = st.builds(
    lambda tree, cut, before, after: before + json.dumps(tree)[: cut or None] + after,
    st.fixed_dictionaries(
        {"trigger_retrieval": st.booleans() | SCALARS},
        optional={"missing_evidence": st.lists(st.text(max_size=8), max_size=7) | TREES, "more": TREES},
    ),
    st.integers(-12, 0),
    st.sampled_from(["", "```json\n", "Here: ", "<think>{", "<think>a</think>", "{ "]),
    st.sampled_from(["", "\n```", " Done.", "}", "</think>"]),
)
SAID = st.builds(
    Say,
    WORDS | NEAR_JSON,
    reasoning=WORDS,
    pieces=st.lists(WORDS, max_size=4).map(tuple),
    finish_reason=st.sampled_from(["stop", "length", "content_filter", ""]),
)
LINES = st.one_of(
    ANSWERS.map(lambda tree: "data: " + json.dumps(tree)),
    TREES.map(lambda tree: "data: " + json.dumps(tree)),
    st.sampled_from(["data: [DONE]", "data:", ": keep-alive", "event: error", "", "data: {", "}"]),
)
STREAMS = st.lists(LINES, max_size=6).map("\n\n".join)


def garbage(text: str) -> Garbage:
    return Garbage(text.encode("utf-8", "replace"), "text/event-stream")


ANY_REPLY = st.one_of(
    SAID,
    st.builds(CutOff, SAID, bytes_max=st.integers(0, 400), events_max=st.integers(0, 5)),
    st.builds(Garbage, st.binary(max_size=80)),
    STREAMS.map(garbage),
    (ANSWERS | TREES).map(json.dumps).map(garbage),
    st.builds(Fault, st.integers(400, 599), WORDS),
    (st.integers(-5, 9_999) | st.sampled_from([None, "soon", "NaN"])).map(rate_limit),
)


def runs(max_examples: int) -> Any:
    return settings(max_examples=max_examples, deadline=None, suppress_health_check=list(HealthCheck))


class Tasks:
    """A scheduler that only keeps what it is given."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def submit_messages(self, messages: list[Any]) -> None:
        self.labels += [message.label for message in messages]


def chat_through(reply_count: int, folder: Path) -> None:
    """`reply_count` random replies, each to a turn of its own."""
    clock, tasks, turns = ManualClock(), Tasks(), itertools.count()
    store = SqliteStore(folder / "memory.db", clock=clock)
    indexer, retriever = Indexer(None), HybridRetriever(store, None, clock=clock)
    with ModelServer() as server:
        llm = OpenAIChat("m", base_url=server.url)
        chat = MemChat(
            store=store,
            indexer=indexer,
            retriever=retriever,
            reader=MemReader(clock=clock),
            scheduler=tasks,
            answerer=ExtractiveAnswerer(analyse),
            llm=llm,
            clock=clock,
        )

        @runs(reply_count)
        @given(ANY_REPLY)
        def turn(reply: Scripted) -> None:
            cube = f"c{next(turns)}"  # of its own: what is in it is of this turn alone
            server.script(reply)
            tasks.labels.clear()
            query = ChatQuery("u", f"What is boat {cube} called?", (cube,), (cube,))
            events = list(chat.stream(query))
            assert isinstance(events[-1], End)
            assert [event for event in events if isinstance(event, Failure)] == []
            said = "".join(event.text for event in events if isinstance(event, Text))
            assert said.strip()
            assert tasks.labels[:2] == ["query", "answer"]
            stored = list(reversed(store.find(ItemFilter(cube_ids=(cube,))).items))
            assert stored[0].memory == query.query
            assert_holds(said, stored[1:])

        try:
            turn()
        finally:
            llm.close()
            store.close()


def assert_holds(said: str, stored: list[MemoryItem]) -> None:
    """The words of the answer are in the memories of it."""
    assert stored
    kept = "".join("".join(item.memory.split()) for item in stored)
    assert kept == "".join(said.split())


def test_no_reply_of_a_model_loses_a_turn(tmp_path: Path) -> None:
    """Whatever comes: no error frame, an answer, both sides of the turn stored, both tasks queued."""
    chat_through(REPLIES, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_no_reply_of_many_loses_a_turn(tmp_path: Path) -> None:
    """The same with many more replies."""
    chat_through(MANY, tmp_path)


def ask_for_json(reply_count: int) -> None:
    """`reply_count` pairs of random replies to a structured call."""
    with ModelServer() as server:
        llm = OpenAIChat("m", base_url=server.url)

        @runs(reply_count)
        @given(SAID | ANY_REPLY, SAID | ANY_REPLY)
        def call(first: Scripted, second: Scripted) -> None:
            server.script(first, second)
            asked = len(server.requests)
            try:
                done = llm.complete([ChatMessage("user", "Is recall needed?")], schema=SCHEMA)
            except BadCompletion as error:
                assert isinstance(error.raw, str) and not error.retryable
            except ModelError as error:
                assert str(error)
            else:
                assert done.parsed is not None and mismatch(done.parsed, SCHEMA) == ""
            calls = len(server.requests) - asked
            assert 1 <= calls <= 6
            server.drop()  # what was not asked for does not reach the next example

        try:
            call()
        finally:
            llm.close()


def test_a_structured_call_gives_what_fits_or_a_typed_error() -> None:
    """Whatever comes, twice: an object that meets the schema, or a ModelError; the reply is in it."""
    ask_for_json(REPLIES)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_many_structured_calls_give_what_fits_or_a_typed_error() -> None:
    """The same with many more replies."""
    ask_for_json(MANY)


@runs(REPLIES)
@given(
    TREES, st.sampled_from(["", "So: ", "```json\n", "{oops ", "<think>{}</think>\n"]), st.text(max_size=20)
)
def test_an_object_is_found_wherever_it_stands(tree: Any, before: str, after: str) -> None:
    """An object that json can write is read back whole from between other words, or refused as no JSON."""
    value = {"answer": tree}
    text = json.dumps(value)
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:  # NaN and Infinity, as Python writes them
        with pytest.raises(ValueError):
            read_object(text)
        return
    if "{" not in before:
        assert read_object(before + text + after) == value


@runs(REPLIES)
@given(st.text(max_size=200) | NEAR_JSON)
def test_any_text_is_read_or_refused(text: str) -> None:
    """Reading raises nothing but ValueError, which says what is wrong."""
    try:
        found = read_object(text)
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(found, dict)
