"""Reasoning and answer are told apart however the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos.mem_chat.thinking import split_thinking


def joined(pieces: list[str]) -> tuple[str, str]:
    parts = list(split_thinking(pieces))
    assert all(text for _, text in parts)
    return "".join(t for reasoning, t in parts if reasoning), "".join(t for r, t in parts if not r)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>why</think>\n\nbecause", "why", "because"),
        ("\n <think>why</think>because <think>x</think>", "why", "because <think>x</think>"),
        ("plain a < b", "", "plain a < b"),
        ("<think>never closed", "never closed", ""),
        ("<thin", "", "<thin"),
        ("<think></think>x", "", "x"),
        ("", "", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_any_cut_of_a_stream_gives_the_same_two_texts(
    text: str, reasoning: str, answer: str, size: int
) -> None:
    """The size of the pieces changes neither the reasoning nor the answer."""
    assert joined([text[i : i + size] for i in range(0, len(text), size)]) == (reasoning, answer)


@given(st.lists(st.text(alphabet="<think>/ ab", max_size=6), max_size=12))
def test_a_cut_never_matters(pieces: list[str]) -> None:
    """Pieces and their concatenation are split alike."""
    assert joined(pieces) == joined(["".join(pieces)])
