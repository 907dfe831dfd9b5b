"""What recall reads: the channels of a view, facets, neighbours, and the snapshot they share."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from memos.memory.item import ItemStatus, MemoryKind, Source, WorkingEntry
from memos.memory.store import (
    AddItems,
    Facet,
    IndexedItem,
    ItemFilter,
    MemoryStore,
    ReadView,
    ReplaceWorking,
    SetStatus,
    TouchItems,
    UpdateItem,
)


def numbers(view: ReadView) -> dict[str, int]:
    """id -> number of all live items."""
    return {facet.id: no for no, facet in view.facets(view.select(ItemFilter())).items()}


def found(view: ReadView, hits: dict[int, float]) -> list[str]:
    facets = view.facets(hits)
    return [facets[no].id for no in hits]


def test_a_cube_that_does_not_exist_reads_as_empty(store: MemoryStore, make: Any) -> None:
    """Every question to a cube that was never written has an empty answer."""
    with store.read("nowhere") as view:
        assert (view.cube_id, view.seq, view.size) == ("nowhere", 0, 0)
        assert view.search_text({"a": 1.0}, limit=5) == {}
        assert view.search_vector(make.unit(1), limit=5) == {}
        assert view.vectors([1]) == {}
        assert view.search_links(["a"], limit=5) == {}
        assert view.select(ItemFilter()) == frozenset()
        assert view.facets([1, 2]) == {}
        assert view.items([1]) == []
        assert view.texts([1]) == {}
        assert view.neighbours([1]) == {}
        assert view.participants() == frozenset()
        assert view.rarity(["a"]) == {"a": pytest.approx(math.log(2))}
        assert view.working().entries == ()
    assert store.cubes() == []


def test_text_scores_are_bm25(store: MemoryStore, make: Any) -> None:
    """Scores are those of the formula, computed here by hand over the live items of the cube."""
    texts = {
        "a": "dog dog cat",
        "b": "dog bird",
        "c": "fish fish fish fish bird",
        "d": "cat",
    }
    store.apply([make.add(item_id, memory=text) for item_id, text in texts.items()])
    store.apply([make.add("other", cube_id="other", memory="dog dog dog")])
    store.apply([make.add("dead", memory="dog cat"), SetStatus(("dead",), ItemStatus.ARCHIVED, "old")])
    weights = {"dog": 1.0, "cat": 0.5, "missing": 1.0, "fish": 0.0}
    mean = sum(len(text.split()) for text in texts.values()) / len(texts)

    def rarity(term: str) -> float:
        bearing = sum(term in text.split() for text in texts.values())
        return math.log(1 + (len(texts) - bearing + 0.5) / (bearing + 0.5))

    def score(text: str) -> float:
        words = text.split()
        length_part = 0.6 * (1 - 0.2 + 0.2 * len(words) / mean)
        return sum(
            weight * rarity(term) * words.count(term) / (words.count(term) + length_part)
            for term, weight in weights.items()
        )

    expected = {item_id: score(text) for item_id, text in texts.items() if score(text) > 0}
    with store.read("cube") as view:
        hits = view.search_text(weights, limit=10)
        facets = view.facets(hits)
        assert {facets[no].id: value for no, value in hits.items()} == pytest.approx(expected)
        assert found(view, hits) == sorted(expected, key=lambda item_id: -expected[item_id])
        assert view.rarity(["dog", "missing"]) == pytest.approx(
            {"dog": rarity("dog"), "missing": rarity("missing")}
        )
        assert found(view, view.search_text(weights, limit=1)) == ["a"]
        assert view.search_text(weights, limit=0) == {}
        allowed = frozenset({numbers(view)["d"], 10**9})
        assert found(view, view.search_text(weights, limit=5, allowed=allowed)) == ["d"]
        assert view.search_text(weights, limit=5, allowed=frozenset()) == {}


def test_equal_scores_come_newest_first(store: MemoryStore, make: Any) -> None:
    """Ties are broken the same way each time: the newer item first, also where the limit cuts."""
    store.apply([make.add(*[f"i{n}" for n in range(9)], memory="same words", links=("Rex",))])
    with store.read("cube") as view:
        assert found(view, view.search_text({"same": 1.0}, limit=3)) == ["i8", "i7", "i6"]
        assert found(view, view.search_links(["rex"], limit=2)) == ["i8", "i7"]


def test_links_count_by_their_rarity(store: MemoryStore, make: Any) -> None:
    """A rare entity counts more than a common one, in any spelling of case and width, each once."""
    store.apply(
        [
            make.add("a", links=("Rex", "rex", "ＲＥＸ")),
            make.add("b", "c", links=("New  York",)),
            make.add("d", links=("Rex", "New York")),
            make.add("e"),
        ]
    )

    def rarity(bearing: int) -> float:
        return math.log(1 + (5 - bearing + 0.5) / (bearing + 0.5))

    with store.read("cube") as view:
        hits = view.search_links(["REX", "rex", "new york", "nobody"], limit=10)
        facets = view.facets(hits)
        assert {facets[no].id: value for no, value in hits.items()} == pytest.approx(
            {"d": rarity(2) + rarity(3), "a": rarity(2), "b": rarity(3), "c": rarity(3)}
        )
        assert found(view, hits) == ["d", "a", "c", "b"]
        only = frozenset({numbers(view)["b"]})
        assert found(view, view.search_links(["New York"], limit=10, allowed=only)) == ["b"]


def test_neighbours_are_those_beside_an_item_in_its_session(store: MemoryStore, make: Any) -> None:
    """Places count among live items of the session by position; nearest first, the one before first."""
    store.apply([make.add(f"s{n}", session_id="s", position=n * 10) for n in (3, 1, 0, 2, 4)])
    store.apply([make.add("t0", session_id="t", position=10), make.add("alone"), make.add("alone2")])
    with store.read("cube") as view:
        no = numbers(view)
        name = {number: item_id for item_id, number in no.items()}

        def around(item_id: str, distance: int = 1) -> list[str]:
            return [name[n] for n in view.neighbours([no[item_id]], distance=distance)[no[item_id]]]

        assert around("s2") == ["s1", "s3"]
        assert around("s2", 2) == ["s1", "s3", "s0", "s4"]
        assert around("s0", 2) == ["s1", "s2"]
        assert around("s4") == ["s3"]
        assert around("t0", 5) == []
        assert around("alone") == []
        assert around("s2", 0) == []
        assert set(view.neighbours([no["s1"], no["t0"], 10**9])) == {no["s1"], no["t0"]}
    store.apply([SetStatus(("s1",), ItemStatus.ARCHIVED, "old")])
    with store.read("cube") as view:
        name = {number: item_id for item_id, number in numbers(view).items()}
        (near,) = view.neighbours([numbers(view)["s2"]]).values()
        assert [name[n] for n in near] == ["s0", "s3"]


def test_facets_say_what_the_item_says(store: MemoryStore, make: Any) -> None:
    """A facet is the item's, and follows every change of it."""
    at = datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    store.apply(
        [
            make.add(
                "a",
                memory="Some Text",
                kind=MemoryKind.USER,
                session_id="s",
                scenario="work",
                position=7,
                participants=("Ann", "Bob"),
                links=("Rex",),
                happened_at=at,
                created_at=at,
                turn_id="t",
                raw=False,
                sources=(
                    Source("chat", message_id="m1"),
                    Source("item", item_id="i1", message_id="m2"),
                    Source("document", name="f.txt"),
                ),
            ),
            make.add("b"),
        ]
    )
    (item,) = store.get(["a"])
    with store.read("cube") as view:
        no = numbers(view)["a"]
        assert view.facets([no, 10**9]) == {
            no: Facet(
                no=no,
                id="a",
                kind=MemoryKind.USER,
                session_id="s",
                scenario="work",
                position=7,
                participants=("Ann", "Bob"),
                links=("Rex",),
                happened_at=at,
                created_at=at,
                content_hash=item.content_hash,
                turn_id="t",
                raw=False,
                source_keys=("m1", "i1", "f.txt"),
                use_count=0,
            )
        }
        assert view.items([no, 10**9, no]) == [item, item]
    store.apply([TouchItems(("a",), "used")])
    with store.read("cube") as view:
        assert view.facets([no])[no].use_count == 1
    store.apply([SetStatus(("a",), ItemStatus.ARCHIVED, "old")])
    with store.read("cube") as view:
        assert view.facets([no]) == {}
        assert view.items([no]) == []


