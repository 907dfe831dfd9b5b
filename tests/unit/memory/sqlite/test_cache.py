"""The recall cache: bounded, shared, and exact for views of any age."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np
import pytest

from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.relational import vector_states
from memos.memory.relational.cache import CUBE_BYTES, STATES_KEPT
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems, IndexedItem, ItemFilter, ReadView, SetStatus, TouchItems, UpdateItem
from memos.testing import ManualClock

DIM = 8
AT = datetime(2024, 1, 1, tzinfo=UTC)


def added(*ids: str, cube_id: str = "c") -> AddItems:
    return AddItems(
        tuple(
            IndexedItem(
                MemoryItem(
                    id=item_id, cube_id=cube_id, user_id="u", memory="t", created_at=AT, updated_at=AT
                ),
                {},
                one_hot(sum(map(ord, item_id))),
            )
            for item_id in ids
        )
    )


def one_hot(n: int) -> np.ndarray:
    vector = np.zeros(DIM, dtype=np.float32)
    vector[n % DIM] = 1
    return vector


def seen(view: ReadView) -> set[str]:
    """The ids that the vector channel finds; the facets and the file must agree on them."""
    hits = view.search_vector(one_hot(0), limit=9_999)
    by_facet = {facet.id for facet in view.facets(hits).values()}
    assert by_facet == {item.id for item in view.items(list(hits))}
    assert len(by_facet) == len(hits) == view.size
    return by_facet


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "m.db", clock=ManualClock(), vector_cache_bytes_max=60_000) as opened:
        opened.bind_embedder("m", DIM)
        yield opened


def test_the_bytes_of_all_cubes_are_bounded(store: SqliteStore) -> None:
    """Cubes used longest ago leave; each is read again when it is asked for, and answers the same."""
    for n in range(100):
        store.apply([added(*[f"{n}-{k}" for k in range(20)], cube_id=f"cube{n}")])
    for _ in range(2):
        for n in range(100):
            with store.read(f"cube{n}") as view:
                assert seen(view) == {f"{n}-{k}" for k in range(20)}
            assert store._cache.bytes <= 60_000
    assert store._cache.bytes > 30_000


def test_a_cube_larger_than_the_cache_is_searched_all_the_same(tmp_path: Path) -> None:
    """With no room at all every search reads the file and is right."""
    with SqliteStore(tmp_path / "m.db", clock=ManualClock(), vector_cache_bytes_max=0) as store:
        store.bind_embedder("m", DIM)
        store.apply([added("a", "b")])
        for _ in range(2):
            with store.read("c") as view:
                assert seen(view) == {"a", "b"}
        assert store._cache.bytes == 0


def test_empty_cubes_weigh_something(store: SqliteStore) -> None:
    """Cubes without any vector are bounded in number by what each is taken to weigh."""
    for n in range(80):
        store.apply([AddItems((IndexedItem(MemoryItem(f"{n}", f"cube{n}", "u", "t"), {}),))])
        with store.read(f"cube{n}") as view:
            assert view.search_vector(one_hot(0), limit=5) == {}
    assert len(store._cache._cubes) <= 60_000 // CUBE_BYTES


def test_views_of_any_age_stay_exact(store: SqliteStore) -> None:
    """A view that asks late, after many commits have moved the cache on, still sees its own moment."""
    live: set[str] = set()
    opened = []
    expected = []
    for n in range(3 * STATES_KEPT):
        store.apply([added(f"i{n}", f"j{n}")])
        live |= {f"i{n}", f"j{n}"}
        if n % 2:
            store.apply([SetStatus((f"i{n - 1}",), ItemStatus.ARCHIVED, "r"), TouchItems((f"j{n}",), "r")])
            live -= {f"i{n - 1}"}
        reading = store.read("c")
        opened.append((reading, reading.__enter__()))
        expected.append(set(live))
        with store.read("c") as view:
            assert seen(view) == live
    for (reading, view), ids in zip(opened, expected, strict=True):
        assert seen(view) == ids
        reading.__exit__(None, None, None)


def test_a_matrix_is_packed_when_much_of_it_is_masked(store: SqliteStore) -> None:
    """Replacing the same vectors again and again does not let the cache grow."""
    store.apply([added(*[f"i{n}" for n in range(100)])])
    sizes = set()
    for _ in range(60):
        store.put_vectors({f"i{n}": one_hot(n) for n in range(20)})
        with store.read("c") as view:
            assert len(view.search_vector(one_hot(0), limit=999)) == 100
        sizes.add(store._cache.bytes)
    assert max(sizes) < 4 * 300 * (DIM * 4 + 8)


def test_facets_of_one_cube_are_bounded(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the bound the cached facets are dropped and read again, with the same answer."""
    monkeypatch.setattr("memos.memory.relational.cache.FACETS_MAX", 10)
    store.apply([added(*[f"i{n}" for n in range(30)])])
    with store.read("c") as view:
        numbers = sorted(view.select(ItemFilter()))
        for start in range(0, 28, 4):
            assert len(view.facets(numbers[start : start + 4])) == 4
            assert len(store._cache._cubes[1].facets) <= 10
        assert len(view.facets(numbers)) == 30
        assert len(store._cache._cubes[1].facets) <= 10


