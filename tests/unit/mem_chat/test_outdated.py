"""A memory of which a clause is outdated, in a prompt and in a quotation."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.mem_scheduler.parts import CUBE, assembled

from memos.mem_chat.outdated import live_successors, still_holding, with_marks
from memos.memory.item import MemoryItem
from memos.retrieval.request import Hit
from memos.testing import ManualClock


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


def test_any_number_of_successors_is_looked_for(tmp_path: Path) -> None:
    """More than a page of them are found; more than a filter takes, which no turn has but an import may, end no chat."""
    with assembled(tmp_path, clock=ManualClock()) as parts:
        ids = parts.remember(*(f"Fact {number}." for number in range(150)))
        made_up = [f"none-{number}" for number in range(10_001)]

        def hit(successors: list[str]) -> Hit:
            marks = [{"text": "Paris", "by": one} for one in successors]
            extra = {"outdated_clauses": marks}
            item = MemoryItem(id="t", cube_id=CUBE, user_id="u", memory="I live in Paris.", extra=extra)
            return Hit(item, 1.0, 1.0)

        assert live_successors(parts.store, [hit([one]) for one in ids]) == set(ids)
        assert live_successors(parts.store, [hit(made_up), hit(ids[:1])]) == set(ids[:1])
