"""Items: written, changed, found and deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from memos.errors import InvalidInput, ItemGone, ItemNotFound, VersionConflict
from memos.memory.item import (
    Capacities,
    CubeSizes,
    ItemStatus,
    MemoryItem,
    MemoryKind,
    ReadState,
    Source,
    WorkingEntry,
)
from memos.memory.store import (
    AddItems,
    IndexedItem,
    ItemFilter,
    MemoryStore,
    PutState,
    ReplaceWorking,
    SetRead,
    SetStatus,
    TouchItems,
    UpdateItem,
)
from memos.testing import ManualClock

Any_ = Any


def ids(items: Any_) -> list[str]:
    return [item.id for item in items]


def test_an_item_comes_back_as_it_went_in(store: MemoryStore, make: Any_) -> None:
    """Every field of an item survives the store, times to the microsecond."""
    item = MemoryItem(
        id="a:/😀",
        cube_id="cube/ä:1",
        user_id="ann",
        memory="Ann's dog is called Rex. 狗 🐕 'quoted' \"twice\"\nsecond line",
        kind=MemoryKind.USER,
        status=ItemStatus.RESOLVING,
        version=7,
        raw=False,
        read=ReadState.DUE,
        key="the dog",
        background="said in passing",
        participants=("Ann", "Bob"),
        role="user",
        session_id="s1",
        scenario="pets",
        position=3,
        turn_id="t1",
        sources=(
            Source("chat", "user", "m1", "", "raw text", "", datetime(2024, 1, 1, tzinfo=UTC)),
            Source("document", name="file.pdf"),
        ),
        tags=("pet", "home"),
        links=("Rex",),
        confidence=0.25,
        created_at=datetime(1969, 7, 20, 20, 17, 40, 123456, tzinfo=UTC),
        updated_at=datetime(2024, 5, 1, 1, 2, 3, 4, tzinfo=UTC),
        happened_at=datetime(2023, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        valid_until=datetime(2030, 1, 1, tzinfo=UTC),
        use_count=5,
        used_at=datetime(2024, 4, 1, tzinfo=UTC),
        extra={"source": "import", "nested": {"n": [1, 2.5, None, True]}},
    )
    store.apply([AddItems((IndexedItem(item, {"dog": 1}),))])
    assert store.get([item.id]) == [replace(item, version=1)]


def test_times_of_other_zones_are_stored_as_utc(store: MemoryStore, make: Any_) -> None:
    """A time with an offset comes back as the same moment in UTC."""
    at = datetime(2024, 5, 1, 14, 0, tzinfo=timezone(timedelta(hours=9)))
    store.apply([make.add("a", happened_at=at)])
    (item,) = store.get(["a"])
    assert item.happened_at == at
    assert item.happened_at.tzinfo is UTC


def test_get_keeps_the_order_and_names_what_is_missing(store: MemoryStore, make: Any_) -> None:
    """`get` answers in the order asked for, repeats included, and raises for unknown ids."""
    store.apply([make.add("a", "b", "c")])
    assert ids(store.get(["c", "a", "c"])) == ["c", "a", "c"]
    assert store.get([]) == []
    with pytest.raises(ItemNotFound, match="'nope'"):
        store.get(["a", "nope"])


def test_many_items_at_once(store: MemoryStore, make: Any_) -> None:
    """Calls of thousands of items work like calls of one."""
    names = [f"i{n}" for n in range(2_345)]
    store.apply([make.add(*names)])
    assert ids(store.get(names)) == names
    store.apply([SetStatus(tuple(names[:1_100]), ItemStatus.ARCHIVED, "old")])
    assert store.sizes("cube") == CubeSizes(long_term=1_245, archived=1_100)


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"item_id": ""}, "item id"),
        ({"item_id": "x" * 600}, "item id"),
        ({"item_id": "a\x00b"}, "item id"),
        ({"item_id": "a", "user_id": " "}, "user_id"),
        ({"item_id": "a", "cube_id": ""}, "cube_id"),
        ({"item_id": "a", "memory": "   "}, "'a'"),
        ({"item_id": "a", "memory": "nul \x00"}, "NUL"),
        ({"item_id": "a", "memory": "lone \ud800"}, "surrogate"),
        ({"item_id": "a", "session_id": "lone \ud800"}, "surrogate"),
        ({"item_id": "a", "extra": {"when": object()}}, "JSON"),
        ({"item_id": "a", "extra": {"n": float("nan")}}, "JSON"),
        ({"item_id": "a", "extra": _nested(65)}, "nested"),
        ({"item_id": "a", "extra": _nested(100_000)}, "nested"),
        ({"item_id": "a", "position": 2**70}, "range"),
        ({"item_id": "a", "status": ItemStatus.DELETED}, "SetStatus"),
    ],
)
def test_an_item_that_cannot_be_is_refused_whole(
    store: MemoryStore, make: Any_, fields: dict[str, Any], named: str
) -> None:
    """A bad item raises InvalidInput that names the fault, and nothing of the call is kept."""
    good = make.indexed("good")
    given = dict(fields)  # the parameter serves every store
    bad = make.indexed(given.pop("item_id"), given.pop("memory", "text"), **given)
    with pytest.raises(InvalidInput, match=named):
        store.apply([AddItems((good, bad))], logs=[make.log()])
    assert store.find(ItemFilter()).total == 0
    assert store.journal() == []
    assert store.web_logs() == []
    assert store.cubes() == []


def test_an_id_is_given_once(store: MemoryStore, make: Any_) -> None:
    """An id that is there, comes twice in a call, or belonged to a deleted item is refused."""
    store.apply([make.add("a", "b")])
    store.apply([SetStatus(("b",), ItemStatus.DELETED, "gone")])
    for taken in (("a",), ("b",), ("c", "c")):
        with pytest.raises(InvalidInput, match="exists already"):
            store.apply([make.add(*taken)])
    assert store.find(ItemFilter()).total == 1


def test_changes_of_a_call_commit_together_or_not_at_all(store: MemoryStore, make: Any_) -> None:
    """When the last change of a call fails, the first ones leave no trace in any cube."""
    store.apply([make.add("a")])
    before = (store.seq("cube"), store.seq("other"), store.journal())
    with pytest.raises(ItemNotFound):
        store.apply(
            [
                make.add("b"),
                make.add("c", cube_id="other"),
                TouchItems(("a",), "used"),
                SetStatus(("missing",), ItemStatus.ARCHIVED, "x"),
            ],
            logs=[make.log()],
        )
    assert (store.seq("cube"), store.seq("other"), store.journal()) == before
    assert ids(store.find(ItemFilter()).items) == ["a"]
    assert store.web_logs() == []


def test_seq_rises_by_one_with_each_commit_to_the_cube(store: MemoryStore, make: Any_) -> None:
    """A call raises the seq of the cubes it touches by one each, however many changes it carries."""
    assert store.seq("cube") == 0
    first = store.apply([make.add("a"), make.add("b"), make.add("c", cube_id="other")])
    assert first.seqs == {"cube": 1, "other": 1}
    assert first.fresh and first.archived == () and first.followups == ()
    assert store.apply([TouchItems(("a", "b"), "used")]).seqs == {"cube": 2}
    assert store.apply([]).seqs == {}
    assert (store.seq("cube"), store.seq("other")) == (2, 1)


def test_update_replaces_item_and_version(store: MemoryStore, make: Any_, clock: ManualClock) -> None:
    """An update raises the version, stamps the time, and refuses a version that is not the stored one."""
    store.apply([make.add("a")])
    (stored,) = store.get(["a"])
    clock.advance(60)
    changed = make.with_terms(replace(stored, memory="another text", tags=("new",)))
    store.apply([UpdateItem(changed, stored.version, "corrected")])
    (now,) = store.get(["a"])
    assert (now.memory, now.tags, now.version) == ("another text", ("new",), 2)
    assert now.updated_at.timestamp() == clock.now()
    with pytest.raises(VersionConflict, match="version 2, not 1"):
        store.apply([UpdateItem(changed, 1, "late")])
    store.apply([UpdateItem(changed, None, "over whatever is there")])
    assert store.get(["a"])[0].version == 3


def test_update_refuses_what_is_not_an_edit(store: MemoryStore, make: Any_) -> None:
    """Unknown and deleted items, another cube and the status `deleted` are refused by an update."""
    store.apply([make.add("a", "b"), SetStatus(("b",), ItemStatus.DELETED, "gone")])
    with pytest.raises(ItemNotFound):
        store.apply([UpdateItem(make.indexed("x"), None, "r")])
    with pytest.raises(ItemGone):
        store.apply([UpdateItem(make.indexed("b"), None, "r")])
    with pytest.raises(InvalidInput, match="'other'"):
        store.apply([UpdateItem(make.indexed("a", cube_id="other"), None, "r")])
    with pytest.raises(InvalidInput, match="SetStatus"):
        store.apply([UpdateItem(make.indexed("a", status=ItemStatus.DELETED), None, "r")])


def test_deleting_leaves_a_tombstone_without_text(store: MemoryStore, make: Any_) -> None:
    """A deleted item answers ItemGone, keeps nothing it said, and cannot come back."""
    secret = "the code word is zq0x1"
    store.apply(
        [
            make.add(
                "a",
                memory=secret,
                key="zq0x1",
                background="zq0x1",
                tags=("zq0x1",),
                links=("zq0x1",),
                participants=("zq0x1",),
                sources=(Source("chat", content=secret),),
                extra={"zq0x1": 1},
            )
        ]
    )
    store.apply([SetStatus(("a",), ItemStatus.DELETED, "asked to")])
    with pytest.raises(ItemGone, match="'a'"):
        store.get(["a"])
    with store.read("cube") as view:
        assert view.size == 0
        assert view.participants() == frozenset()
        assert view.search_text({"zq0x1": 1.0}, limit=5) == {}
        assert view.search_links(["zq0x1"], limit=5) == {}
    (tombstone,) = store.find(ItemFilter(statuses=(ItemStatus.DELETED,))).items
    assert "zq0x1" not in repr(tombstone)
    assert (tombstone.id, tombstone.user_id, tombstone.cube_id) == ("a", "ann", "cube")
    store.apply([SetStatus(("a",), ItemStatus.DELETED, "again")])  # a no-op
    for change in (
        SetStatus(("a",), ItemStatus.ACTIVATED, "back"),
        SetStatus(("a",), ItemStatus.ARCHIVED, "back"),
    ):
        with pytest.raises(ItemGone):
            store.apply([change])


def test_a_status_that_is_there_already_changes_nothing(store: MemoryStore, make: Any_) -> None:
    """Setting the status an item has raises neither version nor seq and writes no journal row."""
    store.apply([make.add("a"), SetStatus(("a",), ItemStatus.ARCHIVED, "old")])
    before = (store.seq("cube"), store.get(["a"]), store.journal())
    assert store.apply([SetStatus(("a",), ItemStatus.ARCHIVED, "again")]).seqs == {}
    assert (store.seq("cube"), store.get(["a"]), store.journal()) == before


def test_unknown_ids_are_refused_by_every_change(store: MemoryStore) -> None:
    """SetStatus, SetRead and TouchItems name the id that was never stored."""
    for change in (
        SetStatus(("nope",), ItemStatus.ARCHIVED, "r"),
        SetRead(("nope",), ReadState.DONE, "r"),
        TouchItems(("nope",), "r"),
    ):
        with pytest.raises(ItemNotFound, match="'nope'"):
            store.apply([change])


def test_touching_counts_uses(store: MemoryStore, make: Any_, clock: ManualClock) -> None:
    """A touch adds its weight once per item, sets the time of use, and passes over deleted items."""
    store.apply([make.add("a", "b"), SetStatus(("b",), ItemStatus.DELETED, "gone")])
    clock.advance(5)
    store.apply([TouchItems(("a", "b", "a"), "quoted", weight=3)])
    (item,) = store.get(["a"])
    assert item.use_count == 3
    assert item.used_at is not None and item.used_at.timestamp() == clock.now()


def test_read_states_move(store: MemoryStore, make: Any_) -> None:
    """Raw items move between none, due and done, and can be found by it."""
    store.apply([make.add("a", "b", read=ReadState.DUE), make.add("c")])
    assert ids(store.find(ItemFilter(read=(ReadState.DUE,))).items) == ["b", "a"]
    store.apply([SetRead(("a",), ReadState.DONE, "read")])
    assert ids(store.find(ItemFilter(read=(ReadState.DUE,))).items) == ["b"]
    assert store.get(["a"])[0].read is ReadState.DONE


def test_state_is_kept_per_cube_and_name(store: MemoryStore, open_store: Any_) -> None:
    """`PutState` replaces one named value of a cube, for every reader of the data."""
    assert store.state("cube", "window") is None
    store.apply([PutState("cube", "window", {"queries": ["a", "ä"]}), PutState("cube", "count", {"n": 1})])
    store.apply([PutState("cube", "window", {"queries": []})])
    assert open_store().state("cube", "window") == {"queries": []}
    assert store.state("cube", "count") == {"n": 1}
    assert store.state("other", "count") is None
    with pytest.raises(InvalidInput, match="'bad'"):
        store.apply([PutState("cube", "bad", {"x": object()})])


def test_find_filters(store: MemoryStore, make: Any_) -> None:
    """Each condition selects by itself, and all of them together."""
    day = datetime(2024, 6, 1, tzinfo=UTC)
    store.apply(
        [
            make.add("a", user_id="ann", session_id="s1", participants=("Ann",), tags=("x", "y")),
            make.add("b", user_id="bob", session_id="s2", participants=("Ann", "Bob"), tags=("y",)),
            make.add("c", kind=MemoryKind.USER, scenario="work", raw=False, happened_at=day),
            make.add("d", cube_id="other", created_at=day),
            make.add("e", status=ItemStatus.QUARANTINED, tags=("x",)),
        ]
    )

    def found(**conditions: Any) -> set[str]:
        page = store.find(ItemFilter(**conditions))
        assert page.total == len(page.items)
        return set(ids(page.items))

    assert found() == {"a", "b", "c", "d"}
    assert found(cube_ids=("cube",)) == {"a", "b", "c"}
    assert found(cube_ids=("cube", "other")) == {"a", "b", "c", "d"}
    assert found(cube_ids=("nowhere",)) == set()
    assert found(user_ids=("bob",)) == {"b"}
    assert found(kinds=(MemoryKind.USER,)) == {"c"}
    assert found(statuses=(ItemStatus.QUARANTINED,)) == {"e"}
    assert found(statuses=(ItemStatus.QUARANTINED, ItemStatus.ACTIVATED), tags=("x",)) == {"a", "e"}
    assert found(ids=("a", "d", "nope")) == {"a", "d"}
    assert found(session_ids=("s1", "s2")) == {"a", "b"}
    assert found(scenarios=("work",)) == {"c"}
    assert found(participants=("Bob",)) == {"b"}
    assert found(participants=("Bob", "Ann")) == {"a", "b"}
    assert found(tags=("y",)) == {"a", "b"}
    assert found(raw=False) == {"c"}
    assert found(raw=True, user_ids=("ann",), cube_ids=("cube",)) == {"a"}
    assert found(content_hashes=(make.item("z", "A").content_hash,)) == {"a"}
    assert found(happened_from=day) == {"c"}
    assert found(happened_to=day) == set()
    assert found(happened_to=day + timedelta(microseconds=1)) == {"c"}
    assert found(created_from=day) == {"d"}
    assert found(created_to=day) == {"a", "b", "c"}


def test_pages_go_on_without_gap_or_repeat(store: MemoryStore, make: Any_) -> None:
    """Pages are newest first and seamless, although items share a time and others come in meanwhile."""
    at = datetime(2024, 1, 1, tzinfo=UTC)
    store.apply([make.add(*[f"same{n}" for n in range(7)], created_at=at), make.add("new1", "new2")])
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        page = store.find(ItemFilter(), limit=2, cursor=cursor)
        seen += ids(page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
        store.apply([make.add(f"later{len(seen)}", created_at=at + timedelta(days=900))])
    assert seen == ["new2", "new1", *[f"same{n}" for n in reversed(range(7))]]
    for bad in ("rubbish", "1", "1:x"):
        with pytest.raises(InvalidInput, match="cursor"):
            store.find(ItemFilter(), cursor=bad)
    with pytest.raises(InvalidInput, match="limit"):
        store.find(ItemFilter(), limit=0)


def test_cubes_of_a_user_are_those_with_live_items(store: MemoryStore, make: Any_) -> None:
    """`cubes` lists all cubes, or those where the user has live items."""
    store.apply([make.add("a", cube_id="one"), make.add("b", cube_id="two", user_id="bob")])
    assert store.cubes() == ["one", "two"]
    assert store.cubes("ann") == ["one"]
    store.apply([SetStatus(("a",), ItemStatus.ARCHIVED, "old")])
    assert store.cubes("ann") == []
    assert store.cubes() == ["one", "two"]


def test_sizes_count_live_items_by_kind(store: MemoryStore, make: Any_) -> None:
    """Sizes follow every change of kind and status."""
    store.apply(
        [
            make.add("a", "b"),
            make.add("c", kind=MemoryKind.USER),
            make.add("d", kind=MemoryKind.PREFERENCE),
            make.add("e", kind=MemoryKind.WORKING),
            make.add("f", status=ItemStatus.ARCHIVED),
            make.add("g", status=ItemStatus.QUARANTINED),
            ReplaceWorking("cube", (WorkingEntry("a"), WorkingEntry("e")), None, "r"),
        ]
    )
    assert store.sizes("cube") == CubeSizes(long_term=2, user=1, preference=1, working=2, archived=1)
    (item,) = store.get(["a"])
    store.apply([UpdateItem(make.with_terms(replace(item, kind=MemoryKind.USER)), None, "a fact")])
    store.apply(
        [SetStatus(("f",), ItemStatus.ACTIVATED, "back"), SetStatus(("d",), ItemStatus.DELETED, "no")]
    )
    assert store.sizes("cube") == CubeSizes(long_term=2, user=2, preference=0, working=2, archived=0)
    assert store.sizes("nowhere") == CubeSizes()


def test_over_capacity_the_least_valuable_are_archived(open_store: Any_, make: Any_) -> None:
    """Over capacity go first the least used, of those the oldest; items in working memory last."""
    store = open_store(capacities=Capacities(long_term=4, user=1, preference=1, working=2))
    store.apply([make.add("a", "b", "c", "d")])
    store.apply(
        [
            TouchItems(("b",), "used"),
            ReplaceWorking("cube", (WorkingEntry("a"),), None, "r"),
        ]
    )
    # a: in working memory; b: used; c and d: neither, c the older one.
    assert store.apply([make.add("e")]).archived == ("c",)
    assert store.apply([make.add("f")]).archived == ("d",)
    assert store.apply([make.add("u1", kind=MemoryKind.USER)]).archived == ()
    assert store.apply([make.add("u2", kind=MemoryKind.USER)]).archived == ("u1",)
    assert store.sizes("cube") == CubeSizes(long_term=4, user=1, working=1, archived=3)
    (row,) = store.journal(item_id="c", limit=1)
    assert (row.op, row.reason) == ("archive", "capacity")
    assert store.get(["c"])[0].status is ItemStatus.ARCHIVED
    assert store.verify() == []


def test_a_full_cube_still_takes_new_items(open_store: Any_, make: Any_) -> None:
    """What a call adds is spared while older items can go; a call larger than the cube keeps its newest."""
    store = open_store(capacities=Capacities(long_term=3, working=3))
    store.apply([make.add("a", "b", "c"), TouchItems(("a", "b", "c"), "used")])
    assert store.apply([make.add("new", created_at=datetime(1999, 1, 1, tzinfo=UTC))]).archived == ("a",)
    result = store.apply([make.add("n1", "n2", "n3", "n4")])
    assert set(result.archived) == {"new", "b", "c", "n1"}
    store.apply([ReplaceWorking("cube", tuple(map(WorkingEntry, ("n2", "n3", "n4"))), None, "r")])
    assert store.apply([make.add("m1", "m2", "m3", "m4")]).archived == ("m1", "m2", "m3", "m4")
    assert [entry.item_id for entry in store.working("cube").entries] == ["n2", "n3", "n4"]
    assert store.verify() == []


def test_restoring_into_a_full_cube_archives_another(open_store: Any_, make: Any_) -> None:
    """Capacity holds after every change, not only after adding."""
    store = open_store(capacities=Capacities(long_term=2))
    store.apply([make.add("a", "b", "c")])
    store.apply([TouchItems(("a",), "wanted again"), SetStatus(("a",), ItemStatus.ACTIVATED, "back")])
    assert store.sizes("cube").long_term == 2
    assert store.get(["a"])[0].live
    assert store.verify() == []
