"""The housekeeper: left-over followups, marks, the outbox of what was cancelled."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.mem_scheduler.parts import CUBE, Parts, assembled, message

from memos.errors import StoreUnavailable
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.local import LocalQueue
from memos.testing import ManualClock


def marks(parts: Parts) -> int:
    return len(parts.store.marks(limit=10_000))


def test_marks_go_when_message_and_parent_are_settled(still: Parts) -> None:
    """While the chained message waits, the parent's mark may go but the pair's protection stays; when
    both are done nothing is left behind."""
    still.remember("A puppy named Max.")
    still.scheduler.submit_messages(message("query", "puppy?"))
    assert still.scheduler.run_once() == 1
    assert marks(still) == 1
    still.drain()
    assert marks(still) == 2
    still.scheduler.keep_house()
    assert marks(still) == 0
    assert still.store.pending_followups() == []


def test_marks_outlast_what_a_failing_server_may_bring_back(
    still: Parts, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that may forget that a message is done delivers it again: the mark is there for as long as that."""
    identity = replace(still.queue.identity, forgets_s=30.0)
    monkeypatch.setattr(type(still.queue), "identity", property(lambda queue: identity))
    kept = still.queue.live
    still.store.apply_once("done", [])
    for seconds, left in ((0.0, 1), (29.0, 1), (2.0, 0)):
        clock.advance(seconds)
        still.scheduler._housekeeper.sweep()
        assert marks(still) == left
    still.store.apply_once("back", [])
    still.scheduler._housekeeper.sweep()
    clock.advance(20.0)
    monkeypatch.setattr(still.queue, "live", lambda keys: {"back"})
    still.scheduler._housekeeper.sweep()
    monkeypatch.setattr(still.queue, "live", kept)
    for seconds, left in ((20.0, 1), (29.0, 1), (2.0, 0)):
        clock.advance(seconds)
        still.scheduler._housekeeper.sweep()
        assert marks(still) == left


def test_marks_of_dead_letters_stay(still: Parts, clock: ManualClock) -> None:
    """A letter that is retried finds the mark of what it did before it died."""
    built_in = still.scheduler.handlers["answer"]
    broken = [True]

    def dying(batch: list[object]) -> None:
        built_in(batch)  # type: ignore[arg-type]
        if broken[0]:
            raise RuntimeError("after the commit")

    still.scheduler.register_handlers({"answer": dying})
    still.scheduler.submit_messages(message("answer", "Max."))
    for _ in range(10):
        still.drain()
        clock.advance(10.0)
    assert len(still.queue.dead.list()) == 1
    still.scheduler.keep_house()
    assert marks(still) == 1
    broken[0] = False
    still.queue.dead.retry()
    still.drain()
    assert len(still.store.web_logs(label="addMessage")) == 1
    still.scheduler.keep_house()
    assert marks(still) == 0


def test_committed_followups_are_queued_after_the_queue_was_lost(tmp_path: Path, clock: ManualClock) -> None:
    """A crash between commit and finish, with the queue's memory gone, loses no chained message."""
    with assembled(tmp_path, clock=clock) as parts:
        parts.remember("A puppy named Max.")
        parts.scheduler.submit_messages(message("query", "the puppy's name?"))

        def crash(*args: object, **kwargs: object) -> object:
            raise KeyboardInterrupt

        parts.queue.finish = crash  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            parts.scheduler.run_once()
        assert parts.store.working(CUBE).version == 0
    with assembled(tmp_path, clock=clock, queue=LocalQueue(clock=clock, random=random.Random(1))) as parts:
        assert parts.scheduler.get_tasks_status()["remaining"] == 0
        parts.scheduler.keep_house()
        assert [one.label for one in parts.queue.statuses()] == ["mem_update"]
        parts.scheduler.keep_house()  # once is enough
        parts.drain()
        assert parts.store.working(CUBE).version == 1
        parts.scheduler.keep_house()
        assert parts.store.pending_followups() == []


