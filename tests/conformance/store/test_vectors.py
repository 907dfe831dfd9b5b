"""Vectors: bound to one model, exact in search, filled in later, forgotten together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from memos.errors import EmbedderMismatch, InvalidInput, ItemNotFound
from memos.memory.item import ItemStatus
from memos.memory.store import ItemFilter, MemoryStore, PutState, SetStatus, UpdateItem
from memos.models.base import Vectors


def cosines(store: MemoryStore, vector: Vectors, *, limit: int = 99) -> dict[str, float]:
    with store.read("cube") as view:
        hits = view.search_vector(vector, limit=limit)
        facets = view.facets(hits)
        return {facets[no].id: score for no, score in hits.items()}


def test_search_is_exact(store: MemoryStore, make: Any) -> None:
    """The best by cosine come first, with their cosine; items without a vector are not found."""
    random = np.random.default_rng(7)
    vectors = {f"i{n}": make.unit(*random.normal(size=4)) for n in range(300)}
    store.bind_embedder("m", 4)
    store.apply([make.add(item_id, vector=vector) for item_id, vector in vectors.items()])
    store.apply([make.add("none"), make.add("elsewhere", cube_id="other", vector=make.unit(1))])
    query = make.unit(1, -2, 3, 0.5)
    expected = {item_id: float(vector @ query) for item_id, vector in vectors.items()}
    best = sorted(expected, key=lambda item_id: -expected[item_id])[:10]
    hits = cosines(store, query, limit=10)
    assert list(hits) == best
    assert hits == pytest.approx({item_id: expected[item_id] for item_id in best}, abs=1e-6)
    assert cosines(store, query, limit=0) == {}
    with store.read("cube") as view:
        some = frozenset(list(view.search_vector(query, limit=300))[100:103])
        assert set(view.search_vector(query, limit=5, allowed=some)) == some


def test_vectors_are_read_by_number(store: MemoryStore, make: Any) -> None:
    """Live items of the cube give theirs as stored; without a vector, archived or elsewhere gives none."""
    store.bind_embedder("m", 4)
    stored = {"a": make.unit(1, 2, 3, 4), "b": make.unit(-1, 0.5), "old": make.unit(0, 1)}
    store.apply([make.add(item_id, vector=vector) for item_id, vector in stored.items()])
    store.apply([make.add("none"), make.add("elsewhere", cube_id="other", vector=make.unit(1))])
    with store.read("other") as view:
        (elsewhere,) = view.search_vector(make.unit(1), limit=1)
    with store.read("cube") as view:
        numbers = {facet.id: no for no, facet in view.facets(view.select(ItemFilter())).items()}
    store.apply([SetStatus(("old",), ItemStatus.ARCHIVED, "test")])
    with store.read("cube") as view:
        read = view.vectors([*numbers.values(), elsewhere, 10**9])
    assert set(read) == {numbers["a"], numbers["b"]}
    for item_id in ("a", "b"):
        assert read[numbers[item_id]].tolist() == pytest.approx(stored[item_id].tolist(), abs=1e-7)


def test_search_follows_every_change(store: MemoryStore, open_store: Any, make: Any) -> None:
    """Adds, changes, removals and returns show in the next search, in this store and in another one."""
    store.bind_embedder("m", 4)
    other = open_store()
    other.bind_embedder("m", 4)
    query = make.unit(1)

    def both() -> dict[str, float]:
        seen = cosines(store, query)
        assert cosines(other, query) == seen
        return {item_id: round(score, 3) for item_id, score in seen.items()}

    assert both() == {}
    store.apply([make.add("a", vector=make.unit(1))])
    assert both() == {"a": 1.0}
    other.apply([make.add("b", vector=make.unit(0, 1)), make.add("c")])
    assert both() == {"a": 1.0, "b": 0.0}
    store.put_vectors({"c": make.unit(-1)})
    assert both() == {"a": 1.0, "b": 0.0, "c": -1.0}
    (item,) = store.get(["a"])
    other.apply([UpdateItem(make.with_terms(replace(item, memory="new"), vector=make.unit(0, 0, 1)), 1, "r")])
    assert both() == {"a": 0.0, "b": 0.0, "c": -1.0}
    store.apply([SetStatus(("a",), ItemStatus.ARCHIVED, "r"), SetStatus(("b",), ItemStatus.DELETED, "r")])
    assert both() == {"c": -1.0}
    other.apply([SetStatus(("a",), ItemStatus.ACTIVATED, "r"), PutState("cube", "x", {})])
    assert both() == {"a": 0.0, "c": -1.0}
    other.apply([make.add(*[f"n{n}" for n in range(2_000)], vector=make.unit(0, 1))])
    assert len(cosines(store, query, limit=5_000)) == len(cosines(other, query, limit=5_000)) == 2_002


def test_the_model_is_bound_at_first_use(store: MemoryStore, open_store: Any, make: Any) -> None:
    """The first model is recorded; another one is refused, by name and way out, while there are vectors."""
    assert store.vector_fingerprint() is None
    with pytest.raises(InvalidInput, match="bind_embedder"):
        store.apply([make.add("a", vector=make.unit(1))])
    store.bind_embedder("first", 3)
    store.bind_embedder("m", 4)  # no vector yet: nothing is lost
    store.apply([make.add("a", vector=make.unit(1))])
    store.bind_embedder("m", 4)
    for fingerprint, dim in (("other", 4), ("m", 5)):
        with pytest.raises(EmbedderMismatch, match="memos reembed"):
            open_store().bind_embedder(fingerprint, dim)
    assert store.vector_fingerprint() == ("m", 4)
    with pytest.raises(InvalidInput):
        store.bind_embedder("", 4)


@pytest.mark.parametrize(
    "vector", [np.ones(3), np.ones((1, 4)), np.array([np.nan, 0, 0, 1]), np.array([np.inf, 0, 0, 0])]
)
def test_a_vector_of_the_wrong_form_is_refused(store: MemoryStore, make: Any, vector: Vectors) -> None:
    """A vector of another shape, or with a number that is none, is refused with the whole call."""
    store.bind_embedder("m", 4)
    with pytest.raises(InvalidInput, match="'a'"):
        store.apply([make.add("a", vector=vector)])
    store.apply([make.add("a")])
    with pytest.raises(InvalidInput, match="'a'"):
        store.put_vectors({"a": vector})
    assert store.seq("cube") == 1


def test_missing_vectors_are_found_and_filled(store: MemoryStore, make: Any) -> None:
    """Live items without a vector are listed oldest first until they have one; no journal row is written."""
    store.bind_embedder("m", 4)
    store.apply([make.add("a", "b", "c"), make.add("d", vector=make.unit(1)), make.add("e", "f")])
    store.apply([SetStatus(("b",), ItemStatus.ARCHIVED, "r"), SetStatus(("f",), ItemStatus.DELETED, "r")])
    assert [item.id for item in store.without_vector(limit=2)] == ["a", "c"]
    (rows, seq, version) = (store.journal(), store.seq("cube"), store.get(["a"])[0].version)
    store.put_vectors({"a": make.unit(1), "c": make.unit(0, 1), "f": make.unit(1)})
    assert store.journal() == rows
    assert store.seq("cube") == seq + 1
    assert store.get(["a"])[0].version == version
    assert [item.id for item in store.without_vector(limit=9)] == ["e"]
    assert set(cosines(store, make.unit(1))) == {"a", "c", "d"}
    with pytest.raises(ItemNotFound, match="'nope'"):
        store.put_vectors({"nope": make.unit(1)})
    store.put_vectors({})


def test_a_changed_text_loses_its_old_vector(store: MemoryStore, make: Any) -> None:
    """An update without a vector keeps the old one for the same text and drops it for another."""
    store.bind_embedder("m", 4)
    store.apply([make.add("a", "b", memory="same", vector=make.unit(1))])
    a, b = store.get(["a", "b"])
    store.apply([UpdateItem(make.with_terms(replace(a, tags=("x",))), None, "tagged")])
    store.apply([UpdateItem(make.with_terms(replace(b, memory="another")), None, "corrected")])
    assert set(cosines(store, make.unit(1))) == {"a"}
    assert [item.id for item in store.without_vector(limit=9)] == ["b"]


def test_dropping_vectors_binds_to_another_model(store: MemoryStore, open_store: Any, make: Any) -> None:
    """After a drop all live items wait for the new model's vectors, in every process."""
    store.bind_embedder("old", 4)
    other = open_store()
    other.bind_embedder("old", 4)
    store.apply([make.add("a", "b", vector=make.unit(1)), make.add("c", cube_id="none")])
    assert set(cosines(other, make.unit(1))) == {"a", "b"}
    seq = store.seq("cube")
    store.drop_vectors("new", 2)
    assert store.vector_fingerprint() == ("new", 2)
    assert (store.seq("cube"), store.seq("none")) == (seq + 1, 1)
    assert cosines(store, make.unit(1)[:2]) == {}
    assert [item.id for item in store.without_vector(limit=9)] == ["a", "b", "c"]
    store.put_vectors({"a": make.unit(1)[:2]})
    assert cosines(store, make.unit(1)[:2]) == pytest.approx({"a": 1.0})
    for stale in (
        lambda: cosines(other, make.unit(1)),
        lambda: other.put_vectors({"b": make.unit(1)}),
        lambda: other.apply([make.add("d", vector=make.unit(1))]),
    ):
        with pytest.raises(EmbedderMismatch, match="memos reembed"):
            stale()


def test_a_query_of_another_dimension_is_refused(store: MemoryStore, make: Any) -> None:
    """A query vector that cannot be compared raises, instead of giving some other ranking."""
    store.bind_embedder("m", 4)
    store.apply([make.add("a", vector=make.unit(1))])
    with store.read("cube") as view, pytest.raises(EmbedderMismatch):
        view.search_vector(np.ones(3, dtype=np.float32), limit=3)
