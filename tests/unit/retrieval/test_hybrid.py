"""Hybrid recall over a real store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from memos.clock import utc
from memos.errors import InvalidInput, ModelUnavailable, StoreUnavailable
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind
from memos.memory.sqlite import SqliteStore
from memos.memory.store import ItemFilter, SetStatus, TouchItems
from memos.models.base import Embedder
from memos.retrieval.hybrid import (
    EMBEDDER_FAILED,
    NO_EMBEDDER,
    OTHER_MODEL,
    HybridRetriever,
    Recall,
    RecallRequest,
    RecallWeights,
)
from memos.testing import ManualClock

Fill = Callable[[Sequence[MemoryItem]], None]
Make = Callable[..., MemoryItem]
MakeTurns = Callable[..., list[MemoryItem]]
Ask = Callable[..., Recall]

TALK = (
    ("Ann", "I adopted a puppy from the shelter, his name is Max"),
    ("Bob", "Lovely! What does he eat?"),
    ("Ann", "Chicken with rice, and carrots on Sundays"),
    ("Bob", "I bought a sailing boat in Hamburg"),
    ("Ann", "Enjoy the sea"),
)


@pytest.fixture
def ask(store: SqliteStore, embedder: Embedder, clock: ManualClock) -> Ask:
    """Search the cube; fields of the request, and `weights`, by name."""

    def search(query: str, *, weights: RecallWeights | None = None, **fields: Any) -> Recall:
        retriever = HybridRetriever(store, embedder, clock=clock, weights=weights)
        return retriever.search(RecallRequest(**{"query": query, "cube_ids": ("cube",), **fields}))

    return search


def ids(recall: Recall) -> list[str]:
    return [hit.item.id for hit in recall.hits]


def test_the_fitting_memory_comes_first(ask: Ask, fill: Fill, make_turns: MakeTurns) -> None:
    """A question that shares words with one turn finds it first, with the bare text."""
    fill(make_turns(*TALK))
    recall = ask("What is the name of the puppy?")
    assert recall.hits[0].item.memory == TALK[0][1]
    assert recall.hits[0].relativity > 0.45
    assert recall.degraded == ()


def test_an_answer_that_shares_no_word_is_found_by_its_question(
    ask: Ask, fill: Fill, make_turns: MakeTurns
) -> None:
    """The turn after a fitting question is among the first hits."""
    fill(make_turns(*TALK))
    assert "s1.2" in ids(ask("what does the puppy eat?"))[:3]


def test_a_named_participant_moves_up_and_hides_nobody(ask: Ask, fill: Fill, make_turns: MakeTurns) -> None:
    """Of two turns that fit alike, the named speaker's comes first, and the other one stays."""
    fill(make_turns(("Ann", "I play the violin"), ("Bob", "I play the violin and chess"), ("Eve", "Nice")))
    about_bob, about_ann = ask("Does Bob play the violin?"), ask("Does Ann play the violin?")
    assert ids(about_bob)[0] == "s1.1"
    assert ids(about_ann)[0] == "s1.0"
    assert "s1.0" in ids(about_bob)


def test_a_period_named_in_the_query_moves_up(
    ask: Ask, fill: Fill, make_item: Make, clock: ManualClock
) -> None:
    """Of two alike memories the one that happened yesterday is first for a query about yesterday."""
    now = utc(clock.now())
    fill(
        [
            make_item("old", "A walk in the forest", happened_at=now - timedelta(days=9)),
            make_item("new", "A walk in the forest with rain", happened_at=now - timedelta(days=1)),
        ]
    )
    assert ids(ask("walk in the forest", dedup="no"))[0] == "old"
    assert ids(ask("walk in the forest yesterday", dedup="no"))[0] == "new"
    long_ago = ask("walk in the forest yesterday", reference_time=now - timedelta(days=8), dedup="no")
    assert ids(long_ago)[0] == "old"


def test_the_current_session_is_favoured_and_no_wall(ask: Ask, fill: Fill, make_turns: MakeTurns) -> None:
    """The session of the request moves up; a better memory of another session still comes first."""
    fill(
        [
            *make_turns(("Ann", "The meeting is in room nine"), session_id="a"),
            *make_turns(("Ann", "The meeting is in room ten"), session_id="b"),
        ]
    )
    assert ids(ask("where is the meeting", session_id="b"))[0] == "b.0"
    assert ids(ask("is the meeting in room nine", session_id="b"))[0] == "a.0"


