"""pgvector's index: what it finds of what comparing with every vector finds, filtered and not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from memos.memory.item import ItemStatus
from memos.memory.postgres import PostgresStore
from memos.memory.store import AddItems, ReadView, SetStatus

from .items import indexed

DIM, COUNT = 48, 1_500
Open = Callable[..., PostgresStore]


def vectors(count: int, seed: int) -> np.ndarray:
    """Unit vectors in clusters, as sentences are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(40, DIM))
    made = centres[random.integers(0, 40, count)] + 0.6 * random.normal(size=(count, DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def recall(found: dict[int, float], exact: dict[int, float]) -> float:
    return len(found.keys() & exact.keys()) / len(exact)


def test_the_index_finds_what_is_nearest(opened: Open) -> None:
    """Over the threshold the index answers: at most one point of recall is lost, also among few allowed, and
    the scores are exact."""
    indexing, exact = opened(exact_max=50), opened(exact_max=10_000)
    for store in (indexing, exact):
        store.bind_embedder("m", DIM)
    rows = vectors(COUNT, 1)
    for cube_id, part in (("cube", rows), ("other", vectors(COUNT, 2))):
        items = tuple(indexed(f"{cube_id}{n}", cube_id=cube_id, vector=row) for n, row in enumerate(part))
        indexing.apply([AddItems(items)])
    indexing.apply([SetStatus(tuple(f"cube{n}" for n in range(0, COUNT, 5)), ItemStatus.ARCHIVED, "old")])
    assert indexing.describe()["vectors"].startswith("pgvector")
    queries = vectors(40, 3)
    allowed = frozenset(range(1, COUNT, 7))

    def compare(limit: int, among: frozenset[int] | None) -> float:
        shares = []
        with indexing.read("cube") as one, exact.read("cube") as two:
            for query in queries:
                found = one.search_vector(query, limit=limit, allowed=among)
                wanted = two.search_vector(query, limit=limit, allowed=among)
                shares.append(recall(found, wanted))
                for no in found.keys() & wanted.keys():
                    assert found[no] == pytest.approx(wanted[no], abs=1e-6)
        return float(np.mean(shares))

    assert compare(10, None) >= 0.99
    assert compare(50, None) >= 0.99
    assert compare(10, allowed) >= 0.99


def test_the_index_is_really_asked(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the threshold no search reads every vector; under it the index is not asked."""
    store = opened(exact_max=50)
    store.bind_embedder("m", DIM)
    small = tuple(indexed(f"s{n}", cube_id="small", vector=row) for n, row in enumerate(vectors(40, 1)))
    large = tuple(indexed(f"l{n}", cube_id="large", vector=row) for n, row in enumerate(vectors(300, 2)))
    store.apply([AddItems(small + large)])
    loaded: list[int] = []
    from memos.memory.postgres.recall import PostgresRecall

    every = PostgresRecall.vectors

    def counting(self: PostgresRecall, cube_no: int, *, after: int | None = None) -> list[tuple[int, bytes]]:
        loaded.append(cube_no)
        return every(self, cube_no, after=after)

    monkeypatch.setattr(PostgresRecall, "vectors", counting)

    def search(view: ReadView) -> int:
        return len(view.search_vector(vectors(1, 9)[0], limit=5))

    with store.read("large") as view:
        assert search(view) == 5
    assert loaded == []
    with store.read("small") as view:
        assert search(view) == 5
    assert len(loaded) == 1


def test_the_index_follows_the_model(opened: Open) -> None:
    """After `drop_vectors` the index is of the new dimension and holds the new vectors alone."""
    store = opened(exact_max=0)
    store.bind_embedder("old", DIM)
    store.apply([AddItems(tuple(indexed(f"i{n}", vector=row) for n, row in enumerate(vectors(30, 1))))])
    store.drop_vectors("new", 8)
    unit = np.eye(8, dtype=np.float32)
    store.put_vectors({f"i{n}": unit[n % 8] for n in range(30)})
    with store.read("cube") as view:
        assert len(view.search_vector(unit[0], limit=4)) == 4
        assert list(view.search_vector(unit[0], limit=4).values()) == pytest.approx([1.0] * 4, abs=1e-6)
    assert store.verify() == []