def test_selection_keeps_to_live_items_of_the_cube(store: MemoryStore, make: Any) -> None:
    """`select` answers for its own cube only, and never names an item that is not live."""
    store.apply(
        [
            make.add("a", tags=("x",), participants=("Ann",)),
            make.add("b"),
            make.add("c", cube_id="other", tags=("x",)),
            make.add("d", tags=("x",), status=ItemStatus.ARCHIVED),
        ]
    )
    with store.read("cube") as view:

        def selected(**conditions: Any) -> set[str]:
            return {facet.id for facet in view.facets(view.select(ItemFilter(**conditions))).values()}

        assert selected() == {"a", "b"}
        assert selected(tags=("x",)) == {"a"}
        assert selected(participants=("Ann",), cube_ids=("cube",)) == {"a"}
        assert selected(cube_ids=("other",)) == set()
        assert selected(statuses=(ItemStatus.ARCHIVED,)) == set()
        assert selected(statuses=(ItemStatus.ARCHIVED, ItemStatus.ACTIVATED)) == {"a", "b"}


def test_participants_are_those_of_live_items(store: MemoryStore, make: Any) -> None:
    """Names come as written, each once, and go with the last item that bears them."""
    store.apply(
        [
            make.add("a", participants=("Ann", "")),
            make.add("b", participants=("ann", "Ånn", "Ann")),
            make.add("c", participants=("Zoë",), cube_id="other"),
        ]
    )
    with store.read("cube") as view:
        assert view.participants() == {"Ann", "ann", "Ånn"}
    store.apply([SetStatus(("b",), ItemStatus.QUARANTINED, "r")])
    with store.read("cube") as view:
        assert view.participants() == {"Ann"}


