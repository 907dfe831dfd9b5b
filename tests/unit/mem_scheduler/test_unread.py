"""What is due to be read: found again after the queue was lost, and queued no more than once."""

from __future__ import annotations

import json
import random
import time
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message

from memos.errors import QueueUnavailable
from memos.mem_chat.writer import ConversationWriter
from memos.mem_scheduler.queues.local import LocalQueue
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.unread import all_unread
from memos.memory.item import ItemStatus, ReadState
from memos.memory.reader import MemReader
from memos.memory.store import ItemFilter, SetStatus
from memos.testing import ManualClock


def write(parts: Parts, *texts: str, cube_id: str = CUBE, user_id: str = USER) -> None:
    """Add turns whose reading is to come."""
    if isinstance(parts.clock, ManualClock):
        parts.clock.advance(1.0)
    writer = ConversationWriter(
        store=parts.store,
        indexer=parts.services.indexer,
        reader=MemReader(clock=parts.clock),
        scheduler=parts.scheduler,
        clock=parts.clock,
    )
    turns = [{"role": "user", "content": text} for text in texts]
    writer.write(turns, user_id=user_id, cube_ids=(cube_id,), session_id="s", read="later")


def fresh_queue(clock: ManualClock) -> LocalQueue:
    return LocalQueue(clock=clock, random=random.Random(1))


def test_due_items_are_queued_again_once(tmp_path: Path, clock: ManualClock) -> None:
    """The next process makes the same messages, with the same item ids and contents, one per add."""
    with assembled(tmp_path, clock=clock) as parts:
        write(parts, "I live in Paris.", "I love sushi.")
        write(parts, "I have a dog called Rex.", cube_id="other", user_id="bob")
        lost = {(one.item_id, one.label) for one in parts.queue.statuses()}
        assert len(lost) == 2
    with assembled(tmp_path, clock=clock, queue=fresh_queue(clock)) as parts:
        assert parts.scheduler.get_tasks_status()["remaining"] == 0
        parts.scheduler.keep_house()
        assert {(one.item_id, one.label) for one in parts.queue.statuses()} == lost
        parts.scheduler.keep_house()
        assert len(parts.queue.statuses()) == 2
        parts.drain()
        assert all_unread(parts.store) == []
        facts = parts.store.find(ItemFilter(raw=False)).items
        assert {(item.cube_id, item.user_id, item.memory) for item in facts} == {
            (CUBE, USER, "The user lives in Paris."),
            (CUBE, USER, "The user likes sushi."),
            ("other", "bob", "The user has a pet: Rex (dog)."),
        }
        parts.scheduler.keep_house()
        assert len(parts.queue.statuses()) == 2


def test_two_restarts_make_the_same_keys(tmp_path: Path, clock: ManualClock) -> None:
    """The key is derived from the work, so a durable queue recognises the message."""
    with assembled(tmp_path, clock=clock) as parts:
        write(parts, "I live in Paris.")
    keys = []
    for _ in range(2):
        with assembled(tmp_path, clock=clock, queue=fresh_queue(clock)) as parts:
            parts.scheduler.keep_house()
            (waiting,) = parts.queue.statuses()
            keys.append(waiting.key)
        clock.advance(100.0)
    assert keys[0] == keys[1] and len(keys[0]) == 26


def test_what_waits_in_the_queue_is_not_queued_again(still: Parts) -> None:
    """A scheduler that is started anew over the same queue finds the messages there."""
    write(still, "I live in Paris.")
    still.scheduler.keep_house()
    (waiting,) = still.queue.statuses()
    assert waiting.state is TaskState.WAITING


def test_what_was_cancelled_stays_cancelled(still: Parts) -> None:
    """Clearing the queue is not undone by the housekeeper; the turns stay due for the next process."""
    write(still, "I live in Paris.")
    still.queue.clear()
    still.scheduler.keep_house()
    assert [one.state for one in still.queue.statuses()] == [TaskState.CANCELLED]
    assert len(all_unread(still.store)) == 1


def test_only_live_turns_are_due(still: Parts) -> None:
    """Deleted, archived and held turns are not read."""
    ids = still.remember("One.", "Two.", "Three.", "Four.", read=ReadState.DUE)
    for item_id, status in zip(
        ids, (ItemStatus.DELETED, ItemStatus.ARCHIVED, ItemStatus.QUARANTINED), strict=False
    ):
        still.store.apply([SetStatus((item_id,), status, "test")])
    (one,) = all_unread(still.store)
    assert json.loads(one.content) == ids[3:]


def round_after(parts: Parts, clock: ManualClock, seconds: float) -> list[str]:
    """The labels that wait behind a round of the housekeeper so much later."""
    clock.advance(seconds)
    parts.scheduler._housekeeper.round()
    return [one.label for one in parts.queue.statuses() if one.state is TaskState.WAITING]


