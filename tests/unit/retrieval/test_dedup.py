"""Leaving out what says the same again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memos.memory.item import MemoryItem, Source
from memos.retrieval.dedup import Candidate, chosen, dedup
from memos.retrieval.request import Hit

Make = Callable[..., MemoryItem]


def hits(*items: MemoryItem) -> list[Hit]:
    """Hits in the order given, their scores falling."""
    return [Hit(item, 10.0 - place, 1.0) for place, item in enumerate(items)]


def ids(found: list[Hit]) -> list[str]:
    return [hit.item.id for hit in found]


@pytest.mark.parametrize("how", ["sim", "mmr"])
def test_exact_duplicates_leave_their_best(how: Any, make_item: Make) -> None:
    """Of texts that differ in case, width and white space only the best ranked stays."""
    found = hits(make_item("a", "I like tea."), make_item("b", "i  like TEA."), make_item("c", "I like rum."))
    assert ids(dedup(found, how=how, top_k=3)) == ["a", "c"]


def test_no_dedup_leaves_everything(make_item: Make) -> None:
    """With "no" repetitions stay."""
    found = hits(make_item("a", "I like tea."), make_item("b", "I like tea."))
    assert ids(dedup(found, how="no", top_k=5)) == ["a", "b"]


@pytest.mark.parametrize("how", ["sim", "mmr"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I am allergic to nuts", "I am not allergic to nuts"),
        ("I am allergic to nuts", "I was never allergic to nuts"),
        ("The flight leaves at 9:40", "The flight leaves at 9:45"),
        ("The code word is zq0x1", "The code word is zq0x2"),
        ("Ann invited Bob", "Bob invited Ann"),
        ("我喜欢吃鱼", "我不喜欢吃鱼"),
    ],
)
def test_facts_that_differ_in_a_detail_both_stay(how: Any, one: str, other: str, make_item: Make) -> None:
    """Negation, numbers, rare words and order make another fact, however alike the texts are."""
    assert ids(dedup(hits(make_item("a", one), make_item("b", other)), how=how, top_k=2)) == ["a", "b"]


@pytest.mark.parametrize("how", ["sim", "mmr"])
def test_the_same_words_of_two_speakers_are_two_facts(how: Any, make_item: Make) -> None:
    """Who says "I have a dog" matters."""
    one = make_item("a", "I have a dog", participants=("Ann",))
    other = make_item("b", "I have a dog", participants=("Bob",))
    assert ids(dedup(hits(one, other), how=how, top_k=2)) == ["a", "b"]


def test_texts_that_differ_in_function_words_are_one(make_item: Make) -> None:
    """The same content words in the same order say the same."""
    found = hits(make_item("a", "My dog is called Max"), make_item("b", "The dog called Max"))
    assert ids(dedup(found, how="sim", top_k=2)) == ["a"]


def test_a_derived_fact_and_its_only_source_are_one_hit(make_item: Make) -> None:
    """Whichever ranks first stands for both."""
    raw = make_item("raw", "Max, come here!", sources=(Source(type="chat", message_id="m1"),))
    fact = make_item("fact", "Ann's dog is Max", raw=False, sources=(Source(type="item", item_id="raw"),))
    assert ids(dedup(hits(fact, raw), how="sim", top_k=2)) == ["fact"]
    assert ids(dedup(hits(raw, fact), how="sim", top_k=2)) == ["raw"]


def test_a_summary_does_not_swallow_the_turns_that_it_sums_up(make_item: Make) -> None:
    """A derived item of several sources goes only when all of them are there, and hides none."""
    sources = tuple(Source(type="chat", message_id=f"m{n}") for n in range(2))
    summary = make_item("sum", "They talked about dogs", raw=False, sources=sources)
    one, two = (make_item(f"t{n}", f"Dog number {n}", sources=(sources[n],)) for n in range(2))
    assert ids(dedup(hits(summary, one, two), how="sim", top_k=3)) == ["sum", "t0", "t1"]
    assert ids(dedup(hits(one, two, summary), how="sim", top_k=3)) == ["t0", "t1"]


def test_two_facts_out_of_one_turn_stay_two(make_item: Make) -> None:
    """Sharing a source is not saying the same."""
    source = (Source(type="chat", message_id="m1"),)
    found = hits(
        make_item("a", "Ann has a dog", raw=False, sources=source),
        make_item("b", "Ann has a cat", raw=False, sources=source),
    )
    assert ids(dedup(found, how="sim", top_k=2)) == ["a", "b"]


def test_diversity_lets_a_new_thing_pass_a_near_repetition(make_item: Make) -> None:
    """Of two hits that score alike, the one that adds something comes first."""
    found = [
        Hit(make_item("a", "The red bicycle stands in the garden behind the house"), 3.0, 1.0),
        Hit(make_item("b", "The red bicycle stands in the garden behind the old house"), 2.01, 1.0),
        Hit(make_item("c", "Tickets for the concert are on the fridge"), 2.0, 1.0),
        Hit(make_item("d", "Nothing of interest"), 0.0, 1.0),
    ]
    assert ids(dedup(found, how="mmr", top_k=3)) == ["a", "c", "b"]
    assert ids(dedup(found, how="sim", top_k=3)) == ["a", "b", "c"]


@pytest.mark.parametrize("how", ["no", "sim", "mmr"])
def test_no_more_than_top_k_come_back(how: Any, make_item: Make) -> None:
    """And none for none."""
    found = hits(*(make_item(str(n), f"Fact number {n}") for n in range(9)))
    assert len(dedup(found, how=how, top_k=4)) == 4
    assert dedup([], how=how, top_k=4) == []


@pytest.mark.parametrize(("how", "looked_at"), [("no", 2), ("sim", 3), ("mmr", 5)])
def test_no_more_candidates_are_looked_at_than_it_takes(how: Any, looked_at: int) -> None:
    """With enough distinct ones at the front, the rest of a long list is not even made."""
    made: list[int] = []

    def candidates() -> Iterator[Candidate]:
        for place, text in enumerate(["tea", "tea", "rum", "gin", "ale", "mead", "wine"]):
            made.append(place)
            yield Candidate(str(place), text, text, (), True, (), 10.0 - place)

    assert chosen(candidates(), how=how, top_k=2) == ([0, 1] if how == "no" else [0, 2])
    assert len(made) == looked_at
