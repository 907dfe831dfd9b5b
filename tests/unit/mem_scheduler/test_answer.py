"""`answer`, and the windows of queries and answers: rows before and after."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message
from tests.unit.mem_scheduler.test_handlers import PETS, logs

from memos.configs.mem_scheduler import GeneralSchedulerConfig
from memos.mem_scheduler.monitors.activity import ActivityMonitor
from memos.memory.item import ItemStatus, WorkingEntry
from memos.memory.store import ReplaceWorking, SetStatus
from memos.testing import ManualClock


def answer(parts: Parts, text: str, **fields: object) -> None:
    parts.clock.advance(1.0)  # type: ignore[attr-defined]
    parts.scheduler.submit_messages(message("answer", text, **fields))
    parts.drain()


def uses(parts: Parts, ids: list[str]) -> list[int]:
    return [item.use_count for item in parts.store.get(ids)]


@pytest.mark.parametrize("field", ["memory_ids", "used"])
def test_the_named_memories_are_counted_as_used(still: Parts, field: str) -> None:
    """Exactly the ids of the message's info gain a use, with the time, and the journal says by what."""
    ids = still.remember(*PETS)
    answer(still, "Max, and nothing of Elena.", info={field: [ids[1], "nope", ids[1]]}, task_id="T")
    assert uses(still, ids) == [0, 1, 0, 0]
    used = still.store.get([ids[1]])[0].used_at
    assert used is not None and used.timestamp() == still.clock.now()
    (row,) = [one for one in still.store.journal(task_id="T") if one.item_id]
    assert (row.op, row.item_id, row.cause.label) == ("touch", ids[1], "answer")


def test_an_answer_that_names_no_memory_used_none(still: Parts) -> None:
    """An empty list is believed, whatever the words say."""
    ids = still.remember(*PETS)
    still.store.apply([ReplaceWorking(CUBE, (WorkingEntry(ids[2]),), None, "test")])
    answer(still, PETS[2], info={"memory_ids": []})
    assert uses(still, ids) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("memory", "text", "used"),
    [
        ("I am allergic to nuts.", "You should not eat it: you are allergic to nuts.", 1),
        ("I am allergic to nuts.", "The nuts are on the table.", 0),
        ("我对坚果过敏。", "不行，因为你对坚果过敏。", 1),
        ("我对坚果过敏。", "今天天气很好。", 0),
    ],
)
def test_without_names_the_words_of_working_memory_decide(
    still: Parts, memory: str, text: str, used: int
) -> None:
    """A working memory that the answer repeats was used; a shared word is not enough."""
    ids = still.remember(memory, "The weather was fine in Oslo.")
    outside = still.remember(memory, position=9)
    still.store.apply([ReplaceWorking(CUBE, tuple(map(WorkingEntry, ids)), None, "test")])
    answer(still, text)
    assert uses(still, [*ids, *outside]) == [used, 0, 0]


def test_uses_stay_in_their_cube(still: Parts) -> None:
    """The same ids sent to two cubes count once, where the memories are; deleted ones count nowhere."""
    here, gone = still.remember("One.", "Two.")
    there = still.remember("Three.", cube_id="cube_2")
    still.store.apply([SetStatus((gone,), ItemStatus.DELETED, "test")])
    named = {"memory_ids": [here, gone, *there]}
    answer(still, "x", info=named)
    answer(still, "x", info=named, mem_cube_id="cube_2")
    assert uses(still, [here, *there]) == [1, 1]


def test_a_redelivered_answer_counts_once(still: Parts) -> None:
    """A crash between commit and finish repeats no use, no log and no place in the window."""
    (item_id,) = still.remember(PETS[0])
    built_in = still.scheduler.handlers["answer"]
    runs: list[int] = []

    def crashing(batch: list[object]) -> None:
        built_in(batch)  # type: ignore[arg-type]
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("killed between commit and finish")

    still.scheduler.register_handlers({"answer": crashing})
    answer(still, "Max.", info={"memory_ids": [item_id]})
    still.clock.advance(60.0)  # type: ignore[attr-defined]
    still.drain()
    assert len(runs) == 2
    assert uses(still, [item_id]) == [1]
    assert len(logs(still, "addMessage")) == 1
    assert still.services.activity.read_answers(still.store, CUBE, USER).count == 1


