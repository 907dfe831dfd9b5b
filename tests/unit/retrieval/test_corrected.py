"""What stands before a hit of which a clause is outdated."""

from __future__ import annotations

import pytest

from memos.memory.item import MemoryItem
from memos.retrieval.corrected import with_corrections_first
from memos.retrieval.request import Hit

TURN = MemoryItem(
    id="turn",
    cube_id="c",
    user_id="u",
    memory="I live in Paris. I work at Google.",
    extra={"outdated_clauses": [{"text": "I live in Paris", "by": "home"}]},
)
HOME = MemoryItem(id="home", cube_id="c", user_id="u", memory="The user lives in Lyon.", raw=False)
OTHER = MemoryItem(id="other", cube_id="c", user_id="u", memory="Paris is fine in spring.")


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("Which city do I live in?", ["home", "turn", "other"]),
        ("Do I still live in Paris?", ["home", "turn", "other"]),
        ("Where do I work?", ["turn", "other", "home"]),
        ("Do I live near my work?", ["turn", "other", "home"]),
        ("What was it?", ["turn", "other", "home"]),
    ],
)
def test_what_holds_comes_first_where_the_query_is_about_the_clause(query: str, order: list[str]) -> None:
    """More of its words in the clause than in the rest; as many in both, or none, leave the order alone."""
    hits = [Hit(TURN, 0.9, 0.8), Hit(OTHER, 0.5, 0.5), Hit(HOME, 0.4, 0.4)]
    found = with_corrections_first(hits, lambda ids: {}, top_k=3, query=query)
    assert [hit.item.id for hit in found] == order
    raised = next(hit for hit in found if hit.item.id == "home")
    assert raised.score == (0.9 if order[0] == "home" else 0.4)


def test_what_holds_is_fetched_if_it_was_not_found_and_is_live() -> None:
    """It takes the last place of those asked for; one that has gone changes nothing."""
    hits = [Hit(TURN, 0.9, 0.8), Hit(OTHER, 0.5, 0.5)]
    live = with_corrections_first(hits, lambda ids: {"home": HOME}, top_k=2, query="Where do I live?")
    gone = with_corrections_first(hits, lambda ids: {}, top_k=2, query="Where do I live?")
    assert [hit.item.id for hit in live] == ["home", "turn"]
    assert [hit.item.id for hit in gone] == ["turn", "other"]


@pytest.mark.parametrize(
    "kept",
    [
        [{"text": "I live in Rome", "by": "home"}],
        "x",
        [1],
        [{"text": 1, "by": "home"}],
        {"text": "I live", "by": "home"},
        None,
    ],
)
def test_what_a_caller_put_there_is_no_mark(kept: object) -> None:
    """`extra` may come from an import; what has another form is passed over."""
    turn = MemoryItem(
        id="turn", cube_id="c", user_id="u", memory="I live in Paris.", extra={"outdated_clauses": kept}
    )
    hits = [Hit(turn, 0.9, 0.8), Hit(HOME, 0.4, 0.4)]
    assert with_corrections_first(hits, lambda ids: {}, top_k=2, query="Where do I live?") == hits