def test_uses_and_recency_count_when_they_are_switched_on(
    ask: Ask, fill: Fill, make_item: Make, store: SqliteStore, clock: ManualClock
) -> None:
    """With their weights above zero, a used or a recent memory passes its equal."""
    day = timedelta(days=1)
    now = utc(clock.now())
    fill(
        [
            make_item("a", "Blue paint in the cellar", happened_at=now - 90 * day, session_id="x"),
            make_item("b", "Blue paint in the cellar", happened_at=now - 80 * day, session_id="y"),
        ]
    )
    store.apply([TouchItems(("a",), reason="quoted", weight=5)])
    plain = RecallWeights().only("lexical")
    assert ids(ask("blue paint", weights=plain, dedup="no")) == ["b", "a"]  # ties: the later one
    assert ids(ask("blue paint", weights=replace(plain, use=1.0), dedup="no")) == ["a", "b"]
    assert ids(ask("blue paint", weights=replace(plain, use=0.1, recency=9.0), dedup="no")) == ["b", "a"]


def test_a_long_silence_in_a_session_begins_another_episode(
    ask: Ask, fill: Fill, make_item: Make, clock: ManualClock
) -> None:
    """What was said on another day under the same session id shares no episode bonus."""
    now = utc(clock.now())
    early, late = now - timedelta(days=2), now
    told = [("a", "The oven is broken", early), ("b", "Call me", early), ("c", "Call me soon", late)]
    fill(
        [
            make_item(name, text, session_id="s", position=10 * place, happened_at=moment)
            for place, (name, text, moment) in enumerate(told)
        ]
    )
    parts = {hit.item.id: hit.parts for hit in ask("broken oven").hits}
    assert parts["b"]["episode"] == parts["a"]["episode"] > parts["c"]["episode"]


def test_items_without_a_session_share_no_context(ask: Ask, fill: Fill, make_item: Make) -> None:
    """Loose notes lend each other neither an episode nor a neighbour's score."""
    fill([make_item("a", "The oven is broken"), make_item("b", "Tea at four", position=1)])
    parts = {hit.item.id: hit.parts for hit in ask("broken oven").hits}
    assert parts["b"]["neighbours"] == 0.0
    assert parts["b"]["episode"] < parts["a"]["episode"]


def test_links_bring_what_text_does_not(ask: Ask, fill: Fill, make_item: Make) -> None:
    """A memory that names an entity of the query is found by the link channel alone."""
    fill([make_item("a", "We met at the Louvre"), make_item("b", "Rain all day")])
    recall = ask("tell me about the Louvre", weights=replace(RecallWeights().only("links"), links=1.0))
    assert ids(recall)[0] == "a"
    assert recall.hits[0].parts == {"links": 1.0}


def test_each_hit_says_what_its_score_is_made_of(ask: Ask, fill: Fill, make_turns: MakeTurns) -> None:
    """The parts of a hit sum up to its score, and hits come by falling score."""
    fill(make_turns(*TALK))
    recall = ask("What is the name of the puppy that Ann adopted?", dedup="no")
    for hit in recall.hits:
        assert sum(hit.parts.values()) == pytest.approx(hit.score, abs=1e-5)
    scores = [hit.score for hit in recall.hits]
    assert scores == sorted(scores, reverse=True)


def test_unrelated_memories_fall_below_the_default_cut(ask: Ask, fill: Fill, make_turns: MakeTurns) -> None:
    """Relativity is absolute: a query that nothing fits gets nothing, though something is always best."""
    fill(make_turns(*TALK))
    assert ask("quantum chromodynamics lattice").hits != ()
    assert ask("quantum chromodynamics lattice", relativity=0.45).hits == ()
    kept = ask("name of the puppy", relativity=0.45)
    assert ids(kept)[0] == "s1.0"
    assert all(hit.relativity >= 0.45 for hit in kept.hits)


def test_what_the_current_turn_wrote_is_left_out(ask: Ask, fill: Fill, make_item: Make) -> None:
    """Items of the excluded turn and excluded ids do not come back."""
    fill(
        [
            make_item("now", "Where are my keys?", turn_id="t9"),
            make_item("then", "My keys are in the red bowl", turn_id="t1"),
            make_item("other", "The keys of the car are lost", turn_id="t2"),
        ]
    )
    recall = ask("Where are my keys?", exclude_turn_ids=frozenset({"t9"}), exclude_ids=frozenset({"other"}))
    assert ids(recall) == ["then"]