@pytest.mark.parametrize("seed", range(6))
def test_a_warm_cache_answers_like_a_cold_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """After any history, views of a store that has cached along the way, old views included, give what a
    store gives that reads the file for the first time."""
    monkeypatch.setattr("memos.memory.relational.cache.LONG_POSTINGS_MIN", 1)
    monkeypatch.setattr("memos.memory.relational.cache.LISTS_MAX", 3)
    monkeypatch.setattr("memos.memory.relational.cache.CHANGES_MAX", 40)
    monkeypatch.setattr("memos.memory.relational.posting_lists.PATCHED_MAX", 5)
    random = Random(seed)
    path = tmp_path / "m.db"
    count = 0

    def change(store: SqliteStore) -> None:
        nonlocal count
        ids = (
            tuple({f"i{random.randrange(count)}" for _ in range(random.choice((1, 1, 3, 12)))})
            if count
            else ()
        )
        op = random.choice(("add", "archive", "restore", "touch", "update", "vectors")) if count else "add"
        if op == "add":
            words = [random.choices("abcde", k=3) for _ in range(random.choice((1, 2, 9)))]
            items = [spoken(f"i{count + n}", said) for n, said in enumerate(words)]
            count += len(items)
            store.apply([AddItems(tuple(items))])
        elif op == "update":
            store.apply([UpdateItem(spoken(ids[0], random.choices("abcde", k=2)), None, "r")])
        elif op == "vectors":
            store.put_vectors({item_id: one_hot(random.randrange(DIM)) for item_id in ids})
        elif op == "touch":
            store.apply([TouchItems(ids, "r")])
        else:
            status = ItemStatus.ARCHIVED if op == "archive" else ItemStatus.ACTIVATED
            store.apply([SetStatus(ids, status, "r")])

    def answers(view: ReadView) -> list[object]:
        return [
            view.seq,
            {term: view.search_text({term: 1.0}, limit=999) for term in "abcde"},
            view.search_text({"a": 1.0, "b": 0.5, "e": 2.0}, limit=7),
            view.rarity("abcdef"),
            view.search_vector(one_hot(0), limit=999),
            view.facets(range(1, count + 1)),
        ]

    with SqliteStore(path, clock=ManualClock()) as store:
        store.bind_embedder("m", DIM)
        for _ in range(30):
            change(store)
            with SqliteStore(path, clock=ManualClock()) as cold, cold.read("c") as view:
                expected = answers(view)
            with store.read("c") as asked_late:
                change(store)
                with store.read("c") as old, store.read("c") as again:
                    first = answers(old)
                    change(store)
                    with store.read("c") as new:
                        warm = answers(new)
                    assert answers(old) == first == answers(again)
                late = answers(asked_late)
            assert late == expected
            with SqliteStore(path, clock=ManualClock()) as cold, cold.read("c") as view:
                assert answers(view) == warm


def spoken(item_id: str, words: list[str]) -> IndexedItem:
    item = MemoryItem(
        id=item_id, cube_id="c", user_id="u", memory=" ".join(words), created_at=AT, updated_at=AT
    )
    return IndexedItem(item, {word: words.count(word) for word in words}, one_hot(len(item_id)))


def test_a_deleted_vector_is_found_by_nobody_in_quantised_rows(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warm or read anew, the matrix of int8 codes gives no deleted item, and the file holds its vector no more."""
    monkeypatch.setattr(vector_states, "QUANTISED_MIN", 4)
    store.apply([added(*(f"i{n}" for n in range(12)))])
    with store.read("c") as view:
        assert len(seen(view)) == 12
    assert [state.rows.quantised for state in store._cache._cubes[1].states] == [True]
    store.apply([SetStatus(("i3", "i7"), ItemStatus.DELETED, "test")])
    with store.read("c") as view:
        assert seen(view) == {f"i{n}" for n in range(12)} - {"i3", "i7"}
        [state] = store._cache._cubes[1].states[-1:]
        assert state.rows.quantised and len(state.cosines(one_hot(0))[0]) == 10
    with SqliteStore(store.path, clock=ManualClock()) as again, again.read("c") as view:
        assert seen(view) == {f"i{n}" for n in range(12)} - {"i3", "i7"}
        assert again._cache._cubes[1].states[-1].rows.used == 10