@pytest.mark.parametrize("status", [ItemStatus.ARCHIVED, ItemStatus.QUARANTINED])
def test_out_of_every_index_and_back(store: MemoryStore, make: Any, status: ItemStatus) -> None:
    """An item that is not live is in no channel; activated again it is in all of them as before."""
    store.bind_embedder("m", 4)
    store.apply([make.add("a", memory="red dog", links=("Rex",), vector=make.unit(1), participants=("Ann",))])
    store.apply([make.add("b", memory="blue bird")])

    def channels() -> list[Any]:
        with store.read("cube") as view:
            return [
                view.search_text({"dog": 1.0}, limit=5),
                view.search_vector(make.unit(1), limit=5),
                view.search_links(["Rex"], limit=5),
                view.participants(),
                view.size,
            ]

    before = channels()
    assert all(before)
    store.apply([SetStatus(("a",), status, "r")])
    assert channels() == [{}, {}, {}, frozenset(), 1]
    store.apply([SetStatus(("a",), ItemStatus.ACTIVATED, "r")])
    assert channels() == before


def test_what_is_deleted_is_in_no_index_from_the_next_view_on(store: MemoryStore, make: Any) -> None:
    """Words, vectors, names, places, facets, texts and selections: a deleted item is in none of them."""
    store.bind_embedder("m", 4)
    fields = {"links": ("Rex",), "vector": make.unit(1), "participants": ("Ann",), "session_id": "s"}
    for place, item_id in enumerate("abc"):
        store.apply([make.add(item_id, memory="red dog", position=place, **fields)])
    store.apply([ReplaceWorking("cube", (WorkingEntry("b"),), None, reason="r")])
    with store.read("cube") as view:  # so that whatever is kept in memory has it
        no = numbers(view)
        for search in (view.search_text({"dog": 1.0}, limit=5), view.search_vector(make.unit(1), limit=5)):
            assert set(search) == set(no.values())
    store.apply([SetStatus(("b",), ItemStatus.DELETED, "r")])
    rest = {no["a"], no["c"]}
    with store.read("cube") as view:
        assert set(view.search_text({"dog": 1.0}, limit=5)) == rest
        assert set(view.search_vector(make.unit(1), limit=5)) == rest
        assert set(view.search_links(["rex"], limit=5)) == rest
        assert view.neighbours([no["a"]], distance=2) == {no["a"]: (no["c"],)}
        assert view.select(ItemFilter()) == rest
        assert set(view.facets(no.values())) == set(view.texts([*no.values()])) == rest
        assert [item.id for item in view.items([*no.values()])] == ["a", "c"]
        assert set(view.vectors([*no.values()])) == rest
        assert view.working().entries == () and view.size == 2


