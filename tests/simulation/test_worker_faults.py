"""Workers that die or stand still at any step: no message lost, no effect twice, no working set torn.

Everything runs in one thread under a seeded clock: a worker is a scheduler whose batches are run by
hand; a dead one is replaced by a new one over the same store and queue once its lease is over, and while
one stands still another does its work. A failing seed is a test case of its own: run it with -k.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.faults import QUEUE_STEPS, STORE_STEPS, Crash, Fault, Faulty, Schedule
from tests.unit.mem_scheduler.parts import Parts, assembled

from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.queues.local import LocalQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.testing import ManualClock

LEASE_S = 30.0
FACTS = (
    "The golden retriever puppy is called Max.",
    "Max likes peanut butter.",
    "The neighbour Priya walks her beagle Coco by the canal.",
    "Elena feeds the puppy on Tuesdays.",
    "The vet is on Harbour Street.",
    "The next vaccination is in March.",
)
QUERIES = (
    "What is the golden retriever puppy called?",
    "Who walks the beagle by the canal?",
    "When does Elena feed the puppy?",
    "Where is the vet?",
)


@dataclass
class World:
    """Workers over one store and one queue, and the faults that await them."""

    parts: Parts
    clock: ManualClock
    schedule: Schedule
    handled: Counter[str]

    def worker(self) -> GeneralScheduler:
        """A new worker, whose every step outside itself may fail."""
        queue = Faulty(self.parts.queue, QUEUE_STEPS, self.schedule)
        store = Faulty(self.parts.store, STORE_STEPS, self.schedule)
        services = replace(self.parts.services, store=store)
        worker = GeneralScheduler(self.parts.scheduler.config, queue=queue, services=services)  # type: ignore[arg-type]

        def custom(batch: list[ScheduleMessageItem]) -> None:
            for one in batch:
                self.handled[one.item_id] += 1
                worker.submit_messages(one.model_copy(update={"label": "answer"}))

        worker.register_handlers({"custom": custom})
        return worker

    def run(self) -> None:
        """Run workers until nothing is left; whoever dies is replaced after the lease is over."""
        worker = self.worker()
        for _ in range(200):
            try:
                while worker.run_once(lanes_max=4):
                    pass
            except Crash:
                self.clock.advance(LEASE_S + 1.0)
                worker = self.worker()
                continue
            status = self.parts.scheduler.get_tasks_status()
            if status["remaining"] == status["running"] == 0:
                return
            self.clock.advance(LEASE_S + 1.0)
        raise AssertionError(f"not finished: {self.parts.scheduler.get_tasks_status()}")

    def another_worker_takes_over(self) -> None:
        """What happens while a worker stands still for longer than its lease."""
        self.clock.advance(LEASE_S + 1.0)
        other = self.worker()
        while other.run_once(lanes_max=4):
            pass
        # The marks of what the other one settled go: from here on only its lease tells the first one that
        # it is too late. A submit of a user's handler looks at the lease just before, not in one step with
        # the queue: there the mark of the child is what holds.
        if self.schedule.struck[-1][0] != "submit":
            other.keep_house()


OLDER = re.compile(r"with (\d+) older queries that waited")


@contextmanager
def world(folder: Path, *faults: Fault, **replaced: Any) -> Iterator[World]:
    clock = ManualClock()
    queue = LocalQueue(clock=clock, random=random.Random(7))
    with assembled(folder, clock=clock, queue=queue, **replaced) as parts:
        made = World(parts, clock, Schedule(list(faults)), Counter())
        made.schedule.on_pause = made.another_worker_takes_over
        yield made


def submit(made: World, cubes: tuple[str, ...], queries: int) -> list[ScheduleMessageItem]:
    """Facts in each cube, then a conversation of queries, answers, adds and custom tasks."""
    sent: list[ScheduleMessageItem] = []
    for cube in cubes:
        ids = made.parts.remember(*FACTS, cube_id=cube)
        made.clock.advance(1.0)
        for number in range(queries):
            common = {"user_id": "u", "mem_cube_id": cube, "session_id": "s"}
            text = QUERIES[number % len(QUERIES)]
            sent += [
                ScheduleMessageItem(label="query", content=text, item_id=f"{cube}-q{number}", **common),
                ScheduleMessageItem(label="answer", content="Yes.", item_id=f"{cube}-a{number}", **common),
                ScheduleMessageItem(
                    label="add", content=json.dumps(ids[:1]), item_id=f"{cube}-d{number}", **common
                ),
                ScheduleMessageItem(label="custom", content="later", item_id=f"{cube}-c{number}", **common),
            ]
    made.parts.scheduler.submit_messages(sent)
    return sent


def check(made: World, sent: list[ScheduleMessageItem]) -> None:
    """Nothing lost, everything once, in order, nothing torn, nothing left behind."""
    parts = made.parts
    statuses = parts.queue.statuses()
    assert parts.queue.dead.list() == []
    assert {one.state for one in statuses} == {TaskState.COMPLETED}
    queries = [one for one in sent if one.label == "query"]
    customs = [one for one in sent if one.label == "custom"]
    labels = Counter(one.label for one in statuses)
    assert labels["mem_update"] == len(queries)
    assert labels["answer"] == len(queries) + len(customs)
    logs = [entry for _, entry in reversed(parts.store.web_logs(limit=10_000))]
    told = Counter(
        row["ref_id"] for one in logs if one.label == "addMessage" for row in one.memcube_log_content or ()
    )
    assert told == Counter(one.item_id for one in sent if one.label in ("query", "answer", "custom"))
    assert sum(one.label == "addMemory" for one in logs) == len([one for one in sent if one.label == "add"])
    updates = [one for one in logs if one.label == "scheduleMemory"]
    # A waiting query may be absorbed by a newer one, whose log says for how many it was.
    absorbed = [int(number) for one in updates for number in OLDER.findall(one.log_content)]
    assert len(updates) + sum(absorbed) == len(queries)
    assert set(made.handled) == {one.item_id for one in customs}
    for cube in {one.mem_cube_id for one in sent}:
        _check_cube(parts, cube, [one.item_id for one in queries if one.mem_cube_id == cube])
    parts.scheduler.keep_house()
    assert parts.store.pending_followups() == []
    assert parts.store.marks(limit=100) == []
    assert parts.store.verify() == []


def _check_cube(parts: Parts, cube: str, asked: list[str]) -> None:
    logs = [entry for _, entry in reversed(parts.store.web_logs(cube_id=cube, limit=10_000))]
    heard = [
        row["ref_id"] for one in logs if one.label == "addMessage" for row in one.memcube_log_content or ()
    ]
    assert [one for one in heard if one in asked] == asked  # the lane kept its order
    replaced = [row for row in parts.store.journal(cube_id=cube, limit=10_000) if row.op == "replace_working"]
    assert all(count == 1 for count in Counter(row.cause.message_key for row in replaced).values())
    working = parts.store.working(cube)
    assert working.version == len(replaced)
    assert len(working.entries) == len(working.items)
    last = [one for one in logs if one.label == "scheduleMemory" and "unchanged" not in one.log_content][-1]
    present = [row["ref_id"] for row in last.memcube_log_content or () if row["type"] != "removed"]
    assert sorted(present) == sorted(entry.item_id for entry in working.entries)
    assert (
        parts.services.activity.read(parts.store, cube, "u").queries[-1].text == QUERIES[(len(asked) - 1) % 4]
    )


def test_without_faults(tmp_path: Path) -> None:
    """The checks hold for an undisturbed run (otherwise they would say nothing below)."""
    with world(tmp_path) as made:
        sent = submit(made, ("a", "b"), 3)
        made.run()
        check(made, sent)
        assert set(made.handled.values()) == {1}


STEPS = 40  # more than one conversation takes: see the last assertion


@pytest.mark.parametrize("kind", ["crash", "pause"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_at_each_step(tmp_path: Path, kind: str, when: str) -> None:
    """A worker that dies, or stands still past its lease, at any single step costs nothing and repeats
    no effect."""
    reached: set[str] = set()
    for step in range(1, STEPS + 1):
        folder = tmp_path / str(step)
        folder.mkdir()
        with world(folder, Fault(step, when, kind)) as made:  # type: ignore[arg-type]
            sent = submit(made, ("a",), 1)
            made.run()
            check(made, sent)
            reached |= {name for name, _ in made.schedule.struck}
            finished = not made.schedule.struck
        if finished:
            break
    assert finished, "the conversation takes more steps than were tried"
    assert {"claim", "finish", "submit", "apply_once", "working", "was_applied"} <= reached


@pytest.mark.parametrize("seed", range(30))
def test_several_faults_anywhere(tmp_path: Path, seed: int) -> None:
    """Up to three faults at random steps over two cubes: the same guarantees."""
    source = random.Random(seed)
    faults = [
        Fault(source.randint(1, 120), source.choice(("before", "after")), source.choice(("crash", "pause")))  # type: ignore[arg-type]
        for _ in range(3)
    ]
    with world(tmp_path, *faults) as made:
        sent = submit(made, ("a", "b"), 3)
        made.run()
        check(made, sent)


@pytest.mark.parametrize("step", range(1, 13))
def test_the_whole_process_dies(tmp_path: Path, step: int) -> None:
    """When the process dies with the queue in its memory, what was committed is followed up by the next
    one: a query that was told of has its working memory updated, once."""
    with world(tmp_path, Fault(step, "after", "crash")) as made:
        made.parts.remember(*FACTS, cube_id="a")
        made.clock.advance(1.0)
        made.parts.scheduler.submit_messages(
            ScheduleMessageItem(user_id="u", mem_cube_id="a", label="query", content=QUERIES[0])
        )
        worker = made.worker()
        try:
            while worker.run_once(lanes_max=4):
                pass
        except Crash:
            pass
    with world(tmp_path) as made:
        made.parts.scheduler.keep_house()
        made.run()
        logs = Counter(entry.label for _, entry in made.parts.store.web_logs())
        assert logs["scheduleMemory"] == logs["addMessage"]
        assert made.parts.store.working("a").version == logs["addMessage"]
        made.parts.scheduler.keep_house()
        assert made.parts.store.pending_followups() == []
        assert made.parts.store.marks(limit=100) == []
