"""Several queue objects on one file: how one wakes the claims that wait in another."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.conformance.queue_model import message

from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Batch, Done
from memos.mem_scheduler.queues.sqlite import SqliteQueue, doorbell
from memos.mem_scheduler.queues.sqlite.doorbell import Doorbell
from memos.testing import ManualClock

JOIN_S = 30.0
NEVER_S = 10_000.0


class Two:
    """Two queues on one file and one clock, and a claim that waits in the second."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.clock = ManualClock()
        pool = stack.enter_context(ThreadPoolExecutor(4))
        self.first, self.second = (
            stack.enter_context(SqliteQueue(path, clock=self.clock, boot="b")) for _ in range(2)
        )
        self._pool = pool

    def waiting(self, *labels: str) -> Future[list[Batch]]:
        before = self.clock.waiting
        found = self._pool.submit(self.second.claim, set(labels), lanes_max=1, timeout_s=100.0)
        self.clock.until_waiting(before + 1)
        return found


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    with ExitStack() as stack:
        yield Two(tmp_path / "queue.db", stack)


def keys(found: Future[list[Batch]]) -> list[str]:
    return [delivery.key for batch in found.result(JOIN_S) for delivery in batch.deliveries]


@pytest.fixture
def never_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "LOOK_S", NEVER_S)


@pytest.fixture
def never_ringing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doorbell, "ring", lambda self, labels: None)
    monkeypatch.setattr(doorbell, "LOOK_S", 0.05)


@pytest.mark.usefixtures("never_looking")
def test_a_submit_here_wakes_a_claim_there(two: Two) -> None:
    """By the ring alone."""
    found = two.waiting("query")
    sent = two.first.submit([message()])
    assert keys(found) == sent


@pytest.mark.usefixtures("never_looking")
def test_the_ring_names_its_labels(two: Two) -> None:
    """A claim of other labels sleeps on."""
    other = two.waiting("other")
    right = two.waiting("query")
    sent = two.first.submit([message()])
    assert keys(right) == sent
    assert not other.done()
    two.second.wake()
    assert keys(other) == []


@pytest.mark.usefixtures("never_looking")
def test_a_finish_here_wakes_the_claim_of_the_next_message_there(two: Two) -> None:
    """A lane that becomes free is everybody's."""
    two.first.policies.put("query", TaskPolicy(ordered=True, concurrency=1, level=1, batch_size_max=1))
    sent = two.first.submit([message()] * 2)
    (batch,) = two.first.claim({"query"}, lanes_max=1, timeout_s=0)
    found = two.waiting("query")
    two.first.finish(batch, [Done()])
    assert keys(found) == sent[1:]


@pytest.mark.usefixtures("never_looking")
def test_a_delay_that_begins_here_is_kept_there(two: Two) -> None:
    """The waiting claim learns of a due time that is earlier than what it knows."""
    found = two.waiting("query")
    looked = threading.Event()
    look = two.second._look

    def seen(*arguments):  # type: ignore[no-untyped-def]
        answer = look(*arguments)
        looked.set()
        return answer

    two.second._look = seen
    sent = two.first.submit([message()], delay_s=3.0)
    assert looked.wait(JOIN_S)
    two.clock.until_waiting(1)
    two.clock.advance(3.0)
    assert keys(found) == sent


@pytest.mark.usefixtures("never_ringing")
def test_a_lost_ring_is_covered_by_the_look(two: Two) -> None:
    """A process that dies between its commit and the ring leaves work that others find by themselves."""
    found = two.waiting("query")
    sent = two.first.submit([message()])
    assert keys(found) == sent


@pytest.mark.usefixtures("never_ringing")
def test_the_lease_of_a_process_that_died_is_noticed_without_traffic(two: Two) -> None:
    """Nobody submits, renews or finishes: the waiting claim takes over when the lease ends."""
    two.first.policies.put("custom", TaskPolicy(min_idle_ms=1_000))
    found = two.waiting("custom")
    sent = two.first.submit([message("custom")])
    batches = two.first.claim({"custom"}, lanes_max=1, timeout_s=0)
    if batches:  # else the other was faster, and nothing died
        two.clock.until_waiting(1)
        for _ in range(200):
            if found.done():
                break
            two.clock.advance(0.1)
            threading.Event().wait(0.02)
    assert keys(found) == sent


def test_an_idle_queue_writes_nothing(two: Two) -> None:
    """Claims that find nothing do not wake the other processes, which would wake it back."""
    for queue in (two.first, two.second):
        queue.claim({"query"}, lanes_max=1, timeout_s=0)
    before = two.first._file.data_version()
    for _ in range(5):
        two.clock.advance(1.0)
        assert two.second.claim({"query"}, lanes_max=1, timeout_s=0) == []
    assert two.first._file.data_version() == before


def test_policies_are_shared(two: Two) -> None:
    """What one process writes decides in the other's next transaction."""
    two.first.policies.put("custom", TaskPolicy(concurrency=2))
    two.second.submit([message("custom")] * 5)
    assert len(two.second.claim({"custom"}, lanes_max=9, batch_max=1, timeout_s=0)) == 2
    assert two.second.policies.get("custom").concurrency == 2
    assert two.second.policies.version == two.first.policies.version == 1


def test_a_clear_here_fences_what_runs_there(two: Two) -> None:
    """The holder's renewal says that the batch is lost."""
    two.first.submit([message()])
    (batch,) = two.second.claim({"query"}, lanes_max=1, timeout_s=0)
    assert two.first.clear() == 1
    assert two.second.renew([batch]) == [batch]


def test_sockets_go_with_their_process_or_with_the_next_ring(two: Two, tmp_path: Path) -> None:
    """A closed queue leaves none, and one that was killed is removed by whoever rings it."""
    folder = tmp_path / "queue.db-bells"
    found = two.waiting("query")
    assert len(list(folder.iterdir())) == 1
    stale = folder / "12345-dead"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(os.path.relpath(stale))
    sent = two.first.submit([message()])
    assert keys(found) == sent
    assert not stale.exists()
    two.second.close()
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("never_looking")
def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    """A socket's address has about 100 bytes; a folder may have many more."""
    folder = tmp_path / ("x" * 120)
    with ExitStack() as stack:
        two = Two(folder / "queue.db", stack)
        found = two.waiting("query")
        sent = two.first.submit([message()])
        assert keys(found) == sent


def test_without_sockets_the_look_is_enough(tmp_path: Path) -> None:
    """Where a socket cannot be made, claims still see what others submit."""
    (tmp_path / "queue.db-bells").write_text("a file where the folder should be")
    with ExitStack() as stack:
        two = Two(tmp_path / "queue.db", stack)
        found = two.waiting("query")
        sent = two.first.submit([message()])
        assert keys(found) == sent


def test_closing_lets_waiting_claims_return(two: Two) -> None:
    """Without work, and without an error."""
    found = two.waiting("query")
    two.second.close()
    assert keys(found) == []
