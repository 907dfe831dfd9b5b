"""Reading under faults: workers that die or stand still at any step derive every fact once.

The same world as in `test_worker_faults`; a turn is marked as read only in the transaction that stores
what it taught, so at no moment is a turn read whose facts are not there.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.simulation.faults import Crash, Fault
from tests.simulation.test_worker_faults import World, world

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.memory.item import ItemStatus, ReadState
from memos.memory.store import ItemFilter
from memos.testing import ScriptedLLM

TALK = (
    "I live in Paris.",
    "I love sushi. 我对花生过敏。",
    "I moved to Berlin.",
    "I live in Berlin now.",
    "Hello there!",
)
FACTS = {  # text -> (status, sources, uses)
    "The user lives in Paris.": (ItemStatus.ARCHIVED, 1, 0),
    "The user lives in Berlin.": (ItemStatus.ACTIVATED, 2, 1),
    "The user likes sushi.": (ItemStatus.ARCHIVED, 1, 0),
    "The user does not like sushi.": (ItemStatus.ACTIVATED, 1, 0),
    "用户对花生过敏。": (ItemStatus.ACTIVATED, 1, 0),
}
STEPS = 60


def submit(made: World, *cubes: str) -> None:
    """Each turn is read by a message of its own, then a preference turns round; cubes take turns."""
    for text in TALK:
        for cube in cubes:
            made.clock.advance(1.0)
            ids = made.parts.remember(text, cube_id=cube, user_id="u", role="user", read=ReadState.DUE)
            send(made, cube, "mem_read", json.dumps(ids))
    for cube in cubes:
        send(made, cube, "pref_add", "I hate sushi.")


def send(made: World, cube: str, label: str, content: str) -> None:
    made.parts.scheduler.submit_messages(
        ScheduleMessageItem(user_id="u", mem_cube_id=cube, label=label, content=content)
    )


def check(made: World, *cubes: str) -> None:
    """Every fact once, every turn read, every log once, nothing left behind."""
    parts = made.parts
    assert parts.queue.dead.list() == []
    assert {one.state for one in parts.queue.statuses()} == {TaskState.COMPLETED}
    for cube in cubes:
        every = ItemFilter(cube_ids=(cube,), statuses=tuple(ItemStatus))
        items = parts.store.find(every, limit=100).items
        turns = [item for item in items if item.raw]
        assert [item.read for item in turns] == [ReadState.DONE] * len(TALK)
        facts = [item for item in items if not item.raw]
        assert len(facts) == len(FACTS)
        assert {item.memory: (item.status, len(item.sources), item.use_count) for item in facts} == FACTS
        told = [
            row["ref_id"]
            for _, entry in parts.store.web_logs(cube_id=cube, label="addMemory", limit=500)
            for row in entry.memcube_log_content or ()
        ]
        assert len(told) == len(set(told))
        assert {item.id for item in turns} <= set(told)
        reads = [row.item_id for row in parts.store.journal(cube_id=cube, limit=500) if row.op == "read"]
        assert sorted(reads) == sorted(item.id for item in turns)
    parts.scheduler.keep_house()
    assert parts.store.pending_followups() == [] and parts.store.marks(limit=100) == []
    assert {one.state for one in parts.queue.statuses()} == {TaskState.COMPLETED}
    assert parts.store.verify() == []


def test_without_faults(tmp_path: Path) -> None:
    """The checks hold for an undisturbed run."""
    with world(tmp_path) as made:
        submit(made, "a", "b")
        made.run()
        check(made, "a", "b")


@pytest.mark.parametrize("kind", ["crash", "pause"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_at_each_step(tmp_path: Path, kind: str, when: str) -> None:
    """A worker that dies, or stands still past its lease, at any single step derives no fact twice."""
    reached: set[str] = set()
    for step in range(1, STEPS + 1):
        folder = tmp_path / str(step)
        folder.mkdir()
        with world(folder, Fault(step, when, kind)) as made:  # type: ignore[arg-type]
            submit(made, "a")
            made.run()
            check(made, "a")
            reached |= {name for name, _ in made.schedule.struck}
            finished = not made.schedule.struck
        if finished:
            break
    assert finished, "the conversation takes more steps than were tried"
    assert {"claim", "finish", "apply_once", "was_applied"} <= reached


@pytest.mark.parametrize("seed", range(20))
def test_several_faults_anywhere(tmp_path: Path, seed: int) -> None:
    """Up to three faults at random steps over two cubes: the same guarantees."""
    source = random.Random(seed)
    faults = [
        Fault(source.randint(1, 80), source.choice(("before", "after")), source.choice(("crash", "pause")))  # type: ignore[arg-type]
        for _ in range(3)
    ]
    with world(tmp_path, *faults) as made:
        submit(made, "a", "b")
        made.run()
        check(made, "a", "b")


@pytest.mark.parametrize("step", range(1, 25))
def test_the_whole_process_dies(tmp_path: Path, step: int) -> None:
    """The queue's memory is gone: the next process reads what is due, and only that."""
    with world(tmp_path, Fault(step, "after", "crash")) as made:
        submit(made, "a")
        worker = made.worker()
        try:
            while worker.run_once(lanes_max=1):
                pass
        except Crash:
            pass
    with world(tmp_path) as made:
        made.clock.advance(1_000.0)
        made.parts.scheduler.keep_house()
        made.run()
        if not made.parts.store.find(ItemFilter(cube_ids=("a",), tags=("dislike",))).total:
            # No turn says it, so only its sender can say it again.
            send(made, "a", "pref_add", "I hate sushi.")
            made.run()
        check(made, "a")
        before = len(made.parts.queue.statuses())
        made.parts.scheduler.keep_house()
        assert len(made.parts.queue.statuses()) == before


