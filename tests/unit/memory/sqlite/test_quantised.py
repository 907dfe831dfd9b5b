"""Vectors kept as bytes: the search gives what comparing with every stored vector gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.relational import vector_states
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems, IndexedItem, ItemFilter, SetStatus, UpdateItem
from memos.testing import ManualClock

DIM = 48
CUBE = "c"


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    monkeypatch.setattr(vector_states, "QUANTISED_MIN", 100)
    monkeypatch.setattr(vector_states, "BLOCK_ROWS", 64)
    monkeypatch.setattr(vector_states, "COMPARED_ROWS", 48)
    with SqliteStore(tmp_path / "m.db", clock=ManualClock()) as opened:
        opened.bind_embedder("m", DIM)
        yield opened


def units(chance: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors close to each other, so that many are near the last of the best."""
    rows = chance.standard_normal((1, DIM)) + 0.3 * chance.standard_normal((count, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def indexed(item_id: str, vector: np.ndarray) -> IndexedItem:
    return IndexedItem(MemoryItem(id=item_id, cube_id=CUBE, user_id="u", memory=item_id), {}, vector)


def search(
    store: SqliteStore, query: np.ndarray, *, limit: int, only: set[str] | None = None
) -> dict[str, float]:
    """id -> cosine, best first."""
    with store.read(CUBE) as view:
        ids = {no: facet.id for no, facet in view.facets(view.select(ItemFilter())).items()}
        allowed = None if only is None else frozenset(no for no, name in ids.items() if name in only)
        return {
            ids[no]: cosine for no, cosine in view.search_vector(query, limit=limit, allowed=allowed).items()
        }


def expected(held: dict[str, np.ndarray], query: np.ndarray, limit: int) -> list[str]:
    return sorted(held, key=lambda name: -float(held[name].astype(np.float64) @ query.astype(np.float64)))[
        :limit
    ]


def test_the_best_are_the_best_through_every_change(store: SqliteStore, chance: np.random.Generator) -> None:
    """While a cube grows past the limit, is edited and thinned out, ids, order and cosines are exact, and what
    is gone never comes back."""
    held: dict[str, np.ndarray] = {}
    for step in range(8):
        fresh = units(chance, 60)
        store.apply([AddItems(tuple(indexed(f"{step}-{n}", row) for n, row in enumerate(fresh)))])
        held |= {f"{step}-{n}": row for n, row in enumerate(fresh)}
        edited, gone = f"{step}-1", f"{step}-2"
        held[edited] = units(chance, 1)[0]
        store.apply([UpdateItem(indexed(edited, held[edited]), None, "edit")])
        store.apply([SetStatus((gone,), ItemStatus.DELETED, "test")])
        del held[gone]
        for query in units(chance, 5):
            found = search(store, query, limit=25)
            assert list(found) == expected(held, query, 25)
            assert all(found[name] == pytest.approx(float(held[name] @ query), abs=1e-6) for name in found)
            some = set(list(held)[::3])
            assert list(search(store, query, limit=10, only=some)) == expected(
                {name: held[name] for name in some}, query, 10
            )
    assert store._cache._cubes[1].states[-1].rows.quantised


def test_a_view_of_an_older_state_keeps_what_it_saw(store: SqliteStore, chance: np.random.Generator) -> None:
    """What is deleted or edited while a view is open is for that view as it was."""
    rows = units(chance, 150)
    store.apply([AddItems(tuple(indexed(f"i{n}", row) for n, row in enumerate(rows)))])
    query = rows[0]
    search(store, query, limit=5)
    with store.read(CUBE) as view:
        before = view.search_vector(query, limit=5)
        store.apply([SetStatus(("i0",), ItemStatus.DELETED, "test")])
        assert "i0" not in search(store, query, limit=5)
        assert view.search_vector(query, limit=5) == before


def test_bytes_are_a_quarter(store: SqliteStore, chance: np.random.Generator) -> None:
    """The matrix takes one byte a number, and a vector of zeros does no harm."""
    rows = units(chance, 400)
    rows[3] = 0.0
    store.apply([AddItems(tuple(indexed(f"i{n}", row) for n, row in enumerate(rows)))])
    search(store, rows[0], limit=5)
    kept = store._cache._cubes[1].states[-1].rows
    assert kept.codes.nbytes <= len(kept.nos) * DIM and kept.bytes < 400 * DIM * 4 / 2
