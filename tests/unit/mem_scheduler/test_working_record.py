"""What `mem_update` keeps about working memory: what answers used decides, is counted, and survives."""

from __future__ import annotations

from pathlib import Path

from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message

from memos import metrics
from memos.mem_scheduler.schemas.task_schemas import ANSWER_TASK_LABEL, MEM_UPDATE_TASK_LABEL
from memos.memory.item import Capacities, ItemStatus
from memos.memory.store import SetStatus
from memos.memory.working import PINNED_TAG
from memos.memory.working_record import STATE, WorkingRecord
from memos.testing import ManualClock

CAT, CAR, TEA = "The cat sleeps on the red sofa.", "The car is parked in Bern.", "Ann drinks green tea."
MORE = ("The cat chases mice.", "A cat needs a vet.")


def record_of(parts: Parts) -> WorkingRecord:
    return WorkingRecord.from_json(parts.store.state(CUBE, STATE))


def standing(parts: Parts) -> list[str]:
    return [item.memory for item in parts.store.working(CUBE).items]


def ask(parts: Parts, text: str) -> None:
    parts.scheduler.submit_messages([message(MEM_UPDATE_TASK_LABEL, text)])
    parts.drain()


def answer(parts: Parts, *item_ids: str) -> None:
    told = message(ANSWER_TASK_LABEL, "as it is", info={"memory_ids": list(item_ids)})
    parts.scheduler.submit_messages([told])
    parts.drain()


def test_what_an_answer_used_stays_through_another_query(tmp_path: Path, clock: ManualClock) -> None:
    """Without the answer the next query clears the place, with it the memory stays and the log says why."""
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=2)) as parts:
        cat, *_ = parts.remember(CAT, CAR, TEA)
        ask(parts, "where does the cat sleep")
        ask(parts, "where is the car parked")
        assert CAT not in standing(parts)
        ask(parts, "where does the cat sleep tonight")
        answer(parts, cat)
        ask(parts, "which tea does Ann drink")
        assert standing(parts) == [TEA, CAT]
        assert "answers used it" in parts.store.working(CUBE).entries[1].reason


def test_uses_are_counted_by_the_place_before_their_query(tmp_path: Path, clock: ManualClock) -> None:
    """A memory that recall had to bring is no hit; the same one, used again after a repeat, is one."""
    before = (
        metrics.WORKING_MEMORY_USES.value(stood="nowhere"),
        metrics.WORKING_MEMORY_USES.value(stood="place"),
    )
    with assembled(tmp_path, clock=clock) as parts:
        cat, *_ = parts.remember(CAT, CAR, TEA)
        ask(parts, "where does the cat sleep")
        answer(parts, cat)
        ask(parts, "where is the car parked")  # takes the use in: the cat was nowhere before
        assert (record_of(parts).uses.beyond, record_of(parts).uses.by_place) == (1, {})
        ask(parts, "where does the cat sleep")
        answer(parts, cat)
        ask(parts, "which tea does Ann drink")
        uses = record_of(parts).uses
        assert (uses.beyond, sum(uses.by_place.values()), uses.within(20)) == (1, 1, 0.5)
        after = (
            metrics.WORKING_MEMORY_USES.value(stood="nowhere"),
            metrics.WORKING_MEMORY_USES.value(stood="place"),
        )
        assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


def test_a_query_without_recall_counts_as_one(tmp_path: Path, clock: ManualClock) -> None:
    """What sufficed waits with the user and goes into the record with the next working set."""
    with assembled(tmp_path, clock=clock) as parts:
        parts.remember(CAT, CAR, TEA)
        clock.advance(1)
        ask(parts, "where does the cat sleep")
        clock.advance(1)
        ask(parts, "where does the cat sleep")
        assert record_of(parts).sufficed == 0
        assert parts.services.activity.read(parts.store, CUBE, USER).sufficed == 1
        ask(parts, "where is the car parked")
        assert (record_of(parts).sufficed, record_of(parts).replaced) == (1, 2)
        assert parts.services.activity.read(parts.store, CUBE, USER).sufficed == 0


def test_every_change_is_counted_by_its_cause(tmp_path: Path, clock: ManualClock) -> None:
    """What came and left since the cube was made, also what was deleted meanwhile; a restart keeps it."""
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=2)) as parts:
        cat, _, _ = parts.remember(CAT, CAR, TEA)
        ask(parts, "where does the cat sleep")
        parts.store.apply([SetStatus((cat,), ItemStatus.DELETED, "test")])
        ask(parts, "where is the car parked")
        counted = record_of(parts).changes
        assert counted["gone"] == 1
        came = counted.get("recalled", 0) + counted.get("returned", 0)
        left = sum(counted.values()) - came
        assert came - left == len(standing(parts))
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=2)) as again:
        assert record_of(again).changes == counted
        ask(again, "which tea does Ann drink")
        assert record_of(again).replaced == 3


def test_a_deleted_memory_does_not_come_back_by_its_uses(tmp_path: Path, clock: ManualClock) -> None:
    """Heat names a memory; one that is gone gets no place for it."""
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=2)) as parts:
        cat, *_ = parts.remember(CAT, CAR, TEA)
        ask(parts, "where does the cat sleep")
        answer(parts, cat, cat)
        parts.store.apply([SetStatus((cat,), ItemStatus.DELETED, "test")])
        ask(parts, "where is the car parked")
        assert CAT not in standing(parts) and cat not in record_of(parts).order.ids
        assert parts.store.verify() == []


def test_a_pinned_memory_keeps_its_place(tmp_path: Path, clock: ManualClock) -> None:
    """The tag keeps a memory in working memory, whatever is asked."""
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=2)) as parts:
        parts.remember(CAT, tags=(PINNED_TAG,))
        parts.remember(CAR, TEA, *MORE)
        ask(parts, "who sleeps on the red sofa")
        for text in (
            "where is the car parked",
            "which tea does Ann drink",
            "the cat needs a vet and chases mice",
        ):
            ask(parts, text)
            assert CAT in standing(parts)


def test_how_sure_a_recall_was_is_told_by_its_scores_alone(tmp_path: Path, clock: ManualClock) -> None:
    """What stands there for its uses, with a low score, does not make a recall look surer than it was."""
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=3)) as parts:
        _, car, tea, *_ = parts.remember(CAT, CAR, TEA, *MORE)
        ask(parts, "the cat sleeps and chases mice and needs a vet")
        first, middle, _ = parts.store.working(CUBE).entries
        sure = record_of(parts).spread
        assert sure == first.score - middle.score
        ask(parts, "where is the car parked and which tea does Ann drink")
        for _ in range(3):
            answer(parts, car, tea)
        ask(parts, "the cat sleeps and chases mice, and it needs a vet")
        kept = parts.store.working(CUBE).entries[1]
        assert "answers used it" in kept.reason
        spread = record_of(parts).spread
        assert spread is not None and abs(spread - sure) < 0.5 * abs(first.score - kept.score)
