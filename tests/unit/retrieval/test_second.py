"""The second look over a real store, and what leads to a hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.sqlite import SqliteStore
from memos.memory.store import ItemFilter, SetStatus
from memos.models.base import Embedder
from memos.retrieval.hybrid import HybridRetriever, Recall, RecallRequest
from memos.retrieval.lending import lent
from memos.retrieval.request import Hit, Way
from memos.testing import ManualClock

Fill = Callable[[Sequence[MemoryItem]], None]
Make = Callable[..., MemoryItem]
Ask = Callable[..., Recall]

CHAIN = (
    ("vet", "On Mondays the vet of Max is called Doctor Lee"),
    ("boat", "Last summer Doctor Lee went sailing on the Petrel"),
    ("berth", "Every autumn the Petrel is painted in Kiel"),
    ("other", "Nothing beats a cup of tea"),
)


@pytest.fixture
def ask(store: SqliteStore, embedder: Embedder, clock: ManualClock) -> Ask:
    """Search the cube by names alone, so that only the walk leads on."""

    def search(query: str, **fields: Any) -> Recall:
        given = {"query": query, "cube_ids": ("cube",), "dedup": "no", **fields}
        return HybridRetriever(store, embedder, clock=clock).search(RecallRequest(**given))

    return search


def told(recall: Recall) -> dict[str, Hit]:
    return {hit.item.id: hit for hit in recall.hits}


def chain(make_item: Make) -> list[MemoryItem]:
    return [make_item(name, text) for name, text in CHAIN]


def test_the_walk_finds_what_only_a_chain_of_names_leads_to(ask: Ask, fill: Fill, make_item: Make) -> None:
    """Two names away from the query: the boat by the vet, the berth by the boat; unrelated ones never."""
    fill(chain(make_item))
    without = told(ask("Who is the vet of Max?", stages=("lexical",)))
    assert list(without) == ["vet"]
    hits = told(ask("Who is the vet of Max?", stages=("lexical", "walk")))
    assert list(hits) == ["vet", "boat", "berth"]
    assert hits["boat"].ways == (Way("walk", "vet", "doctor lee"),)
    assert hits["berth"].ways == (Way("walk", "boat", "petrel"),)
    assert hits["boat"].parts["walk"] > hits["berth"].parts["walk"] > 0.0


def test_the_walk_keeps_to_what_may_be_seen(
    ask: Ask, fill: Fill, make_item: Make, store: SqliteStore
) -> None:
    """A filter, an exclusion and an archived memory hold on every step; nothing leads through them."""
    fill(chain(make_item))
    stages = ("links", "walk")
    allowed = ItemFilter(ids=("vet", "berth"))
    assert list(told(ask("Who is with Max?", stages=stages, filter=allowed))) == ["vet"]
    shut = told(ask("Who is with Max?", stages=stages, exclude_ids=frozenset({"boat"})))
    assert "boat" not in shut
    store.apply([SetStatus(("boat",), ItemStatus.DELETED, "gone")])
    assert list(told(ask("Who is with Max?", stages=stages))) == ["vet"]


def test_a_participant_leads_nowhere(ask: Ask, fill: Fill, make_turns: Callable[..., Any]) -> None:
    """The names of participants are on everything; the walk does not go over them."""
    fill(make_turns(("Ann", "I met Bob in Rome"), ("Bob", "The tax form is due"), ("Ann", "Bob likes chess")))
    hits = told(ask("What happened in Rome?", stages=("links", "walk")))
    assert list(hits) == ["s1.0", "s1.1", "s1.2"] or all(
        "walk" not in {way.stage for way in hit.ways} for hit in hits.values()
    )
    assert all(hit.parts.get("walk", 0.0) == 0.0 for hit in hits.values())


def test_a_second_search_brings_more_of_the_kind_of_the_best_hit(
    ask: Ask, fill: Fill, make_item: Make
) -> None:
    """What is near to the best hit, but shares nothing with the query, is found and says by which hit."""
    fill(
        [
            make_item("first", "Grandmother knits woollen socks for winter"),
            make_item("like", "Woollen socks and mittens sell well in winter"),
            make_item("far", "The tax form is due"),
        ]
    )
    without = told(ask("what does grandmother do", stages=("lexical", "-again", "-walk")))
    assert list(without) == ["first"]
    hits = told(ask("what does grandmother do", stages=("lexical", "again")))
    assert list(hits)[:2] == ["first", "like"]
    assert hits["like"].ways == (Way("again", "first"),)
    assert hits["like"].parts["again"] > hits.get("far", hits["first"]).parts["again"] or "far" not in hits


def test_channels_and_neighbours_are_ways_too(ask: Ask, fill: Fill, make_turns: Callable[..., Any]) -> None:
    """A hit that matches names its channels; one that only stands beside it names its neighbour."""
    fill(make_turns(("Ann", "The violin needs new strings"), ("Bob", "Quite so")))
    hits = told(ask("violin strings", stages=("lexical", "neighbours")))
    assert hits["s1.0"].ways == (Way("lexical"),)
    assert hits["s1.1"].ways == (Way("neighbours", "s1.0"),)


def test_the_stages_of_the_settings_hold_where_a_request_does_not_say(
    store: SqliteStore, embedder: Embedder, clock: ManualClock, fill: Fill, make_item: Make
) -> None:
    """A retriever built without a stage does not run it; a request may name its own."""
    fill(chain(make_item))
    retriever = HybridRetriever(store, embedder, clock=clock, stages=("-walk", "-again"))
    plain = retriever.search(RecallRequest("Who is with Max?", ("cube",)))
    assert all({"walk", "again"}.isdisjoint(hit.parts) for hit in plain.hits)
    named = retriever.search(RecallRequest("Who is with Max?", ("cube",), stages=("links", "walk")))
    assert any("walk" in hit.parts for hit in named.hits)


def test_a_channel_that_is_off_is_not_asked(
    store: SqliteStore, embedder: Any, clock: ManualClock, fill: Fill, make_item: Make
) -> None:
    """Without `dense` the query is not encoded, and nothing is found by meaning or said to be missing."""
    fill(chain(make_item))
    embedder.texts.clear()
    request = RecallRequest("vet on Mondays", ("cube",), stages=("-dense",))
    recall = HybridRetriever(store, embedder, clock=clock).search(request)
    assert recall.hits and recall.degraded == () and embedder.texts == []
    assert all("dense" not in hit.parts for hit in recall.hits)


def test_what_fits_lends_by_the_score_and_never_more_than_it_has() -> None:
    """A hit at half the score is lent half of the best fit; nobody loses, and the order stays."""
    fits = lent([2.0, 1.6, 1.0, 0.1], [0.5, 0.8, 0.1, 0.6])
    assert fits == pytest.approx([0.8, 0.8, 0.4, 0.6])


def test_nothing_is_lent_where_nothing_fits() -> None:
    """With the best below a cut, all stay below it, whatever the scores say."""
    assert max(lent([1.0] * 4, [0.0, 0.1, 0.2, 0.3])) == pytest.approx(0.3)
    assert lent([], []) == []
