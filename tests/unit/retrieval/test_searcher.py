"""The documented `retriever.search(…)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from memos.clock import utc
from memos.errors import InvalidInput, StoreUnavailable
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.sqlite import SqliteStore
from memos.memory.textual import TextualMemoryItem
from memos.models.base import Embedder
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.searcher import METHODS, Searcher
from memos.testing import ManualClock

Fill = Callable[[Sequence[MemoryItem]], None]
Make = Callable[..., MemoryItem]


@pytest.fixture
def searcher(store: SqliteStore, embedder: Embedder, clock: ManualClock) -> Searcher:
    return Searcher(HybridRetriever(store, embedder, clock=clock))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cube", [None, object()])
def test_every_documented_method_finds_by_the_cube_id(
    searcher: Searcher, fill: Fill, make_item: Make, method: str, cube: object
) -> None:
    """The cube is `mem_cube_id`'s whatever object is handed over, and items come in the documented form."""
    fill([make_item("a", "The dog is called Max"), make_item("b", "The dog is called Rex", cube_id="other")])
    found = searcher.search("name of the dog", "user", "cube", cube, 5, method, None)
    assert [type(one) for one in found] == [TextualMemoryItem]
    assert found[0].memory == "The dog is called Max"
    assert found[0].metadata.relativity is not None


def test_top_k_counts_over_all_kinds(searcher: Searcher, fill: Fill, make_item: Make) -> None:
    """Long-term and user memories together are at most top_k, not top_k each."""
    kinds = (MemoryKind.LONG_TERM, MemoryKind.USER)
    fill([make_item(f"{kind}{n}", f"Tea number {n} {kind}", kind=kind) for n in range(6) for kind in kinds])
    assert len(searcher.search("tea", "user", "cube", None, 4, METHODS[0])) == 4


def test_search_args_restrict_and_favour(
    searcher: Searcher, fill: Fill, make_item: Make, clock: ManualClock
) -> None:
    """Each honoured argument has its effect."""
    now = utc(clock.now())
    fill(
        [
            make_item("a", "Tea with lemon", session_id="s1", happened_at=now - timedelta(days=1)),
            make_item("b", "Lemon with tea", session_id="s2", kind=MemoryKind.USER, scenario="work"),
            make_item("c", "Steam engines", turn_id="t1"),
            make_item("d", "Tea with lemon", session_id="s3"),
        ]
    )

    def ids(query: str = "tea with lemon", **search_args: Any) -> list[str]:
        found = searcher.search(query, "user", "cube", None, 10, METHODS[0], search_args)
        return [one.id for one in found]

    assert ids(filter={"session_id": "s2"}) == ["b"]
    assert ids(filter={"memory": {"like": "steam%"}}) == ["c"]
    assert ids(memory_type="UserMemory") == ["b"]
    assert ids(memory_type=["UserMemory", "PreferenceMemory"]) == ["b"]
    assert "c" not in ids(exclude_turn_id="t1")
    assert "b" not in ids(exclude_ids=["b"])
    assert "c" not in ids(relativity=0.45)
    assert len({"a", "d"} & set(ids(dedup="no"))) == 2
    assert len({"a", "d"} & set(ids(dedup="sim"))) == 1
    assert ids(session_id="s3", dedup="no")[0] == "d"
    assert ids(scenario="work", memory_type="All")[0] == "b"
    assert (
        ids("tea with lemon today", reference_time=(now - timedelta(days=1)).isoformat(), dedup="no")[0]
        == "a"
    )


def test_documented_arguments_without_effect_are_accepted(
    searcher: Searcher, fill: Fill, make_item: Make
) -> None:
    """What documented programs pass does not fail."""
    fill([make_item("a", "The dog is called Max")])
    given = {
        "info": {"user_id": "user"},
        "chat_history": [],
        "source": "x",
        "user_name": "u",
        "internet_search": False,
    }
    assert searcher.search("dog", "user", "cube", None, 3, METHODS[0], given)[0].id == "a"


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"method": "magic"}, "'magic'.*tree_text_memory_search"),
        ({"query": ""}, "query"),
        ({"query": 3}, "query"),
        ({"mem_cube_id": ""}, "mem_cube_id"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": True}, "top_k"),
        ({"search_args": {"sesion_id": "x"}}, "'sesion_id'.*session_id"),
        ({"search_args": {"session_id": 3}}, "session_id"),
        ({"search_args": {"memory_type": "Dreams"}}, "'Dreams'"),
        ({"search_args": {"exclude_ids": "a"}}, "exclude_ids"),
        ({"search_args": {"relativity": "high"}}, "'high'"),
        ({"search_args": {"relativity": 2}}, "relativity"),
        ({"search_args": {"dedup": "all"}}, "'all'"),
        ({"search_args": {"reference_time": "some day"}}, "reference_time"),
        ({"search_args": {"filter": {"nothing": 1}}}, "'nothing'"),
    ],
)
def test_what_can_never_work_is_refused_by_name(
    searcher: Searcher, changed: dict[str, Any], names: str
) -> None:
    """InvalidInput names the argument, its value and the way out."""
    arguments = {"query": "dog", "user_id": "user", "mem_cube_id": "cube", "top_k": 3, **changed}
    with pytest.raises(InvalidInput, match=names):
        searcher.search(**arguments)


def test_an_error_of_the_store_is_raised(searcher: Searcher, store: SqliteStore) -> None:
    """Nothing is swallowed into an empty list."""
    store.close()
    with pytest.raises(StoreUnavailable):
        searcher.search("dog", "user", "cube")