def test_texts_are_those_of_the_live_items(store: MemoryStore, make: Any) -> None:
    """The bare text by number, as the item has it; what is not live or not of the cube has none."""
    store.apply([make.add("a", memory="red dog\n ünïcode 狗"), make.add("b", memory="blue bird")])
    store.apply([make.add("z", cube_id="other", memory="elsewhere")])
    with store.read("cube") as view:
        no = numbers(view)
        assert view.texts([no["b"], no["a"], 999_999]) == {
            no["a"]: "red dog\n ünïcode 狗",
            no["b"]: "blue bird",
        }
        assert view.texts([]) == {}
    store.apply([SetStatus(("a",), ItemStatus.ARCHIVED, "r")])
    with store.read("cube") as view:
        assert view.texts([*no.values()]) == {no["b"]: "blue bird"}
    with store.read("other") as view:
        assert view.texts([*no.values()]) == {}


def test_an_update_moves_every_index(store: MemoryStore, make: Any) -> None:
    """After an update the item is found by what it says now and no longer by what it said."""
    store.bind_embedder("m", 4)
    store.apply([make.add("a", memory="red dog", links=("Rex",), vector=make.unit(1))])
    (item,) = store.get(["a"])
    changed = replace(item, memory="blue bird", links=("Tweety",))
    store.apply([UpdateItem(make.with_terms(changed, vector=make.unit(0, 1)), 1, "corrected")])
    with store.read("cube") as view:
        assert view.search_text({"dog": 1.0}, limit=5) == {}
        assert view.search_links(["Rex"], limit=5) == {}
        assert len(view.search_text({"bird": 1.0}, limit=5)) == 1
        assert len(view.search_links(["tweety"], limit=5)) == 1
        (cosine,) = view.search_vector(make.unit(0, 1), limit=5).values()
        assert cosine == pytest.approx(1.0)


def test_a_view_is_one_snapshot(store: MemoryStore, open_store: Any, make: Any) -> None:
    """What is committed while a view is open, here or in another process, is not in the view."""
    store.bind_embedder("m", 4)
    store.apply(
        [make.add("a", "b", memory="dog", links=("Rex",), vector=make.unit(1), participants=("Ann",))]
    )
    store.apply([ReplaceWorking("cube", (WorkingEntry("a"),), 0, "r")])
    other = open_store()
    other.bind_embedder("m", 4)

    def everything(view: ReadView) -> list[Any]:
        return [
            view.seq,
            view.size,
            view.search_text({"dog": 1.0, "bird": 1.0}, limit=9),
            view.search_vector(make.unit(1), limit=9),
            view.search_links(["Rex"], limit=9),
            view.facets(range(1, 9)),
            view.items(range(1, 9)),
            view.participants(),
            view.select(ItemFilter()),
            view.rarity(["dog"]),
            view.working(),
        ]

    with store.read("cube") as untouched, store.read("cube") as view:
        before = everything(view)
        for writer in (store, other):
            writer.apply([make.add(f"new-{id(writer)}", memory="dog bird", vector=make.unit(1, 1))])
            writer.apply([TouchItems(("b",), "used")])
        other.apply([SetStatus(("a",), ItemStatus.DELETED, "gone")])
        with store.read("cube") as newer:  # brings the caches on
            assert newer.size == 3
            assert everything(newer) != before
        assert everything(view) == before
        assert everything(untouched) == before


def test_readers_and_writers_run_together(store: MemoryStore, make: Any) -> None:
    """While one thread adds pairs of items, every view sees whole pairs, in all channels alike."""
    store.bind_embedder("m", 4)
    faults: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            with store.read("cube") as view:
                texts = len(view.search_text({"pair": 1.0}, limit=999))
                vectors = len(view.search_vector(make.unit(1), limit=999))
                facets = len(view.facets(view.select(ItemFilter())))
                if not (texts == vectors == facets == view.size) or view.size % 2:
                    faults.append(f"{texts} {vectors} {facets} {view.size}")

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(60):
        store.apply([make.add(f"a{n}", f"b{n}", memory="pair", vector=make.unit(1, n))])
        if n % 5 == 4:
            store.apply([SetStatus((f"a{n - 1}", f"b{n - 1}"), ItemStatus.ARCHIVED, "old")])
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []


def test_an_item_without_terms_is_found_otherwise(store: MemoryStore, make: Any) -> None:
    """Texts without a single term (only stop words) are stored and read like others."""
    store.apply([AddItems((IndexedItem(make.item("a", "to be or not to be"), {}),))])
    with store.read("cube") as view:
        assert view.size == 1
        assert view.search_text({"be": 1.0}, limit=5) == {}
        assert list(numbers(view)) == ["a"]
