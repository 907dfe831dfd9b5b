"""Random histories: a store does what a small model in memory does, step by step."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from memos.errors import InvalidInput, ItemGone, ItemNotFound, MemosError, VersionConflict
from memos.memory.item import Capacities, ItemStatus, MemoryItem, MemoryKind, WorkingEntry
from memos.memory.store import (
    AddItems,
    Change,
    IndexedItem,
    ItemFilter,
    MemoryStore,
    ReplaceWorking,
    SetStatus,
    TouchItems,
    UpdateItem,
)

CAPACITIES = Capacities(long_term=4, user=2, preference=2, working=3)
WORDS = ("red", "blue", "dog", "bird")
CUBES = ("cube", "c2")
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)  # where the clock of the bench stands


@dataclass
class Cube:
    """What one cube of the model holds."""

    seq: int = 0
    working: list[str] = field(default_factory=list)
    working_version: int = 0


@dataclass
class Model:
    """The contract, spelled out on dicts. Items are kept in the order of their numbers."""

    items: dict[str, MemoryItem] = field(default_factory=dict)
    cubes: dict[str, Cube] = field(default_factory=dict)
    marks: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    fresh: set[str] = field(default_factory=set)

    def copy(self) -> Model:
        cubes = {name: replace(cube, working=list(cube.working)) for name, cube in self.cubes.items()}
        return Model(dict(self.items), cubes, set(self.marks))

    def apply(self, changes: tuple[Change, ...]) -> None:
        self.touched, self.fresh = set(), set()
        for change in changes:
            match change:
                case AddItems():
                    ids = [one.item.id for one in change.items]
                    if len(set(ids)) < len(ids) or set(ids) & self.items.keys():
                        raise InvalidInput("taken")
                    for one in change.items:
                        self._touch(one.item.cube_id)
                        self.items[one.item.id] = replace(one.item, version=1)
                        self.fresh.add(one.item.id)
                case UpdateItem():
                    new = change.indexed.item
                    old = self._find(new.id)
                    if old.status is ItemStatus.DELETED:
                        raise ItemGone("gone")
                    if new.cube_id != old.cube_id:
                        raise InvalidInput("moved")
                    if change.expected_version not in (None, old.version):
                        raise VersionConflict("stale")
                    self._put(old, new)
                case SetStatus():
                    for item_id in dict.fromkeys(change.item_ids):
                        self._find(item_id)
                    for item_id in dict.fromkeys(change.item_ids):
                        old = self.items[item_id]
                        if old.status is change.status:
                            continue
                        if old.status is ItemStatus.DELETED:
                            raise ItemGone("gone")
                        new = replace(old, status=change.status)
                        if change.status is ItemStatus.DELETED:
                            new = replace(new, memory="", use_count=0, used_at=None)
                        self._put(old, new)
                case TouchItems():
                    for item_id in dict.fromkeys(change.item_ids):
                        self._find(item_id)
                    for item_id in dict.fromkeys(change.item_ids):
                        old = self.items[item_id]
                        if old.status is not ItemStatus.DELETED:
                            count = old.use_count + change.weight
                            self._put(old, replace(old, use_count=count, used_at=NOW))
                case ReplaceWorking():
                    cube = self.cubes.get(change.cube_id, Cube())
                    if change.expected_version not in (None, cube.working_version):
                        raise VersionConflict("stale")
                    cube = self._touch(change.cube_id)
                    wanted = [entry.item_id for entry in change.entries]
                    cube.working = [
                        item_id
                        for item_id in dict.fromkeys(wanted)
                        if item_id in self.items
                        and self.items[item_id].live
                        and self.items[item_id].cube_id == change.cube_id
                    ][: CAPACITIES.working]
                    cube.working_version += 1
                    for item in list(self.items.values()):
                        stray = item.kind is MemoryKind.WORKING and item.id not in cube.working
                        if item.live and item.cube_id == change.cube_id and stray:
                            self._put(item, replace(item, kind=MemoryKind.LONG_TERM))
        for name in sorted(self.touched):
            self._archive(name)

    def _touch(self, cube_id: str) -> Cube:
        cube = self.cubes.setdefault(cube_id, Cube())
        if cube_id not in self.touched:
            self.touched.add(cube_id)
            cube.seq += 1
        return cube

    def _find(self, item_id: str) -> MemoryItem:
        if item_id not in self.items:
            raise ItemNotFound("unknown")
        return self.items[item_id]

    def _put(self, old: MemoryItem, new: MemoryItem) -> None:
        cube = self._touch(old.cube_id)
        if old.live and not new.live:
            cube.working = [item_id for item_id in cube.working if item_id != old.id]
            if new.kind is MemoryKind.WORKING:
                new = replace(new, kind=MemoryKind.LONG_TERM)
        self.items[old.id] = replace(new, version=old.version + 1)

    def _archive(self, cube_id: str) -> None:
        limits = {
            MemoryKind.LONG_TERM: CAPACITIES.long_term,
            MemoryKind.USER: CAPACITIES.user,
            MemoryKind.PREFERENCE: CAPACITIES.preference,
            MemoryKind.WORKING: 2 * CAPACITIES.working,
        }
        order = {item_id: place for place, item_id in enumerate(self.items)}
        for kind, capacity in limits.items():
            of_kind = [
                item
                for item in self.items.values()
                if item.live and item.kind is kind and item.cube_id == cube_id
            ]
            placed = self.cubes[cube_id].working
            of_kind.sort(
                key=lambda item: (
                    item.id in placed,
                    item.id in self.fresh,
                    item.use_count,
                    item.used_at or item.created_at,
                    order[item.id],
                )
            )
            for item in of_kind[: max(0, len(of_kind) - capacity)]:
                self._put(item, replace(item, status=ItemStatus.ARCHIVED))


def a_change(random: Random, model: Model, make: Any) -> Change:
    """Mostly a change that can be made now; now and then an id or a version that is wrong."""
    known = list(model.items)
    cube_id = random.choice(CUBES)

    def some_ids() -> tuple[str, ...]:
        return tuple(random.choices(known, k=random.randint(1, 3))) + (
            ("x",) if random.random() < 0.03 else ()
        )

    def indexed(item_id: str, cube_id: str) -> IndexedItem:
        words = random.choices(WORDS, k=random.randint(1, 4))
        kind = random.choice(list(MemoryKind))
        one: IndexedItem = make.indexed(
            item_id, " ".join(words), kind=kind, cube_id=cube_id, links=tuple(words), participants=(words[0],)
        )
        return one

    op = random.choice(("add", "add", "update", "status", "status", "touch", "working", "working"))
    if op == "add" or not known:
        first = len(known) - (random.random() < 0.05)  # now and then an id that is taken
        return AddItems(tuple(indexed(f"i{first + n}", cube_id) for n in range(random.randint(1, 4))))
    if op == "update":
        old = model.items[random.choice(known)]
        expected = random.choice((None, old.version, old.version, old.version - 1))
        return UpdateItem(indexed(old.id, old.cube_id), expected, "r")
    if op == "status":
        return SetStatus(some_ids(), random.choice(list(ItemStatus)), "r")
    if op == "touch":
        return TouchItems(some_ids(), "r", random.randint(1, 3))
    version = model.cubes.get(cube_id, Cube()).working_version
    entries = [
        WorkingEntry(item_id) for item_id in random.sample(known, k=min(len(known), random.randint(0, 8)))
    ]
    return ReplaceWorking(cube_id, tuple(entries), random.choice((None, version, version, version + 1)), "r")


def compare(store: MemoryStore, model: Model) -> None:
    """Everything that can be read of the store is what the model says."""
    assert store.cubes() == list(model.cubes)
    every = ItemFilter(statuses=tuple(ItemStatus))
    stored = {item.id: item for item in store.find(every).items}
    assert {
        item_id: (item.memory, item.kind, item.status, item.version, item.use_count, item.used_at)
        for item_id, item in stored.items()
    } == {
        item_id: (item.memory, item.kind, item.status, item.version, item.use_count, item.used_at)
        for item_id, item in model.items.items()
    }
    for name, cube in model.cubes.items():
        live = {item.id: item for item in model.items.values() if item.live and item.cube_id == name}
        with store.read(name) as view:
            assert (view.seq, view.size) == (cube.seq, len(live))
            working = view.working()
            assert working.version == cube.working_version
            assert [entry.item_id for entry in working.entries] == cube.working
            facets = view.facets(view.select(ItemFilter()))
            ids = {no: facet.id for no, facet in facets.items()}
            assert {one.id: (one.kind, one.content_hash, one.use_count) for one in facets.values()} == {
                item.id: (item.kind, item.content_hash, item.use_count) for item in live.values()
            }
            for word in WORDS:
                holders = {item.id for item in live.values() if word in item.memory.split()}
                assert {ids[no] for no in view.search_text({word: 1.0}, limit=99)} == holders
                assert {ids[no] for no in view.search_links([word], limit=99)} == holders
            assert view.participants() == {name for item in live.values() for name in item.participants}
    assert store.verify() == []


EXAMPLES = {"sqlite": 40, "postgres": 8, "pgvector": 8}  # a step on a server costs some twenty round trips


def test_a_random_history_does_what_the_model_does(
    request: pytest.FixtureRequest, open_store: Any, make: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any sequence of changes, good or bad, leaves store and model alike; a refused call leaves no trace,
    and a repeated message has no effect."""

    # Phase.generate only: there is nothing to shrink in a seed.
    @settings(
        max_examples=EXAMPLES[request.node.callspec.params["open_store"]],
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**32))
    def walk(seed: int) -> None:
        _walk(seed, open_store, make, tmp_path_factory)

    walk()


def _walk(seed: int, open_store: Any, make: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    random = Random(seed)
    model, make.count = Model(), 0
    with closing(open_store(capacities=CAPACITIES, folder=tmp_path_factory.mktemp("history"))) as store:
        for step in range(15):
            changes = tuple(a_change(random, model, make) for _ in range(random.choice((1, 1, 1, 2))))
            after = model.copy()
            expected: type[MemosError] | None = None
            try:
                after.apply(changes)
            except MemosError as error:
                expected = type(error)
            if expected is not None:
                with pytest.raises(expected):
                    store.apply_once(f"K{step}", changes)
                assert not store.was_applied(f"K{step}")
            else:
                applied = store.apply_once(f"K{step}", changes)
                assert applied.fresh and set(applied.seqs) == after.touched
                assert not store.apply_once(f"K{step}", changes).fresh
                model = after
            compare(store, model)
