"""The heartbeat: what it renews and when, what it marks, under a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.unit.mem_scheduler.parts import message

from memos.errors import QueueUnavailable
from memos.mem_scheduler import leases
from memos.mem_scheduler.leases import LeaseKeeper
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Batch
from memos.mem_scheduler.queues.local import LocalQueue
from memos.testing import ManualClock


class Watched(LocalQueue):
    """Records what is renewed at which time."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.renewed: list[tuple[float, int]] = []
        self.down = False
        self._time = clock
        self._beaten = threading.Semaphore(0)

    def renew(self, batches: Sequence[Batch]) -> list[Batch]:
        if self.down:
            raise QueueUnavailable("down")
        self.renewed.append((self._time.monotonic(), len(batches)))
        lost = super().renew(batches)
        self._beaten.release()
        return lost

    def wait_for_beat(self) -> None:
        """Until the heartbeat's thread has renewed once more."""
        assert self._beaten.acquire(timeout=10.0)


@pytest.fixture
def queue(clock: ManualClock) -> Watched:
    return Watched(clock)


def leased(queue: Watched, label: str, *users: str) -> list[Batch]:
    queue.submit([message(label, user_id=user) for user in users])
    return queue.claim({label}, lanes_max=len(users), timeout_s=0)


def test_a_held_batch_outlives_its_lease(queue: Watched, clock: ManualClock) -> None:
    """With beats a batch stays with its holder for many times the length of its lease."""
    keeper = LeaseKeeper(queue, clock)
    (batch,) = leased(queue, "job", "u")
    keeper.hold(batch)
    for _ in range(20):
        clock.advance(10.0)
        keeper.beat()
        assert queue.claim({"job"}, lanes_max=1, timeout_s=0) == []
    assert not keeper.is_lost(batch)


def test_the_thread_beats_at_a_third_of_the_shortest_lease(queue: Watched, clock: ManualClock) -> None:
    """One call renews all leases, when a third of the shortest one has passed."""
    queue.policies.put("quick", TaskPolicy(min_idle_ms=3_000))
    keeper = LeaseKeeper(queue, clock)
    keeper.start()
    for batch in (*leased(queue, "job", "a", "b"), *leased(queue, "quick", "c")):
        keeper.hold(batch)
    for _ in range(3):
        clock.until_waiting(1)
        clock.advance(1.0)
        queue.wait_for_beat()
    clock.until_waiting(1)
    keeper.stop()
    assert queue.renewed == [(1.0, 3), (2.0, 3), (3.0, 3)]


def test_nothing_is_renewed_after_drop(queue: Watched, clock: ManualClock) -> None:
    """A dropped batch is no longer the heartbeat's business."""
    keeper = LeaseKeeper(queue, clock)
    (batch,) = leased(queue, "job", "u")
    keeper.hold(batch)
    keeper.drop(batch)
    clock.advance(10.0)
    keeper.beat()
    assert queue.renewed == []
    assert keeper.held() == []


def test_a_lost_batch_is_marked(queue: Watched, clock: ManualClock) -> None:
    """What the queue says is lost is marked, and not renewed again."""
    keeper = LeaseKeeper(queue, clock)
    (batch,) = leased(queue, "job", "u")
    keeper.hold(batch)
    clock.advance(31.0)
    queue.claim({"other"}, lanes_max=1, timeout_s=0)  # here the queue notices
    keeper.beat()
    assert keeper.is_lost(batch)
    keeper.beat()
    assert len(queue.renewed) == 1


def test_only_a_lost_lease_is_told_as_lost(
    queue: Watched, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that is renewed warns of nothing; one that the queue took away is told once."""
    told: list[str] = []
    monkeypatch.setattr(leases.logger, "warning", lambda event, **fields: told.append(event), raising=False)
    keeper = LeaseKeeper(queue, clock)
    (batch,) = leased(queue, "job", "u")
    keeper.hold(batch)
    for _ in range(3):
        clock.advance(10.0)
        keeper.beat()
    assert told == []
    clock.advance(31.0)
    queue.claim({"other"}, lanes_max=1, timeout_s=0)
    keeper.beat()
    keeper.beat()
    assert told == ["batch.lease_lost"]


def test_a_queue_that_does_not_answer_is_asked_again(queue: Watched, clock: ManualClock) -> None:
    """A failed renewal loses nothing by itself."""
    keeper = LeaseKeeper(queue, clock)
    (batch,) = leased(queue, "job", "u")
    keeper.hold(batch)
    queue.down = True
    clock.advance(10.0)
    keeper.beat()
    queue.down = False
    clock.advance(10.0)
    keeper.beat()
    assert not keeper.is_lost(batch)
    assert len(queue.renewed) == 1


def test_a_batch_past_its_time_out_is_reported_once(queue: Watched, clock: ManualClock) -> None:
    """A batch that runs longer than allowed is reported once and left to its lease."""
    queue.policies.put("job", TaskPolicy(timeout_s=15.0))
    reported: list[Batch] = []
    keeper = LeaseKeeper(queue, clock, on_timeout=reported.append)
    (batch,) = leased(queue, "job", "u")
    keeper.hold(batch)
    for _ in range(4):
        clock.advance(10.0)
        keeper.beat()
    assert reported == [batch]
    assert keeper.is_lost(batch)
    assert [at for at, _ in queue.renewed] == [10.0]


def test_a_shorter_lease_takes_effect_on_held_batches(queue: Watched, clock: ManualClock) -> None:
    """After a policy write the heartbeat comes in time for the new length."""
    keeper = LeaseKeeper(queue, clock)
    keeper.start()
    (batch,) = leased(queue, "job", "u")
    keeper.hold(batch)
    clock.until_waiting(1)
    queue.policies.put("job", replace(TaskPolicy(), min_idle_ms=1_500))
    keeper.refresh()
    for _ in range(6):
        clock.until_waiting(1)
        clock.advance(0.5)
        queue.wait_for_beat()
    keeper.stop()
    assert queue.claim({"job"}, lanes_max=1, timeout_s=0) == []


def test_a_lease_that_ran_out_is_known_without_asking(queue: Watched, clock: ManualClock) -> None:
    """A process that stood still knows by the clock alone that its lease is over, counted from before the
    claim; a renewal puts the end off, and what was handed back is over at once."""
    keeper = LeaseKeeper(queue, clock)
    asked_at = clock.monotonic()
    first, second = leased(queue, "job", "a", "b")
    clock.advance(4.0)
    keeper.hold(first, claimed_at=asked_at)
    keeper.hold(second, claimed_at=asked_at)
    clock.advance(25.0)
    assert not keeper.is_over(first)
    clock.advance(1.0)
    assert keeper.is_over(first) and keeper.is_lost(first)
    keeper.drop(second)
    assert keeper.is_over(second)


def test_a_renewed_lease_is_not_over(queue: Watched, clock: ManualClock) -> None:
    """Each beat moves the end on by the length of the lease."""
    keeper = LeaseKeeper(queue, clock)
    (batch,) = leased(queue, "job", "u")
    keeper.hold(batch)
    clock.advance(20.0)
    keeper.beat()
    clock.advance(20.0)
    assert not keeper.is_over(batch)
