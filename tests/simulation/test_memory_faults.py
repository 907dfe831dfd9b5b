"""Workers that die or stand still while they change memory: the same rows as an undisturbed run, once.

A day of one cube (an answer, reading, organising page by page, feedback, a fine search, forgetting) is
run with a fault at every single step outside the worker; afterwards rows, working memory, states,
journal and logs must be those of the run without faults. Only times and made-up ids may differ.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.faults import QUEUE_STEPS, STORE_STEPS, Crash, Fault, Faulty, Schedule
from tests.unit.mem_scheduler.derived import said
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message

from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.handlers import mem_organize
from memos.mem_scheduler.monitors.retention import RetentionRules
from memos.mem_scheduler.queues.local import LocalQueue
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.memory.item import ItemStatus, ReadState, WorkingEntry
from memos.memory.store import ItemFilter, ReplaceWorking
from memos.testing import ManualClock

LEASE_S = 30.0
DAY_S = 86_400.0
STORY: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("answer", "You live in Paris.", {"memory_ids": ["turn1"]}),
    ("mem_read", '["turn3"]', None),
    ("mem_organize", '{"scope": "cube"}', None),
    ("mem_feedback", json.dumps({"feedback_content": "No, I live in Rome.", "retrieved_memory_ids": ["turn2"]}), None),
    ("api_mix_search", '{"query": "bicycle shop"}', None),
    ("mem_organize", '{"scope": "forget"}', None),
)  # fmt: skip


def run_story(folder: Path, *faults: Fault) -> tuple[dict[str, Any], Schedule]:
    """The state after the story, and the faults that struck."""
    clock = ManualClock()
    queue = LocalQueue(clock=clock, random=random.Random(7))
    rules = RetentionRules(ttl_days=100)
    with assembled(folder, clock=clock, queue=queue, retention=rules) as parts:
        parts.remember("The bicycle shop is on Harbour Street.", id="old", position=90)
        clock.advance(90 * DAY_S)
        said(parts, "I live in Paris.", ids=["turn1", "fact1"])
        clock.advance(DAY_S)
        said(parts, "I live in Berlin.", ids=["turn2", "fact2"])
        clock.advance(DAY_S)
        said(parts, "I love sushi.", ids=["turn3", "fact3"], read=ReadState.DUE)
        parts.store.apply([ReplaceWorking(CUBE, (WorkingEntry("fact1"), WorkingEntry("turn2")), None, "t")])
        schedule = Schedule(list(faults))
        made = _Workers(parts, clock, schedule)
        schedule.on_pause = made.another_takes_over
        for label, content, info in STORY:
            clock.advance(10 * DAY_S if "forget" in content else 60.0)
            parts.scheduler.submit_messages(message(label, content, info=info))
            made.run()
        assert parts.queue.dead.list() == []
        assert {one.state for one in parts.queue.statuses()} == {TaskState.COMPLETED}
        parts.scheduler.keep_house()
        assert parts.store.pending_followups() == []
        assert parts.store.marks(limit=100) == []
        assert parts.store.verify() == []
        return _state(parts), schedule


class _Workers:
    """Workers over one store and queue; whoever dies is replaced once its lease is over."""

    def __init__(self, parts: Parts, clock: ManualClock, schedule: Schedule) -> None:
        self._parts, self._clock, self._schedule = parts, clock, schedule

    def worker(self) -> GeneralScheduler:
        queue = Faulty(self._parts.queue, QUEUE_STEPS, self._schedule)
        store = Faulty(self._parts.store, STORE_STEPS, self._schedule)
        services = replace(self._parts.services, store=store)
        return GeneralScheduler(self._parts.scheduler.config, queue=queue, services=services)  # type: ignore[arg-type]

    def run(self) -> None:
        worker = self.worker()
        for _ in range(200):
            try:
                while worker.run_once(lanes_max=4):
                    pass
            except Crash:
                self._clock.advance(LEASE_S + 1.0)
                worker = self.worker()
                continue
            status = self._parts.scheduler.get_tasks_status()
            if status["remaining"] == status["running"] == 0:
                return
            self._clock.advance(LEASE_S + 1.0)
        raise AssertionError("not finished")

    def another_takes_over(self) -> None:
        self._clock.advance(LEASE_S + 1.0)
        other = self.worker()
        while other.run_once(lanes_max=4):
            pass


def _state(parts: Parts) -> dict[str, Any]:
    """Everything but times and the ids that were made up on the way."""
    items = parts.store.find(ItemFilter(statuses=tuple(ItemStatus)), limit=500).items
    named = {item.id: item.memory for item in items}
    return {
        "rows": sorted(
            (item.memory, item.kind.value, item.status.value, item.read.value, item.use_count, item.version,
             item.valid_until is not None, sorted(item.extra))
            for item in items
        ),
        "working": [item.memory for item in parts.store.working(CUBE).items],
        "answers": parts.services.activity.read_answers(parts.store, CUBE, USER).count,
        "searches": [
            [named[one] for one in search.ids]
            for search in parts.services.searches.read(parts.store, CUBE, USER).searches
        ],
        "journal": Counter(
            (row.op, named.get(row.item_id, ""), row.cause.label)
            for row in parts.store.journal(cube_id=CUBE, limit=1_000)
        ),
        "logs": Counter((log.label, log.log_content) for _, log in parts.store.web_logs(limit=1_000)),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that organising chains further messages."""
    monkeypatch.setattr(mem_organize, "PAGE_ITEMS", 2)


def test_without_faults(tmp_path: Path) -> None:
    """The story does what it is meant to do (otherwise the comparison below would say nothing)."""
    state, _ = run_story(tmp_path)
    by_text = {row[0]: row for row in state["rows"]}
    assert by_text["The user lives in Paris."][2] == "archived"
    assert by_text["The user lives in Berlin."][2] == "archived"
    assert by_text["The user lives in Rome."][2] == "activated"
    assert by_text["The bicycle shop is on Harbour Street."][2] == "archived"
    assert by_text["I live in Paris."][4] == 1
    assert by_text["I love sushi."][3] == "done"
    assert state["working"] == ["The user lives in Rome."]
    assert (state["answers"], len(state["searches"])) == (1, 1)


STEPS = 120  # more than the story takes: see the last assertion


@pytest.mark.parametrize("kind", ["crash", "pause"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_at_each_step(tmp_path: Path, kind: str, when: str) -> None:
    """A worker that dies, or stands still past its lease, at any step leaves what an undisturbed run leaves."""
    (tmp_path / "0").mkdir()
    expected, _ = run_story(tmp_path / "0")
    reached: set[str] = set()
    finished = False
    for step in range(1, STEPS + 1):
        folder = tmp_path / str(step)
        folder.mkdir()
        state, schedule = run_story(folder, Fault(step, when, kind))  # type: ignore[arg-type]
        assert state == expected, f"{kind} {when} step {step} ({schedule.struck})"
        reached |= {name for name, _ in schedule.struck}
        finished = not schedule.struck
        if finished:
            break
    assert finished, "the story has more steps than were tried"
    assert reached >= {"claim", "apply_once", "finish"}
