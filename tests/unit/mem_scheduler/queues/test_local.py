"""What only the queue in memory has: its constructor, and that nothing is left behind."""

from __future__ import annotations

import gc
import random

import pytest

from memos.errors import ConfigError
from memos.mem_scheduler.queues.base import Done
from memos.mem_scheduler.queues.local import LocalQueue
from memos.mem_scheduler.queues.packs import Pack
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.store import Followup
from memos.testing import ManualClock


def message(label: str = "query", *, user: str = "user", cube: str = "cube") -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id=user, mem_cube_id=cube, label=label, content="x")


@pytest.mark.parametrize(
    "bad",
    [
        {"messages_max": 0},
        {"lane_messages_max": -1},
        {"payload_bytes_max": 0},
        {"dead_letters_max": 0},
        {"status_entries_max": 0},
        {"idempotency_keys_max": 0},
        {"idempotency_ttl_s": 0.0},
        {"user_batches_max": -1},
        {"weights": {"a": 0.0}},
        {"weights": {"a": float("nan")}},
    ],
)
def test_a_bound_that_cannot_work_is_refused(bad: dict) -> None:
    """ConfigError names the setting."""
    with pytest.raises(ConfigError, match=next(iter(bad)).removesuffix("s")):
        LocalQueue(clock=ManualClock(), **bad)


def test_weights_may_be_asked_for() -> None:
    """A function is asked at each claim; what it says below the least weight counts as that."""
    asked: list[str] = []

    def weight(user_id: str) -> float:
        asked.append(user_id)
        return 0.0

    queue = LocalQueue(clock=ManualClock(), weights=weight)
    queue.submit([message(user="a"), message(user="b")])
    assert len(queue.claim({"query"}, lanes_max=2, timeout_s=0)) == 2
    assert sorted(asked) == ["a", "b"]


def test_lanes_and_payloads_go_when_their_work_is_done() -> None:
    """After everything is settled only bounded status rows remain."""
    queue = LocalQueue(clock=ManualClock(), status_entries_max=50, random=random.Random(1))
    for round_ in range(20):
        queue.submit([message(user=f"{round_}-{n}", cube=f"{n}") for n in range(50)])
        queue.submit([message("mem_update", user=f"{round_}")], delay_s=1_000.0)
        for batch in queue.claim({"query"}, lanes_max=100, timeout_s=0):
            queue.finish(batch, [Done()] * len(batch.deliveries))
        queue.cancel([row.key for row in queue.statuses(user_id=f"{round_}")])
    gc.collect()
    # By type: `isinstance` asks every object of the process for its class, and some vendors' answer with a warning.
    packs = [one for one in gc.get_objects() if type(one) is Pack]
    assert not queue.depth().lanes
    assert len(queue.statuses()) == 50
    kept = {row.key for row in queue.statuses()}
    assert all(kept.isdisjoint(one.keys) for one in packs)
    assert len(queue._ledger.timers) <= 64
    assert not queue._ledger.lines
    assert not queue._ledger.ready._classes
    assert not queue._ledger.ready.waiting_by_head


def test_messages_of_one_call_are_told_apart() -> None:
    """What was submitted, settled or cancelled together keeps its order and leaves one by one."""
    queue = LocalQueue(clock=ManualClock(), status_entries_max=3)
    keys = queue.submit(
        [message(label, cube=cube) for cube in "ab" for label in ("query", "mem_read", "query")]
    )
    assert [row.key for row in queue.statuses(user_id="user")] == keys[::-1]
    assert queue.cancel([keys[2]]) == [keys[2]]
    while batches := queue.claim({"query", "mem_read"}, lanes_max=4, timeout_s=0):
        for batch in batches:
            queue.finish(batch, [Done()] * len(batch.deliveries))
    left = [row.key for row in queue.statuses()]
    assert len(left) == 3
    assert [row.key for row in queue.statuses(user_id="user")] == left
    assert left == [key for key in reversed(keys) if key in left]
    assert queue.depth().remaining == 0


def test_a_chained_message_that_comes_again_is_told_of_once() -> None:
    """Its first row was pushed out by the bound meanwhile; the list of its user remembers the key for a while."""
    queue = LocalQueue(clock=ManualClock(), random=random.Random(1), status_entries_max=2)
    again = Followup("A" * 26, "", message())
    for _ in range(2):
        queue.submit([], followups=[again], inside_handler=True)
        queue.submit([message(), message()])
        while batches := queue.claim({"query"}, lanes_max=1, timeout_s=0):
            for batch in batches:
                queue.finish(batch, [Done()] * len(batch.deliveries))
    queue.submit([], followups=[again], inside_handler=True)
    told = [one.key for one in queue.statuses(user_id="user")]
    assert len(told) == len(queue.statuses()) == 3
    assert told.count(again.key) == 1 and told[0] == again.key