def stored_unheard(parts: Parts, text: str) -> None:
    """Add a turn while the queue is away."""

    def away(*_: object, **__: object) -> object:
        raise QueueUnavailable("away")

    kept = parts.queue.submit
    parts.queue.submit = away  # type: ignore[method-assign,assignment]
    write(parts, text)
    parts.queue.submit = kept  # type: ignore[method-assign]


def test_what_was_stored_while_the_queue_was_away_is_read(still: Parts, clock: ManualClock) -> None:
    """A running scheduler finds it by itself, not before the call that stores it has had its time, and once."""
    stored_unheard(still, "I live in Paris.")
    assert still.queue.statuses() == []
    assert round_after(still, clock, 4.0) == []
    assert round_after(still, clock, 10.0) == ["mem_read"]
    assert round_after(still, clock, 10.0) == ["mem_read"]
    still.drain()
    assert [item.memory for item in still.store.find(ItemFilter(raw=False)).items] == [
        "The user lives in Paris."
    ]
    assert round_after(still, clock, 100.0) == []


def test_a_busy_queue_is_given_more_time(still: Parts, clock: ManualClock) -> None:
    """While tasks wait what is due is mostly theirs: what is older is looked at, once, and so many a round."""
    still.scheduler.register_handlers({"other": lambda messages: None})
    still.scheduler.submit_messages(message("other", "x"))
    stored_unheard(still, "I live in Paris.")
    assert round_after(still, clock, 30.0) == ["other"]
    assert sorted(round_after(still, clock, 40.0)) == ["mem_read", "other"]
    still.scheduler._housekeeper._looked_until -= timedelta(seconds=1.0)  # another round
    asked: list[str] = []
    statuses = still.queue.statuses

    def watched(**wanted: object) -> object:
        asked.append(str(wanted.get("item_id")))
        return statuses(**wanted)  # type: ignore[arg-type]

    still.queue.statuses = watched  # type: ignore[method-assign,assignment]
    still.scheduler._housekeeper.emit_late()
    assert asked == []


def test_a_look_at_much_goes_on_where_it_ended(
    still: Parts, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a round looks at is not skipped."""
    monkeypatch.setattr("memos.mem_scheduler.housekeeper.UNREAD_MAX", 2)
    still.scheduler.register_handlers({"other": lambda messages: None})
    still.scheduler.submit_messages(message("other", "x"))
    for number in range(5):
        stored_unheard(still, f"I love sushi{number}.")
    clock.advance(100.0)
    assert [still.scheduler._housekeeper.emit_late() for _ in range(4)] == [2, 2, 1, 0]


def test_what_a_handler_of_ones_own_leaves_due_is_not_brought_back(still: Parts, clock: ManualClock) -> None:
    """Whoever reads in his own way is asked once."""
    seen: list[object] = []
    still.scheduler.register_handlers({"mem_read": seen.extend})
    write(still, "I live in Paris.")
    still.drain()
    assert round_after(still, clock, 100.0) == []
    assert (len(seen), len(all_unread(still.store))) == (1, 1)


def test_a_started_scheduler_reads_what_is_due(tmp_path: Path) -> None:
    """With threads: what a process left due is read by the next one without anybody asking."""
    clock = ManualClock()
    with assembled(tmp_path, clock=clock) as parts:
        write(parts, "I live in Paris.")
    with assembled(tmp_path) as parts:
        parts.scheduler.start()
        for _ in range(500):
            if not all_unread(parts.store):
                break
            parts.queue.claim(frozenset({"nothing"}), lanes_max=1, timeout_s=0.02)
        assert [item.memory for item in parts.store.find(ItemFilter(raw=False)).items] == [
            "The user lives in Paris."
        ]


def test_what_could_not_be_queued_at_the_start_is_queued_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is away while the scheduler starts; what is due is older than its rounds look back."""
    clock = ManualClock()
    with assembled(tmp_path, clock=clock) as parts:
        write(parts, "I live in Paris.")
    clock.advance(10_000.0)
    with assembled(tmp_path, clock=clock, queue=fresh_queue(clock)) as parts:

        def away(**_: object) -> object:
            raise QueueUnavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(parts.queue, "statuses", away)
            parts.scheduler.start()
            clock.until_waiting(3)  # consumer, heartbeat and housekeeper
        assert len(all_unread(parts.store)) == 1
        clock.advance(5.0)
        for _ in range(500):
            if not all_unread(parts.store):
                break
            time.sleep(0.02)
        assert [item.memory for item in parts.store.find(ItemFilter(raw=False)).items] == [
            "The user lives in Paris."
        ]
        parts.scheduler.stop()
