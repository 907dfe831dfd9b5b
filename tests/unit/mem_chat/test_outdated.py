"""A memory of which a clause is outdated, in a prompt and in a quotation."""

from __future__ import annotations

import pytest

from memos.mem_chat.outdated import still_holding, with_marks
from memos.memory.item import MemoryItem
from memos.retrieval.request import Hit


def told(text: str, *clauses: str) -> MemoryItem:
    marks = [{"text": clause, "by": f"new{number}"} for number, clause in enumerate(clauses)]
    return MemoryItem(id="t", cube_id="c", user_id="u", memory=text, extra={"outdated_clauses": marks})


@pytest.mark.parametrize(
    ("item", "marked", "left"),
    [
        (
            told("I live in Paris. I work at Google!", "I live in Paris"),
            "I live in Paris [outdated]. I work at Google!",
            "I work at Google.",
        ),
        (
            told("I work at Google and I live in Paris. Do you?", "I live in Paris"),
            "I work at Google and I live in Paris [outdated]. Do you?",
            "I work at Google. Do you?",
        ),
        (
            told("我住在巴黎。我在谷歌工作。", "我住在巴黎"),
            "我住在巴黎【已过时】。我在谷歌工作。",
            "我在谷歌工作。",
        ),
        (told("I live in Paris.", "I live in Paris"), "I live in Paris [outdated].", ""),
    ],
)
def test_a_clause_is_marked_or_left_out_while_its_successor_holds(
    item: MemoryItem, marked: str, left: str
) -> None:
    """In a prompt the mark stands behind the clause, a quotation goes without it; otherwise it stays as it was said."""
    (hit,) = with_marks([Hit(item, 1.0, 1.0)], {"new0"})
    assert hit.item.memory == marked
    assert still_holding(item, {"new0"}) == left
    assert with_marks([Hit(item, 1.0, 1.0)], set()) == (Hit(item, 1.0, 1.0),)
    assert still_holding(item, set()) == item.memory


def test_each_clause_goes_by_its_own_successor() -> None:
    """Two outdated clauses, one whose successor has gone."""
    item = told("I live in Paris. I work at Google.", "I live in Paris", "I work at Google")
    (hit,) = with_marks([Hit(item, 1.0, 1.0)], {"new1"})
    assert hit.item.memory == "I live in Paris. I work at Google [outdated]."
    assert still_holding(item, {"new1"}) == "I live in Paris."
