"""Several writers of one store: every one of them counts, none overwrites another, and all see each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from memos.errors import LeaseLost, StoreUnavailable, VersionConflict
from memos.memory.activation.index import PutPrefix
from memos.memory.activation.layout import LayoutState
from memos.memory.item import WorkingEntry
from memos.memory.postgres import PostgresStore
from memos.memory.store import AddAlias, ReplaceWorking, TouchItems, UpdateItem

from .items import add, block, indexed, prefix

Open = Callable[..., PostgresStore]


def together(*deeds: Callable[[], None]) -> list[BaseException]:
    """Run all at once; what they raised."""
    raised: list[BaseException] = []
    barrier = threading.Barrier(len(deeds))

    def run(deed: Callable[[], None]) -> None:
        barrier.wait()
        try:
            deed()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_no_use_is_lost_between_two_processes(opened: Open) -> None:
    """Two stores that touch the same items at the same time: each touch counts, whatever their order."""
    one, other = opened(), opened()
    one.apply([add("a", "b"), add("x", cube_id="second")])

    def touching(store: PostgresStore, ids: tuple[str, ...]) -> Callable[[], None]:
        def deed() -> None:
            for _ in range(15):
                store.apply([TouchItems(ids, "used")])

        return deed

    assert together(touching(one, ("a", "b", "x")), touching(other, ("x", "b")), touching(one, ("b",))) == []
    assert [item.use_count for item in one.get(["a", "b", "x"])] == [15, 45, 30]
    assert one.verify() == []


def test_of_two_that_expect_one_version_one_wins(opened: Open) -> None:
    """Both read version 1 and write: one commits, the other is told of the conflict."""
    one, other = opened(), opened()
    one.apply([add("a")])
    (item,) = one.get(["a"])

    def writing(store: PostgresStore, text: str) -> Callable[[], None]:
        changed = replace(indexed("a"), item=replace(item, memory=text))
        return lambda: store.apply([UpdateItem(changed, 1, "r")]) and None

    raised = together(writing(one, "first"), writing(other, "second"))
    assert [type(error) for error in raised] == [VersionConflict]
    assert one.get(["a"])[0].version == 2
    working = [
        lambda store=store: store.apply([ReplaceWorking("cube", (WorkingEntry("a"),), 0, "r")]) and None
        for store in (one, other)
    ]
    assert [type(error) for error in together(*working)] == [VersionConflict]
    assert one.verify() == []


def test_a_new_cube_is_made_once(opened: Open) -> None:
    """Writers that all bring the first item of a cube find one cube, and one chain of its journal."""
    stores = [opened(), opened(), opened()]
    assert together(*[lambda n=n: stores[n % 3].apply([add(f"i{n}")]) and None for n in range(9)]) == []
    assert stores[0].cubes() == ["cube"]
    assert stores[0].seq("cube") == 9
    assert stores[0].verify() == []


def test_writers_of_other_cubes_do_not_wait(opened: Open) -> None:
    """While one transaction holds a cube, another cube is written; the held one is refused as retryable."""
    one, other = opened(), opened(lock_timeout_s=0.2)
    one.apply([add("a"), add("x", cube_id="second")])

    def meanwhile() -> None:
        other.apply([TouchItems(("x",), "used")])
        with pytest.raises(StoreUnavailable) as caught:
            other.apply([TouchItems(("a",), "used")])
        assert caught.value.retryable

    with one._database.write() as tables:
        tables.cubes.hold("cube")
        meanwhile()
    other.apply([TouchItems(("a",), "used")])


def test_the_guard_is_asked_when_nobody_else_can_come_in(opened: Open) -> None:
    """Inside the guard the key is taken: a second delivery waits for the first, and then does nothing."""
    one, other = opened(), opened()
    one.apply([add("a")])
    inside, fresh = threading.Event(), []

    def second() -> None:
        inside.wait()
        fresh.append(other.apply_once("P", [TouchItems(("a",), "used")]).fresh)

    thread = threading.Thread(target=second)
    thread.start()
    assert one.apply_once("P", [TouchItems(("a",), "used")], guard=inside.set).fresh
    thread.join()
    assert fresh == [False]
    assert one.get(["a"])[0].use_count == 1

    def late() -> None:
        raise LeaseLost("too late")

    with pytest.raises(LeaseLost):
        one.apply_once("Q", [TouchItems(("a",), "used")], guard=late)
    assert not one.was_applied("Q")


def test_a_deadlock_is_retryable(opened: Open) -> None:
    """Transactions that hold two cubes the wrong way round: one is told to try again, the other commits."""
    one, other = opened(lock_timeout_s=30.0), opened(lock_timeout_s=30.0)
    one.apply([add("a"), add("x", cube_id="second")])
    first, second = threading.Event(), threading.Event()

    def crossing(
        store: PostgresStore, cubes: tuple[str, str], mine: threading.Event, theirs: threading.Event
    ) -> None:
        with store._database.write() as tables:
            tables.cubes.hold(cubes[0])
            mine.set()
            theirs.wait()
            tables.cubes.hold(cubes[1])

    raised = together(
        lambda: crossing(one, ("cube", "second"), first, second),
        lambda: crossing(other, ("second", "cube"), second, first),
    )
    assert [type(error) for error in raised] == [StoreUnavailable]


def test_caches_follow_the_other_process(opened: Open) -> None:
    """Vectors, terms and facets that one store has cached follow what another one writes."""
    one, other = opened(), opened()
    unit = np.eye(4, dtype=np.float32)
    for store in (one, other):
        store.bind_embedder("m", 4)
    one.apply([add("a", vector=unit[0], memory="dog")])

    def seen(store: PostgresStore) -> tuple[list[int], list[int]]:
        with store.read("cube") as view:
            return list(view.search_vector(unit[0], limit=9)), list(view.search_text({"dog": 1.0}, limit=9))

    assert seen(one) == seen(other) == ([1], [1])
    other.apply([add("b", vector=unit[1], memory="dog"), AddAlias("old", "a", "merged")])
    assert seen(one) == seen(other) == ([1, 2], [2, 1])
    assert one.get(["old"])[0].id == "a"


_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"  # the server is this test run's own
_ARCHIVE = "UPDATE item SET status = 'archived', live = false WHERE id = %(id)s"


def test_a_block_and_a_change_of_its_memories_do_not_lock_each_other_out(opened: Open) -> None:
    """A block or prefix that is put half-way through a change of two memories waits, and then holds neither."""
    one, other = opened(), opened()
    one.apply([add("a", "b", "c", "d", "e")])
    first = other.put_block(block("a", "b", "c", "d", "e"))

    def meanwhile(ids: tuple[str, str], deed: Callable[[], None]) -> None:
        """`deed` while another transaction has changed the first of `ids` and is about to change the second."""
        raised: list[BaseException] = []

        def run() -> None:
            try:
                deed()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        with one._database.write() as tables:
            session = tables.session  # type: ignore[attr-defined]
            tables.cubes.hold("cube")
            session.run(_ARCHIVE, id=ids[0])
            thread.start()
            while thread.is_alive() and not session.row(_WAITING)[0]:
                pass
            session.run(_ARCHIVE, id=ids[1])
        thread.join()
        assert raised == []

    def put() -> None:
        other.put_block(replace(first, state=LayoutState(first.state.residents[::-1], 5)))

    meanwhile(("b", "a"), put)
    found = other.block("ns")
    assert found is not None
    assert [resident.item_id for resident in found.state.residents] == ["e", "d", "c"]
    meanwhile(("d", "c"), lambda: other.apply([PutPrefix(prefix("e", "c", "d"), "built")]) and None)
    assert [kept.sound for kept in other.prefixes()] == [1]
