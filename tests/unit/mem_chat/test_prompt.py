"""The prompt of a chat: what stands in it, in which order, and within which budget."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memos.mem_chat.chat import ChatQuery
from memos.mem_chat.prompt import prompt_of
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.token_count import count_tokens
from memos.models.base import ChatMessage
from memos.retrieval.request import Hit

TODAY = datetime(2024, 5, 1, tzinfo=UTC)
QUERY = ChatQuery("u", "What is my boat called?", ("c",), ("c",))
EMPTY = sum(count_tokens(m.content) for m in prompt_of(QUERY, (), (), today=TODAY).messages)


def hits(*texts: str, kind: MemoryKind = MemoryKind.LONG_TERM) -> list[Hit]:
    """Hits, best first, each said a day before the one before it."""
    return [
        Hit(
            MemoryItem(f"m{n}", "c", "u", text, kind, happened_at=TODAY - timedelta(days=n + 1)), 1.0 - n, 1.0
        )
        for n, text in enumerate(texts)
    ]


def tokens(messages: tuple[ChatMessage, ...]) -> int:
    return sum(count_tokens(message.content) for message in messages)


def test_memories_stand_in_the_order_they_were_said() -> None:
    """Recall's order decides who is in; the reader sees the oldest first."""
    prompt = prompt_of(QUERY, hits("newest", "older", "oldest"), (), today=TODAY)
    said = prompt.messages[-1].content
    assert said.index("oldest") < said.index("older") < said.index("newest")
    assert prompt.left_out == () and [item.id for item in prompt.memories] == ["m0", "m1", "m2"]


def test_what_does_not_fit_is_left_out_from_the_worst_on_and_said() -> None:
    """The best memories and the newest turns stay; the numbers of the others are told."""
    many = hits(*(f"Memory {n} about the boat that is called Petrel." for n in range(50)))
    history = tuple(
        ChatMessage("user" if n % 2 == 0 else "assistant", f"turn {n} " + "word " * 20) for n in range(20)
    )
    prompt = prompt_of(replace(QUERY, history=history), many, (), today=TODAY, tokens_max=EMPTY + 300)
    kept = [item.id for item in prompt.memories]
    assert kept == [f"m{n}" for n in range(len(kept))] and 5 < len(kept) < 20
    turns = [message.content[:8] for message in prompt.messages[1:-1]]
    assert turns and turns == [one.content[:8] for one in history[-len(turns) :]]
    assert prompt.left_out == (
        f"{50 - len(kept)} of 50 memories did not fit into the prompt",
        f"{20 - len(turns)} of 20 turns of history did not fit into the prompt",
    )
    assert tokens(prompt.messages) <= EMPTY + 300


def test_memories_use_what_history_leaves() -> None:
    """A short history does not keep room that memories could fill."""
    many = hits(*(f"Memory {n} about the boat that is called Petrel." for n in range(50)))
    bare = prompt_of(QUERY, many, (), today=TODAY, tokens_max=EMPTY + 300)
    short = prompt_of(
        replace(QUERY, history=(ChatMessage("user", "Hello"),)), many, (), today=TODAY, tokens_max=EMPTY + 300
    )
    assert len(short.memories) >= len(bare.memories) - 1 and len(short.messages) == 3


def test_a_memory_that_is_too_long_gives_way_to_the_next() -> None:
    """One long memory does not keep the shorter ones out."""
    prompt = prompt_of(
        QUERY, hits("word " * 400, "Petrel lies in Harwich."), (), today=TODAY, tokens_max=EMPTY + 100
    )
    assert [item.id for item in prompt.memories] == ["m1"]


def test_the_question_stands_whatever_the_budget() -> None:
    """Rules, system text and question are never cut."""
    query = replace(QUERY, system_prompt="You are a sailor.", query="word " * 500)
    prompt = prompt_of(
        query, hits("x"), hits("likes tea", kind=MemoryKind.PREFERENCE), today=TODAY, tokens_max=500
    )
    assert prompt.messages[-1].content.endswith(query.query)
    assert prompt.messages[0].content.startswith("You are a sailor.") and prompt.memories == ()


@pytest.mark.parametrize("budget", [500, 700, 1_000, 3_000])
@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1, max_size=300), max_size=30),
    said=st.lists(st.text(min_size=1, max_size=600), max_size=25),
    liked=st.lists(st.text(min_size=1, max_size=100), max_size=6),
)
def test_any_prompt_keeps_to_its_budget(
    budget: int, texts: list[str], said: list[str], liked: list[str]
) -> None:
    """Rules and question aside, nothing makes a prompt longer than the budget."""
    query = replace(QUERY, history=tuple(ChatMessage("user", text) for text in said))
    prompt = prompt_of(
        query, hits(*texts), hits(*liked, kind=MemoryKind.PREFERENCE), today=TODAY, tokens_max=budget
    )
    heading = 12  # of the list of preferences
    assert tokens(prompt.messages) <= max(budget, EMPTY) + heading + 2 * len(liked)