def test_filters_and_kinds_restrict(ask: Ask, fill: Fill, make_item: Make) -> None:
    """Only what passes filter, kinds and predicate together is recalled, and top_k is filled from it."""
    fill(
        [
            make_item(f"i{n}", f"Fact about tea number {n}", session_id=f"s{n % 2}", confidence=n / 10)
            for n in range(10)
        ]
        + [make_item("p", "Prefers green tea", kind=MemoryKind.PREFERENCE)]
    )
    assert ids(ask("tea", kinds=(MemoryKind.PREFERENCE,))) == ["p"]
    assert ids(ask("tea", kinds=(MemoryKind.USER,), filter=ItemFilter(kinds=(MemoryKind.PREFERENCE,)))) == []
    odd = ask("tea", filter=ItemFilter(session_ids=("s1",)), top_k=3)
    assert len(odd.hits) == 3
    assert {hit.item.session_id for hit in odd.hits} == {"s1"}
    sure = ask(
        "tea", filter=ItemFilter(session_ids=("s1",)), predicate=lambda one: one.confidence > 0.4, dedup="no"
    )
    assert sorted(ids(sure)) == ["i5", "i7", "i9"]


def test_neighbours_outside_the_filter_stay_out(ask: Ask, fill: Fill, make_turns: MakeTurns) -> None:
    """The context of a hit does not bring in what the filter excludes."""
    first, second, *_ = make_turns(*TALK)
    fill([replace(first, tags=("keep",)), second])
    assert ids(ask("name of the puppy", filter=ItemFilter(tags=("keep",)))) == ["s1.0"]


def test_several_cubes_are_ranked_in_one_pool(ask: Ask, fill: Fill, make_item: Make) -> None:
    """The better memory comes first whichever cube it is in; `seqs` names every cube read."""
    fill(
        [
            make_item("one", "The spare key hangs in the shed", cube_id="cube"),
            make_item("two", "A shed was built", cube_id="other"),
            make_item(
                "three", "Where the spare key of the shed hangs: behind the shed door", cube_id="third"
            ),
        ]
    )
    recall = ask("spare key of the shed", cube_ids=("other", "cube", "empty", "cube"))
    assert ids(recall) == ["one", "two"]
    assert set(recall.seqs) == {"other", "cube", "empty"}
    assert recall.seqs["empty"] == 0


def test_a_cube_does_not_see_another_one(ask: Ask, fill: Fill, make_item: Make) -> None:
    """Only the cubes of the request are searched."""
    fill([make_item("mine", "A secret", cube_id="cube"), make_item("yours", "A secret", cube_id="other")])
    assert ids(ask("secret")) == ["mine"]


def test_an_empty_cube_gives_no_hits(ask: Ask) -> None:
    """A cube that does not exist reads as empty."""
    recall = ask("anything")
    assert recall.hits == ()
    assert recall.seqs == {"cube": 0}


@pytest.mark.parametrize("status", [ItemStatus.DELETED, ItemStatus.ARCHIVED, ItemStatus.QUARANTINED])
def test_what_is_no_longer_live_is_gone_at_once(
    ask: Ask, fill: Fill, make_item: Make, store: SqliteStore, status: ItemStatus
) -> None:
    """The search after the change finds it by no channel."""
    fill([make_item("a", "We met at the Louvre"), make_item("b", "The Louvre is closed")])
    assert set(ids(ask("Louvre"))) == {"a", "b"}
    store.apply([SetStatus(("a",), status, reason="test")])
    assert ids(ask("Louvre")) == ["b"]


def test_the_same_search_gives_the_same_hits(ask: Ask, fill: Fill, make_item: Make) -> None:
    """Scores, parts and order repeat, and equal scores come by date and id."""
    fill([make_item(name, f"Tea with {name}", session_id=name) for name in ("c", "a", "b")])
    first, second = ask("tea"), ask("tea")
    assert first.hits == second.hits
    plain = ask("tea", weights=RecallWeights().only("lexical"), dedup="no")
    assert ids(plain) == ["a", "b", "c"]


class _Failing:
    dim = 128
    fingerprint = "words-1"

    def embed(self, texts: Sequence[str]) -> Any:
        raise ModelUnavailable("out of order")


class _Other:
    dim = 3
    fingerprint = "other-1"

    def embed(self, texts: Sequence[str]) -> Any:
        return np.tile(np.array([1.0, 0.0, 0.0], dtype=np.float32), (len(texts), 1))