LINES = ("The old boat is called Petrel.", "Zoe painted Petrel green.", "Ha, same as ever then!")


def statement(item: int, quote: str, text: str) -> dict[str, object]:
    evidence = [{"item": item, "quote": quote}]
    said = {"kind": "event", "key": "boat", "tags": [], "date": "", "confidence": 0.8}
    return {"text": text, "evidence": evidence, **said}


REPLY = {
    "statements": [
        statement(0, "boat is called Petrel", "Petrel is the name of the old boat."),
        statement(1, "painted Petrel", "The boat Petrel was painted green by Zoe."),
        statement(1, "painted Petrel blue", "The boat Petrel is blue."),
    ],
    "nothing": "",
}


@pytest.mark.parametrize("kind", ["crash", "pause"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_at_each_step_with_a_model(tmp_path: Path, kind: str, when: str) -> None:
    """A worker that dies or stands still anywhere: turns are read with what the model read out of them, once."""
    for step in range(1, STEPS + 1):
        folder = tmp_path / str(step)
        folder.mkdir()
        llm = ScriptedLLM([REPLY] * 20)
        with world(folder, Fault(step, when, kind), reader_llm=llm) as made:  # type: ignore[arg-type]
            given = {"cube_id": "a", "user_id": "u", "role": "user", "read": ReadState.DUE}
            ids = made.parts.remember(*LINES, **given)
            send(made, "a", "mem_read", json.dumps(ids))
            made.run()
            items = made.parts.store.find(ItemFilter(statuses=tuple(ItemStatus)), limit=100).items
            turns = {item.id: item for item in items if item.raw}
            read = [item.memory for item in items if item.extra.get("read_by")]
            assert sorted(read) == sorted(row["text"] for row in REPLY["statements"][:2])  # type: ignore[index]
            assert {item.read for item in turns.values()} == {ReadState.DONE} and set(turns) == set(ids)
            assert "reading" in turns[ids[2]].extra and made.parts.queue.dead.list() == []
            assert made.parts.store.verify() == [] and 1 <= len(llm.calls) <= 3
            if not made.schedule.struck:
                return
    raise AssertionError("the reading takes more steps than were tried")
