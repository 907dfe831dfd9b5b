"""Two queues on one store: what both hold takes effect once, and a queue that is done with is struck out."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.services import drop_keys, redis_address, redis_is_there

from memos.clock import Clock, SystemClock
from memos.mem_scheduler.housekeeper import Housekeeper
from memos.mem_scheduler.queues.base import Batch, Dead, Done, TaskQueue
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.schemas.keys import child_key
from memos.mem_scheduler.settlement import Settlement
from memos.memory.store import Followup, ItemFilter, MemoryStore, ServingQueue
from memos.testing import ManualClock, RecordingSink

from .conftest import Maker, OpenStore

LABEL = "mine"
PARENT = "01HX0000000000000000000000"
KINDS = [("sqlite", "sqlite"), ("sqlite", "redis"), ("redis", "sqlite")]

OpenQueue = Callable[[str, str], TaskQueue]


@pytest.fixture
def open_queue(tmp_path: Path) -> Iterator[OpenQueue]:
    """Opens the queue of a kind and a name; the same name is the same queue."""
    run = uuid.uuid4().hex[:12]
    with ExitStack() as opened:

        def open_one(kind: str, name: str) -> TaskQueue:
            chosen: TaskQueue
            if kind == "sqlite":
                chosen = SqliteQueue(tmp_path / f"{name}.db", clock=SystemClock(), random=random.Random(1))
            else:
                if not redis_is_there():
                    pytest.skip("there is no Redis")
                prefix = f"memos-test-{run}-{name}"
                opened.callback(drop_keys, redis_address(), prefix)
                chosen = RedisStreamsQueue(redis_address(), clock=SystemClock(), prefix=prefix)
            opened.callback(chosen.close)
            return chosen

        yield open_one


def house(store: MemoryStore, queue: TaskQueue, clock: Clock | None = None) -> Housekeeper:
    return Housekeeper(store, queue, Settlement(store, queue, RecordingSink()), clock or SystemClock())


def claimed(queue: TaskQueue) -> Batch:
    (batch,) = queue.claim([LABEL], lanes_max=1, timeout_s=5.0)
    return batch


def run(store: MemoryStore, queue: TaskQueue, make: Maker, item_id: str) -> bool:
    """Run the one task that waits: it adds the item. Whether it took effect."""
    batch = claimed(queue)
    (delivery,) = batch.deliveries
    done = store.apply_once(delivery.key, [make.add(item_id)], parent_key=delivery.parent_key)
    queue.finish(batch, [Done()])
    return done.fresh


@pytest.mark.parametrize(("old", "new"), KINDS)
def test_what_two_queues_hold_takes_effect_once(
    open_store: OpenStore, open_queue: OpenQueue, make: Maker, old: str, new: str
) -> None:
    """The second queue runs a followup that still waits in the first: its mark stays until the first ran it too."""
    store, other = open_store(), open_store()
    first, second = open_queue(old, "first"), open_queue(new, "second")
    followup = Followup(child_key(PARENT, LABEL, 0), PARENT, make.message(LABEL))
    clock = ManualClock()
    of_first, of_second = house(store, first, clock), house(other, second, clock)
    of_first.serve()
    store.apply_once(PARENT, [], followups=[followup])
    first.submit([], followups=[followup])
    of_second.serve()
    assert of_second.emit_left_over() == 1
    assert run(other, second, make, "of-second")
    of_second.round()
    of_first.round()
    assert not run(store, first, make, "of-first")
    of_first.round()
    found = store.find(ItemFilter(cube_ids=("cube",))).items
    assert [item.id for item in found] == ["of-second"]
    assert len(store.marks(limit=9)) == 2
    of_first.stop()  # empty and idle: struck out, and from now on the second sweeps
    assert [one.id for one in store.queues()] == [second.identity.id]
    of_second.round()
    if second.identity.forgets_s:  # a failover may lose what it knows of the last moments
        assert len(store.marks(limit=9)) == 2
        clock.advance(second.identity.forgets_s)
        of_second.round()
    assert store.marks(limit=9) == []


def test_a_lost_queue_is_retired_by_hand(open_store: OpenStore, open_queue: OpenQueue, make: Maker) -> None:
    """A queue whose processes were killed stays noted; its marks stay too, until it is retired."""
    store = open_store()
    house(store, open_queue("sqlite", "lost")).serve()
    second = open_queue("sqlite", "second")
    keeper = house(store, second)
    keeper.serve()
    store.apply_once(PARENT, [])
    keeper.round()
    lost = next(one for one in store.queues() if one.id != second.identity.id)
    assert lost.place.endswith("lost.db") and len(store.marks(limit=9)) == 1
    assert store.retire(lost.id) and not store.retire(lost.id)
    keeper.round()
    assert store.marks(limit=9) == []


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_only_an_empty_and_idle_queue_leaves(
    open_store: OpenStore, open_queue: OpenQueue, make: Maker, kind: str
) -> None:
    """A waiting message, a dead letter, another one who claims: each keeps the queue noted."""
    store = open_store()
    queue = open_queue(kind, "only")
    keeper = house(store, queue)

    def stays() -> bool:
        keeper.serve()
        keeper.stop()
        return [one.id for one in store.queues()] == [queue.identity.id]

    queue.submit([make.message(LABEL)])
    assert stays()
    queue.finish(claimed(queue), [Dead("broken")])
    assert stays()
    queue.dead.purge()
    other = open_queue(kind, "only")
    assert other.identity.id == queue.identity.id
    other.claim([LABEL], lanes_max=1, timeout_s=0.0)
    assert stays()
    house(store, other).serve()  # came last
    other.close()
    assert stays()


def test_a_queue_that_was_struck_out_notes_itself_again(open_store: OpenStore, open_queue: OpenQueue) -> None:
    """Each round looks, so that a queue in use is missing for one round at most; the last to come strikes out."""
    store = open_store()
    queue = open_queue("sqlite", "only")
    keeper = house(store, queue)
    keeper.serve()
    store.retire(queue.identity.id)
    keeper.round()
    assert [one.id for one in store.queues()] == [queue.identity.id]
    store.serve(ServingQueue(queue.identity.id, "elsewhere", "another", 2.0))
    keeper.stop()
    assert [one.token for one in store.queues()] == ["another"]


@pytest.mark.parametrize("queue_id", ["", "b"])
def test_nothing_is_swept_for_another_queue(open_store: OpenStore, queue_id: str) -> None:
    """The look and the sweep are one transaction; a queue in memory counts as another."""
    store = open_store()
    store.apply_once(PARENT, [])
    store.serve(ServingQueue("a", "somewhere", "t", 1.0))
    assert store.sweep([PARENT], queue_id=queue_id) == 0 and store.was_applied(PARENT)
    assert store.sweep([PARENT], queue_id="a") == 1 and not store.was_applied(PARENT)