@pytest.mark.parametrize(
    ("without", "said"),
    [(None, NO_EMBEDDER), (_Failing(), EMBEDDER_FAILED), (_Other(), OTHER_MODEL)],
)
def test_recall_without_vectors_goes_on_and_says_so(
    store: SqliteStore, clock: ManualClock, fill: Fill, make_turns: MakeTurns, without: Any, said: str
) -> None:
    """No embedder, a failing one, one of another model: text and links answer, the default cut included."""
    fill(make_turns(*TALK))
    retriever = HybridRetriever(store, without, clock=clock)
    recall = retriever.search(
        RecallRequest(query="sailing boat in Hamburg", cube_ids=("cube",), relativity=0.45)
    )
    assert ids(recall)[0] == "s1.3"
    assert recall.degraded == (said,)


def test_a_failing_store_raises(store: SqliteStore, ask: Ask) -> None:
    """A store that cannot be read is an error, not an empty result."""
    store.close()
    with pytest.raises(StoreUnavailable):
        ask("anything")


def test_names_are_not_encoded(ask: Ask, fill: Fill, make_turns: MakeTurns, embedder: Any) -> None:
    """What goes to the embedder is the query without the participants' names."""
    fill(make_turns(*TALK))
    ask("What did Ann give Bob?")
    assert "Ann" not in embedder.texts[-1]
    assert "Bob" not in embedder.texts[-1]
    assert "give" in embedder.texts[-1]


def test_a_query_of_nothing_but_a_name_finds_who_bears_it(
    ask: Ask, fill: Fill, make_turns: MakeTurns
) -> None:
    """With the names left out nothing would remain, so the names are searched for."""
    fill(make_turns(("Ann", "Morning"), ("Bob", "Hello Ann"), ("Eve", "Hi")))
    assert set(ids(ask("Ann"))[:2]) == {"s1.0", "s1.1"}


def test_timings_are_told_by_step(ask: Ask, fill: Fill, make_turns: MakeTurns) -> None:
    """Each step and the total are in milliseconds of the clock; a clock that stands still says 0."""
    fill(make_turns(*TALK))
    assert ask("puppy").timings_ms == {"query": 0, "encode": 0, "channels": 0, "rank": 0, "total": 0}


@pytest.mark.parametrize("count", [1, 7, 30])
def test_top_k_is_never_passed(ask: Ask, fill: Fill, make_item: Make, count: int) -> None:
    """There are at most top_k hits, and as many as there are when nothing cuts them."""
    fill([make_item(str(n), f"Tea number {n}") for n in range(20)])
    assert len(ask("tea", top_k=count, dedup="no").hits) == min(count, 20)


def test_more_hits_than_candidates_by_default_can_be_asked_for(ask: Ask, fill: Fill, make_item: Make) -> None:
    """A large top_k widens the candidates, so that a whole cube can be ranked."""
    fill([make_item(str(n), f"Tea number {n}") for n in range(500)])
    assert len(ask("tea", top_k=500, dedup="no").hits) == 500


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"query": "  "}, "query"),
        ({"query": "x" * 40_000}, "40000"),
        ({"cube_ids": ()}, "cube_ids"),
        ({"cube_ids": ("",)}, "cube_ids"),
        ({"cube_ids": tuple(map(str, range(101)))}, "100 cubes"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": 1_001}, "top_k=1001"),
        ({"candidates_max": 0}, "candidates_max=0"),
        ({"relativity": 1.1}, "relativity=1.1"),
        ({"relativity": float("nan")}, "relativity=nan"),
        ({"dedup": "all"}, "'all'.*mmr"),
        ({"reference_time": utc(0).replace(tzinfo=None)}, "time zone"),
    ],
)
def test_a_request_that_can_never_work_is_refused_by_name(fields: dict[str, Any], names: str) -> None:
    """InvalidInput names the field, the value and what would be taken."""
    with pytest.raises(InvalidInput, match=names):
        RecallRequest(**{"query": "tea", "cube_ids": ("cube",), **fields})


def test_one_channel_alone(ask: Ask, fill: Fill, make_item: Make, embedder: Any) -> None:
    """By text nothing is encoded and what shares no word is not found; by vector it is, without neighbours."""
    fill([make_item("words", "The kettle is blue"), make_item("other", "Nothing in common")])
    plain, embedder.embed = embedder.embed, lambda texts: plain(["Nothing in common"] * len(texts))
    before = len(embedder.texts)
    assert ids(ask("blue kettle", stages=("lexical",))) == ["words"] and len(embedder.texts) == before
    assert ids(ask("blue kettle", stages=("dense",)))[0] == "other"
    assert set(ids(ask("blue kettle"))) == {"words", "other"}