def test_a_followup_that_a_failing_server_forgot_is_queued_again(
    still: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running scheduler brings it back, once; what the queue has heard of is left to it."""
    still.remember("A puppy named Max.")
    still.scheduler.submit_messages(message("query", "the puppy's name?"))
    still.scheduler.run_once()
    still.scheduler._housekeeper.round()
    assert [one.label for one in still.queue.statuses()].count("mem_update") == 1
    forgetful = LocalQueue(clock=still.clock, random=random.Random(1))
    monkeypatch.setattr(still.scheduler._housekeeper, "_queue", forgetful)
    for _ in range(2):
        still.scheduler._housekeeper.round()
        assert [one.label for one in forgetful.statuses()] == ["mem_update"]


def test_followups_whose_parent_still_runs_are_left_to_it(still: Parts) -> None:
    """Between commit and finish the housekeeper queues nothing: the parent's finish does."""
    still.remember("A puppy named Max.")
    counts: list[int] = []
    finish = still.queue.finish

    def watched(*args: object, **kwargs: object) -> object:
        still.scheduler.keep_house()
        counts.append(still.scheduler.get_tasks_status()["remaining"])
        return finish(*args, **kwargs)  # type: ignore[arg-type]

    still.queue.finish = watched  # type: ignore[method-assign,assignment]
    still.scheduler.submit_messages(message("query", "the puppy's name?"))
    still.drain()
    assert counts == [0, 0]
    assert [one.label for one in still.queue.statuses()].count("mem_update") == 1


def test_cancelled_followups_do_not_come_back(tmp_path: Path, clock: ManualClock) -> None:
    """A chained message that was cancelled leaves the outbox: the next start does not revive it."""
    with assembled(tmp_path, clock=clock) as parts:
        parts.remember("A puppy named Max.")
        parts.scheduler.submit_messages(message("query", "the puppy's name?"))
        parts.scheduler.run_once()
        assert parts.queue.clear() == 1
        assert len(parts.store.pending_followups()) == 1
        parts.scheduler.start()  # its housekeeper emits what is left over before its first round
        parts.scheduler.stop()
        parts.queue.clear()
        parts.scheduler._housekeeper.tick_settled()
        assert parts.store.pending_followups() == []


@pytest.mark.parametrize("told", [True, False])
def test_coalesced_followups_leave_the_outbox(still: Parts, told: bool) -> None:
    """A chained message that ran inside a newer one is not run again by the next start: it leaves with the
    finish, or with the next round where the worker died right after it."""
    if not told:
        still.scheduler.dispatcher._aftermath = lambda *args: None
    still.remember("A puppy named Max.")
    built_in = still.scheduler.handlers["mem_update"]
    policy = still.queue.policies.get("mem_update")
    still.scheduler.register_handlers(
        {
            "mem_update": (
                built_in,
                TaskPolicy(ordered=True, concurrency=1, level=policy.level, coalesce=True),
            )
        }
    )
    still.scheduler.unregister_handlers(["mem_update"])
    still.scheduler.submit_messages([message("query", f"puppy {n}?") for n in range(3)])
    still.drain()
    still.scheduler.register_handlers({"mem_update": (built_in, still.queue.policies.get("mem_update"))})
    still.drain()
    assert len(still.store.web_logs(label="scheduleMemory")) == 1
    assert len(still.store.pending_followups()) == (0 if told else 2)
    still.scheduler._housekeeper.tick_settled()
    assert still.store.pending_followups() == []


def test_custom_children_of_built_in_parents_leave_the_outbox(still: Parts) -> None:
    """A chained message that a user's handler runs is ticked when it is done."""
    seen: list[object] = []
    still.scheduler.register_handlers({"mem_update": seen.extend})
    still.scheduler.submit_messages(message("query", "the puppy's name?"))
    still.drain()
    assert len(seen) == 1
    assert still.store.pending_followups() == []


def test_many_marks_that_must_stay_do_not_hide_newer_ones(
    still: Parts, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep looks further when all the oldest marks belong to dead letters."""
    monkeypatch.setattr("memos.mem_scheduler.housekeeper.MARKS_MIN", 4)
    still.scheduler._housekeeper._marks_limit = 4
    for number in range(6):
        still.store.apply_once(f"dead-{number}", [])
    for number in range(3):
        still.store.apply_once(f"done-{number}", [])
    live = {f"dead-{number}" for number in range(6)}
    monkeypatch.setattr(still.queue, "live", lambda keys: live & set(keys))
    swept = [still.scheduler._housekeeper.sweep() for _ in range(4)]
    assert sum(swept) == 3
    assert {key for key, _ in still.store.marks(limit=100)} == live


def test_a_failing_round_is_not_the_last(still: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is busy, or a bug, costs one round."""

    def busy(*args: object, **kwargs: object) -> object:
        raise StoreUnavailable("busy")

    def bug(*args: object, **kwargs: object) -> object:
        raise KeyError("bug")

    still.store.apply_once("done", [])
    with monkeypatch.context() as patched:
        patched.setattr(still.store, "marks", busy)
        patched.setattr(still.store, "pending_followups", bug)
        still.scheduler._housekeeper.round()
    assert marks(still) == 1
    still.scheduler._housekeeper.round()
    assert marks(still) == 0


def test_the_housekeeper_comes_round_by_itself(still: Parts, clock: ManualClock) -> None:
    """After start, marks go without anybody asking."""
    swept = threading.Event()
    original = still.store.sweep

    def watched(keys: list[str], **wanted: str) -> int:
        count = original(keys, **wanted)
        swept.set()
        return count

    still.store.sweep = watched  # type: ignore[method-assign,assignment]
    still.store.apply_once("done", [])
    still.scheduler.start()
    clock.until_waiting(3)  # consumer, heartbeat and housekeeper
    clock.advance(5.0)
    assert swept.wait(10.0)
    still.scheduler.stop()
    assert marks(still) == 0
