"""What holds of recall whatever is stored, in whatever order, and whatever is asked."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.retrieval.conftest import NOW, WordEmbedder, item

from memos.memory.indexer import Indexer
from memos.memory.item import ItemStatus, MemoryItem, WorkingEntry
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems, ReplaceWorking, SetStatus
from memos.retrieval.hybrid import HybridRetriever, Recall, RecallRequest
from memos.retrieval.query import understand
from memos.retrieval.stage_table import SCORING
from memos.testing import ManualClock

TEXTS = (
    "On Mondays the vet of Max is called Doctor Lee",
    "Last summer Doctor Lee went sailing on the Petrel",
    "Every autumn the Petrel is painted in Kiel",
    "I adopted a puppy from the shelter",
    "The puppy eats chicken with rice",
    "What does the puppy eat?",
    "我的狗叫小黑",
    "小黑喜欢吃鸡肉",
    "Chicken 🐔 and rice 🍚 on 12 May 2023",
    "",
    "a",
)
QUERIES = (
    "What does the puppy eat?",
    "Who is the vet of Max?",
    "小黑喜欢吃什么",
    "chicken",
    "Petrel in Kiel 🐔",
)

told = st.lists(
    st.tuples(
        st.sampled_from([text for text in TEXTS if text]),
        st.sampled_from(["Ann", "Bob"]),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=6,
)
# A new store in a file each time: a few examples say enough, and a slow disk is no failure.
few = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def opened(folder: Path) -> Iterator[tuple[SqliteStore, HybridRetriever]]:
    embedder, clock = WordEmbedder(), ManualClock()
    store = SqliteStore(folder / "memory.db", clock=clock)
    store.bind_embedder(embedder.fingerprint, embedder.dim)
    try:
        yield store, HybridRetriever(store, embedder, clock=clock)
    finally:
        store.close()


def conversation(said: Sequence[tuple[str, str, int]]) -> list[MemoryItem]:
    """Items with ids, places and times of their own, so that the order of storing says nothing."""
    return [
        item(
            f"i{place:02}",
            text,
            participants=(speaker,),
            session_id=f"s{session}",
            position=place,
            happened_at=NOW - timedelta(days=30 * (3 - session), minutes=-place),
        )
        for place, (text, speaker, session) in enumerate(said)
    ]


def add(store: SqliteStore, items: Sequence[MemoryItem]) -> None:
    store.apply([AddItems(tuple(Indexer(WordEmbedder()).index(items, participants=("Ann", "Bob"))))])


def answers(retriever: HybridRetriever) -> list[list[tuple[str, float, tuple[str, ...]]]]:
    """Ids, scores and stages of the hits of every query."""
    found = []
    for query in QUERIES:
        recall = retriever.search(RecallRequest(query, ("cube",)))
        found.append([(hit.item.id, round(hit.score, 3), tuple(sorted(hit.parts))) for hit in recall.hits])
    return found


def told_in_full(retriever: HybridRetriever) -> list[list[object]]:
    """Everything that is said of the hits of every query, as JSON has it."""
    requests = [
        RecallRequest(query, ("cube",), top_k=20, dedup=how) for query in QUERIES for how in ("no", "mmr")
    ]
    return [
        [
            [hit.item.id, hit.score, hit.relativity, dict(hit.parts), [asdict(way) for way in hit.ways]]
            for hit in retriever.search(request).hits
        ]
        for request in requests
    ]


@few
@given(told, st.randoms(use_true_random=False))
def test_the_same_memories_give_the_same_hits_in_whatever_order_they_came(
    said: list[tuple[str, str, int]], source: random.Random
) -> None:
    """Stored one by one in any order, in one go, or opened again: the same hits with the same scores."""
    items = conversation(said)
    shuffled = source.sample(items, len(items))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        with opened(Path(one)) as (store, retriever):
            add(store, items)
            first = answers(retriever)
            assert answers(retriever) == first
        with opened(Path(one)) as (_, retriever):
            assert answers(retriever) == first
        with opened(Path(other)) as (store, retriever):
            for single in shuffled:
                add(store, [single])
            assert answers(retriever) == first


@few
@given(told, st.data())
def test_what_is_deleted_is_in_no_answer_and_leaves_no_trace_in_others(
    said: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    """Right after the deletion: in no channel, no walk, no vector, no working memory; and the answers are
    those of a store that never had it."""
    items = conversation(said)
    gone = data.draw(st.sampled_from(items)).id
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        with opened(Path(one)) as (store, retriever):
            add(store, items)
            places = tuple(WorkingEntry(each.id, 1.0, "test", NOW) for each in items)
            store.apply([ReplaceWorking("cube", places, None, reason="test")])
            answers(retriever)  # so that every cache has it
            with store.read("cube") as view:
                (no,) = [no for no, facet in view.facets(range(1, 100)).items() if facet.id == gone]
            store.apply([SetStatus((gone,), ItemStatus.DELETED, "test")])
            left = answers(retriever)
            assert gone not in {hit for hits in left for hit, _, _ in hits}
            assert gone not in {entry.item_id for entry in store.working("cube").entries}
            with store.read("cube") as view:
                assert view.vectors([no]) == {} and view.facets([no]) == {} and view.items([no]) == []
            deep = retriever.search(RecallRequest(QUERIES[0], ("cube",), top_k=100, dedup="no"))
            assert gone not in {way.from_id for hit in deep.hits for way in hit.ways}
        with opened(Path(other)) as (store, retriever):
            rest = [each for each in items if each.id != gone]
            if rest:
                add(store, rest)
            assert answers(retriever) == left


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(
        st.text(min_size=1, max_size=80),
        st.text(alphabet="的了小黑喜欢吃鸡肉？🐔🍚 \u0301\u200d\ufe0f", min_size=1, max_size=60),
        st.builds(
            lambda text, times: text * times,
            st.sampled_from(["chicken ", "小黑", "🐔"]),
            st.integers(1, 4_000),
        ),
    ).filter(lambda text: bool(text.strip()) and len(text) <= 32_000)
)
def test_any_query_is_answered(query: str) -> None:
    """Any text: an answer whose parts add up, whose fits lie in [0, 1], best first, each memory once."""
    recall = _asked(query)
    scores = [hit.score for hit in recall.hits]
    assert all(one >= other - 1e-4 for one, other in pairwise(scores))
    assert len({hit.item.id for hit in recall.hits}) == len(recall.hits)
    for hit in recall.hits:
        assert 0.0 <= hit.relativity <= 1.0 and set(hit.parts) <= SCORING and hit.ways
        assert abs(sum(hit.parts.values()) - hit.score) < 1e-3


_SHARED: list[tuple[tempfile.TemporaryDirectory[str], SqliteStore, HybridRetriever]] = []


def _asked(query: str) -> Recall:
    """A search over one store for all examples: nothing of it changes."""
    if not _SHARED:
        folder = tempfile.TemporaryDirectory()
        embedder, clock = WordEmbedder(), ManualClock()
        store = SqliteStore(Path(folder.name) / "memory.db", clock=clock)
        store.bind_embedder(embedder.fingerprint, embedder.dim)
        add(store, conversation([(text, "Ann", place % 3) for place, text in enumerate(TEXTS) if text]))
        _SHARED.append((folder, store, HybridRetriever(store, embedder, clock=clock)))
    return _SHARED[0][2].search(RecallRequest(query, ("cube",), dedup="no"))


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=200))
def test_any_query_is_understood(text: str) -> None:
    """Understanding a query is total and the same every time."""
    now = NOW.astimezone()
    one, two = (understand(text, ("Ann", "Bob"), now=now) for _ in range(2))
    assert replace(one) == two