def test_the_window_of_answers_is_bounded_and_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """The last `context_window_size` answers stay, of each user and cube alone, with what they used."""
    activity = ActivityMonitor(window=3)
    with assembled(tmp_path, clock=clock, activity=activity) as parts:
        (item_id,) = parts.remember(PETS[0])
        for number in range(5):
            answer(parts, f"Answer {number}", info={"memory_ids": [item_id]})
        answer(parts, "Elsewhere", user_id="user_2")
        answer(parts, "Other cube", mem_cube_id="cube_2")
    with assembled(tmp_path, clock=clock, activity=activity) as parts:
        kept = parts.services.activity.read_answers(parts.store, CUBE, USER)
        assert [one.text for one in kept.window] == ["Answer 2", "Answer 3", "Answer 4"]
        assert {one.used for one in kept.window} == {(item_id,)}
        assert (kept.count, kept.used_count) == (5, 5)
        assert [
            one.text for one in parts.services.activity.read_answers(parts.store, CUBE, "user_2").window
        ] == ["Elsewhere"]
        answer(parts, "Answer 5")
        assert parts.services.activity.read_answers(parts.store, CUBE, USER).count == 6


def test_the_window_of_queries_is_bounded(tmp_path: Path, clock: ManualClock) -> None:
    """The last `context_window_size` queries stay; the counts of keywords go on."""
    with assembled(tmp_path, clock=clock, activity=ActivityMonitor(window=2)) as parts:
        for text in ("golden retriever", "golden bridge", "peanut butter"):
            clock.advance(1.0)
            parts.scheduler.submit_messages(message("mem_update", text))
            parts.drain()
        state = parts.services.activity.read(parts.store, CUBE, USER)
        assert [one.text for one in state.queries] == ["golden bridge", "peanut butter"]
        assert state.keyword_counts["golden"] == 2


def test_queries_and_answers_of_one_user_do_not_overwrite_each_other(still: Parts) -> None:
    """The two windows stand apart, because tasks of different lanes write them."""
    answer(still, "Hello.")
    still.scheduler.submit_messages(message("mem_update", "golden retriever"))
    still.drain()
    answer(still, "Hello again.")
    monitor = still.services.activity
    assert len(monitor.read(still.store, CUBE, USER).queries) == 1
    assert len(monitor.read_answers(still.store, CUBE, USER).window) == 2


def test_the_interval_counts_for_each_cube_alone(tmp_path: Path, clock: ManualClock) -> None:
    """A recall in one cube does not put off the one that is due in another, also after a restart."""
    config = GeneralSchedulerConfig(query_trigger_interval=60.0)

    def ask(parts: Parts, cube_id: str) -> bool:
        clock.advance(1.0)
        parts.scheduler.submit_messages(message("mem_update", "golden retriever Max", mem_cube_id=cube_id))
        parts.drain()
        return "unchanged" not in logs(parts, "scheduleMemory")[-1].log_content

    with assembled(tmp_path, clock=clock, config=config) as parts:
        for cube_id in ("cube_1", "cube_2"):
            parts.remember(PETS[0], cube_id=cube_id)
            assert ask(parts, cube_id)
        clock.advance(40.0)
        assert not ask(parts, "cube_1") and not ask(parts, "cube_2")
    with assembled(tmp_path, clock=clock, config=config) as parts:
        clock.advance(30.0)
        assert ask(parts, "cube_1")
        clock.advance(40.0)
        assert ask(parts, "cube_2") and not ask(parts, "cube_1")
