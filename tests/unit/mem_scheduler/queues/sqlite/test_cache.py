"""What a queue object remembers of the file between its transactions never outlives a change of the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conformance.queue_model import message

from memos.errors import QueueError
from memos.mem_scheduler.queues.base import Batch, Done, Retry
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.memory.store import Followup
from memos.testing import ManualClock

from .books import FailingConnection, check_books


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], SqliteQueue]]:
    """Open one more object on the same file, as another process has it."""
    clock, queues = ManualClock(), []

    def build() -> SqliteQueue:
        queues.append(SqliteQueue(tmp_path / "queue.db", clock=clock))
        return queues[-1]

    yield build
    for queue in queues:
        queue.close()


def taken(queue: SqliteQueue, number: int) -> list[Batch]:
    batches = queue.claim({"query"}, lanes_max=number, batch_max=1, timeout_s=0)
    assert len(batches) == number
    return batches


def test_what_is_finished_after_the_close_counts_what_others_did(opened: Callable[[], SqliteQueue]) -> None:
    """A closed queue whose handlers still run opens the file for each finish: their chained messages get
    numbers behind those that another process took in between."""
    here, there = opened(), opened()
    here.submit([message(user=f"{n}") for n in range(4)])
    batches = taken(here, 4)
    here.close()
    sent = []
    for n, batch in enumerate(batches):
        child = Followup(f"CHILD{n}".ljust(26, "0"), batch.deliveries[0].key, message(user="child"))
        here.finish(batch, [Done()], followups=[child])
        sent.append(child.key)
        sent += there.submit([message(user=f"{n}-{m}") for m in range(9)])
        check_books(there)
    assert there.live(sent) == set(sent)


def test_each_sees_what_the_other_changed_in_a_lane(opened: Callable[[], SqliteQueue]) -> None:
    """Two objects that take turns on one lane claim each message once, in order."""
    queues = [opened(), opened(), opened()]
    sent = queues[0].submit([message() for _ in range(40)])
    ran = []
    for n in range(40):
        (batch,) = taken(queues[n % 3], 1)
        assert queues[(n + 1) % 3].claim({"query"}, lanes_max=9, timeout_s=0) == []
        check_books(queues[0])
        ran.append(batch.deliveries[0].key)
        queues[n % 2].finish(batch, [Done()])
    assert ran == sent


@pytest.mark.parametrize("done_first", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", ["submit", "claim", "finish", "cancel"])
def test_a_fault_at_any_statement_leaves_nothing_in_memory(
    opened: Callable[[], SqliteQueue], what: str, done_first: bool
) -> None:
    """A call that fails at its n-th statement, or whose commit is done and not answered, changes all or
    nothing; the next calls of this object and of another one find the file as it is."""
    here, there = opened(), opened()

    def step(number: int) -> None:
        if what == "submit":
            here.submit([message(user=f"{n % 3}") for n in range(6)])
        elif what == "claim":
            here.claim({"query"}, lanes_max=2, batch_max=2, timeout_s=0)
        elif what == "finish":
            child = Followup(f"C{number}".ljust(26, "0"), "P" * 26, message(user="child"))
            here.finish(batch, [Retry("no", 0.0), *[Done()] * (len(batch.deliveries) - 1)], followups=[child])
        else:
            here.cancel([keys[1]])

    reached = 0
    for at in range(1, 60):
        keys = there.submit([message(user=f"{n % 3}") for n in range(12)])
        if what == "finish":
            (batch,) = here.claim({"query"}, lanes_max=1, timeout_s=0)
        failing = here._file._writer = FailingConnection(here._file._writer, at=at, done_first=done_first)
        try:
            step(at)
        except QueueError as error:
            assert isinstance(error.__cause__, sqlite3.OperationalError)
            reached = at
        here._file._writer = failing.connection
        check_books(there)
        here.submit([message(user=f"{n % 4}") for n in range(2)])
        check_books(there)
        there.clear()
        if not failing.failed:
            break
    assert reached > 3 and not failing.failed  # each statement had its turn


def test_a_policy_that_was_not_written_is_forgotten(opened: Callable[[], SqliteQueue]) -> None:
    """One object fails to commit a policy, another one writes its own with the same version: that one holds."""
    here, there = opened(), opened()
    policy = here.policies.get("query")
    for at in range(1, 60):
        failing = here._file._writer = FailingConnection(here._file._writer, at=at, done_first=False)
        try:
            here.policies.put("query", replace(policy, batch_size_max=100 + at))
        except QueueError:
            assert failing.failed
        here._file._writer = failing.connection
        there.policies.put("query", replace(policy, batch_size_max=200 + at))
        here.submit([message()])
        assert here.policies.get("query").batch_size_max == 200 + at
        if not failing.failed:
            break
    assert at > 5 and not failing.failed


def test_an_interrupted_begin_is_made_good_by_the_next_call(opened: Callable[[], SqliteQueue]) -> None:
    """A call that is interrupted right after its transaction began, and whose rollback fails too, blocks
    neither this object's next call nor another object's."""
    here, there = opened(), opened()
    assert here._file._writer is not None
    here._file._writer.execute("BEGIN IMMEDIATE")  # what such a call leaves
    here._file._writer.execute("DELETE FROM counter")
    here.submit([message()])
    there.submit([message()])
    assert there.depth().remaining == 2
    check_books(there)
