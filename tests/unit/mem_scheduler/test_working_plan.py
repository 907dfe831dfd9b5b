"""The pure decision about the places of working memory."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos.errors import InvalidInput
from memos.memory.item import WorkingEntry
from memos.memory.working import (
    GHOSTS_MAX,
    GHOSTS_PER_PLACE,
    Balance,
    Candidate,
    Cause,
    Order,
    WorkingPlan,
    plan_working,
    remembered_max,
)
from memos.memory.working_record import ACCESSES_MAX, Accesses, Use, WorkingRecord
from memos.memory.working_report import report

BEFORE = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 1, 2, tzinfo=UTC)


def entry(item_id: str) -> WorkingEntry:
    return WorkingEntry(item_id, 0.5, "earlier", BEFORE)


def test_the_best_take_the_places() -> None:
    """New and old compete by score alone; what leaves says why."""
    plan = plan_working(
        [entry("old-good"), entry("old-weak"), entry("old-gone")],
        [
            Candidate("new", 0.8, "recalled: x"),
            Candidate("old-good", 0.9, "fits"),
            Candidate("old-weak", 0.1, "fits"),
        ],
        capacity=2,
        now=NOW,
    )
    assert [one.item_id for one in plan.entries] == ["old-good", "new"]
    assert [one.item_id for one in plan.added] == ["new"]
    assert [one.item_id for one in plan.kept] == ["old-good"]
    assert {one.item_id: one.reason.split(":")[0] for one in plan.removed} == {
        "old-weak": "outranked",
        "old-gone": "does not bear on the query",
    }
    assert plan.changes_anything


def test_an_entry_that_stays_keeps_its_admission() -> None:
    """A kept entry gets the new score and reason, not a new date."""
    (kept,) = plan_working([entry("a")], [Candidate("a", 0.7, "fits")], capacity=5, now=NOW).entries
    assert (kept.score, kept.admitted_at, kept.reason) == (0.7, BEFORE, "kept: fits")


def test_of_equal_scores_the_old_one_stays() -> None:
    """A tie does not push anything out."""
    candidates = [Candidate("new", 0.5, ""), Candidate("old", 0.5, "")]
    plan = plan_working([entry("old")], candidates, capacity=1, now=NOW)
    assert [one.item_id for one in plan.entries] == ["old"]
    assert not plan.changes_anything


def test_the_better_of_two_candidates_for_one_item_counts() -> None:
    """An item takes one place, by its best score."""
    candidates = [Candidate("a", 0.2, "weak"), Candidate("a", 0.9, "strong"), Candidate("b", 0.5, "")]
    plan = plan_working([], candidates, capacity=5, now=NOW)
    assert [(one.item_id, one.score) for one in plan.entries] == [("a", 0.9), ("b", 0.5)]


@pytest.mark.parametrize("capacity", [0, -1])
def test_no_places_is_no_working_memory(capacity: int) -> None:
    """A capacity below 1 is refused."""
    with pytest.raises(InvalidInput, match="capacity"):
        plan_working([], [], capacity=capacity, now=NOW)


names = st.sampled_from("abcdefgh")


@given(
    old=st.lists(names, unique=True),
    scored=st.lists(st.tuples(names, st.floats(0, 1))),
    capacity=st.integers(1, 10),
)
def test_a_plan_accounts_for_everything(
    old: list[str], scored: list[tuple[str, float]], capacity: int
) -> None:
    """Entries are unique, sorted, within capacity; added, kept and removed part old and new exactly."""
    plan = plan_working(
        [entry(one) for one in old],
        [Candidate(one, score, "") for one, score in scored],
        capacity=capacity,
        now=NOW,
    )
    ids = [one.item_id for one in plan.entries]
    scores = [one.score for one in plan.entries]
    assert len(set(ids)) == len(ids) <= capacity
    assert scores == sorted(scores, reverse=True)
    assert set(ids) == {one.item_id for one in (*plan.added, *plan.kept)}
    assert {one.item_id for one in plan.removed} == set(old) - set(ids)
    best = {one: max(score for name, score in scored if name == one) for one, _ in scored}
    left_out = set(best) - set(ids)
    assert not left_out or not scores or max(best[one] for one in left_out) <= min(scores)


# -- over whole histories ----------------------------------------------------------------------------------

turns = st.lists(
    st.tuples(
        st.lists(st.tuples(names, st.floats(0, 1))),  # what recall finds
        st.lists(names, max_size=4),  # what the answer uses
        st.sets(names, max_size=3),  # what is pinned
    ),
    max_size=12,
)


def played(
    history: list[tuple[list[tuple[str, float]], list[str], set[str]]], capacity: int
) -> list[WorkingPlan]:
    """The plans of a history, each going on from the one before, as `mem_update` does."""
    plans: list[WorkingPlan] = []
    record, uses = WorkingRecord(), list[Use]()
    for found, used, pinned in history:
        plan = plan_working(
            plans[-1].entries if plans else (),
            [Candidate(name, score, "fits") for name, score in found],
            capacity=capacity,
            now=NOW,
            order=record.order,
            used=Counter(use.item_id for use in uses),
            balance=record.balanced(uses),
            pinned=pinned,
        )
        record = record.after(plan, uses, first=[name for name, _ in found], sufficed=0, gone=0)
        uses = [record.use_of(name, recalled=True) for name in used]
        plans.append(plan)
    return plans


@given(history=turns, capacity=st.integers(1, 6))
def test_every_change_has_one_cause_and_limits_hold(
    history: list[tuple[list[tuple[str, float]], list[str], set[str]]], capacity: int
) -> None:
    """Whatever came or left has one cause and a reason; places and ghosts stay within their bounds."""
    before: set[str] = set()
    for plan in played(history, capacity):
        after = {one.item_id for one in plan.entries}
        assert len(after) == len(plan.entries) <= capacity
        came, left = after - before, before - after
        assert set(plan.causes) == came | left
        assert Counter(one.item_id for one in plan.added) == Counter(came)
        assert Counter(one.item_id for one in plan.removed) == Counter(left)
        assert {plan.causes[one] for one in came} <= {Cause.RECALLED, Cause.RETURNED}
        assert {plan.causes[one] for one in left} <= {Cause.OUTRANKED, Cause.COOLED, Cause.UNRELATED}
        assert all(one.reason for one in (*plan.entries, *plan.removed))
        assert len(plan.order.ids) <= remembered_max(capacity) and len(plan.order.heat) <= remembered_max(
            capacity
        )
        assert (
            plan.order.ids[: plan.order.places] and set(plan.order.ids[: plan.order.places]) == after
        ) or not after
        before = after


@given(history=turns, capacity=st.integers(1, 6))
def test_what_is_pinned_stays(
    history: list[tuple[list[tuple[str, float]], list[str], set[str]]], capacity: int
) -> None:
    """A pinned item leaves for another pinned one alone: pins never exceed the places here."""
    before: set[str] = set()
    for (_, _, pinned), plan in zip(history, played(history, capacity), strict=True):
        after = {one.item_id for one in plan.entries}
        assert pinned & before <= after
        before = after


@given(history=turns, capacity=st.integers(1, 6))
def test_the_same_history_gives_the_same_plans(
    history: list[tuple[list[tuple[str, float]], list[str], set[str]]], capacity: int
) -> None:
    """Nothing but the arguments decides, and a record that went through the store is the same record."""
    assert played(history, capacity) == played(history, capacity)
    record = WorkingRecord()
    for plan in played(history, capacity):
        uses = [record.use_of(one, recalled=True) for one in plan.order.ids[:2]]
        record = record.after(plan, uses, first=plan.order.recalled, sufficed=1, gone=1)
        stored = WorkingRecord.from_json(json.loads(json.dumps(record.to_json())))
        assert stored.order.ids == record.order.ids and stored.uses == record.uses
        assert stored.to_json() == record.to_json()
        assert [Use.from_json(json.loads(json.dumps(use.to_json()))) for use in uses] == uses


@given(
    found=st.lists(st.tuples(st.integers(0, 60), st.floats(0, 1)), max_size=60),
    heat=st.dictionaries(st.integers(0, 60).map(str), st.floats(0.01, 3), max_size=20),
    small=st.integers(1, 10),
    more=st.integers(1, 10),
)
def test_more_places_hold_all_that_fewer_hold(
    found: list[tuple[int, float]], heat: dict[str, float], small: int, more: int
) -> None:
    """The inclusion that the curve rests on: one order, whatever the capacity."""
    candidates = [Candidate(str(number), score, "") for number, score in found]
    order = Order(heat=heat)
    held = [
        {one.item_id for one in plan_working([], candidates, capacity=capacity, now=NOW, order=order).entries}
        for capacity in (small, small + more)
    ]
    assert held[0] <= held[1]


def test_what_answers_use_outlives_a_recall_without_it() -> None:
    """An item that answers used keeps its place against what a query needs least, and says so."""
    order = Order(("used", "idle"), 2, {"used": 2.0}, ("used", "idle"))
    candidates = [Candidate(f"new{rank}", 1 - rank / 10, "fits") for rank in range(4)]
    plan = plan_working([entry("used"), entry("idle")], candidates, capacity=3, now=NOW, order=order)
    assert [one.item_id for one in plan.entries] == ["new0", "new1", "used"]
    assert plan.entries[2].reason == "kept: answers used it (heat 1.90)"
    assert plan.causes == {"new0": Cause.RECALLED, "new1": Cause.RECALLED, "idle": Cause.UNRELATED}


def test_heat_fades_and_a_ghost_returns() -> None:
    """Unused, an item cools until it loses its place; as a ghost it comes back when it is recalled."""
    order, entries = Order(), ()
    plan = plan_working([], [Candidate("a", 1, "")], capacity=1, now=NOW, used={"a": 1})
    causes = []
    for number in range(12):
        plan = plan_working(
            plan.entries, [Candidate(f"n{number}", 1, "")], capacity=1, now=NOW, order=plan.order
        )
        causes.append(plan.causes.get("a"))
        order, entries = plan.order, plan.entries
    assert causes.count(Cause.COOLED) == 1 and order.place_of("a") == 1
    plan = plan_working(entries, [Candidate("a", 1, "")], capacity=1, now=NOW, order=order)
    assert plan.causes["a"] is Cause.RETURNED


def test_the_balance_follows_what_pays() -> None:
    """Uses that heat alone would have held raise its share, those that recall would have held lower it."""
    even = Balance()
    assert even.share == 0.5
    assert even.after(recalled=False, hot=True).share > 0.5 > even.after(recalled=True, hot=False).share
    assert even.after(recalled=True, hot=True).share == pytest.approx(0.5)


@pytest.mark.parametrize("capacity", [1, 3, 7])
def test_the_curve_is_what_a_replay_would_give(capacity: int) -> None:
    """The counts by place are, for every capacity, the hits of a working memory of that size."""
    chance = random.Random(4)
    sizes = (1, 2, 3, 5, 7, 12)
    record, hits = WorkingRecord(), Counter[int]()
    uses, used = list[Use](), list[str]()
    for _ in range(200):
        found = chance.sample([f"i{number}" for number in range(20)], 8)
        candidates = [Candidate(name, 1 - rank / 10, "") for rank, name in enumerate(found)]
        given = {
            "candidates": candidates,
            "now": NOW,
            "order": record.order,
            "used": Counter(used),
            "balance": record.balanced(uses),
        }
        before = record.order.ids
        plan = plan_working([], capacity=capacity, **given)  # type: ignore[arg-type]
        record = record.after(plan, uses, first=found, sufficed=0, gone=0)
        used = chance.sample(found, 2)
        uses = [record.use_of(one, recalled=True) for one in used]
        for size in sizes:
            hits[size] += sum(one in before[:size] for one in used if size <= remembered_max(capacity))
    record = record.after(plan, uses, first=(), sufficed=0, gone=0)
    for size in sizes:
        if size <= remembered_max(capacity):
            assert record.uses.within(size) == pytest.approx(hits[size] / 400)


def test_counts_are_about_recent_accesses_and_bounded() -> None:
    """Old accesses count less and less, so that the curve follows a change, and the size stays bounded."""
    counts = Accesses().after([3] * 5 * ACCESSES_MAX)
    assert counts.total < ACCESSES_MAX
    counts = counts.after([None] * 5 * ACCESSES_MAX)
    assert counts.total < ACCESSES_MAX and counts.within(10) < 0.05
    assert len(Accesses().after(list(range(7)) * ACCESSES_MAX).by_place) == 7


def test_the_report_says_what_more_places_would_hold() -> None:
    """Twice the places, what is held now, ghosts, and the sentence; recalls stand in where no answer told."""
    told = report(WorkingRecord(recalls=Accesses({0: 10, 5: 5, 30: 5}, 20)), capacity=4)
    assert (told.basis, told.hit_rate, told.gain) == ("recalls", 0.25, 0.125)
    assert told.ghost_rate == 0.125  # place 5; place 30 is beyond the ghosts of 4 places
    assert told.sentence == (
        "4 → 8 places would have held 12 % more of the best of each recall (25 % → 38 %)"
    )
    assert report(WorkingRecord(), capacity=4).sentence == "nothing was asked yet"
    assert (
        told.curve[-1].capacity == GHOSTS_PER_PLACE * 4 + 4 and remembered_max(10_000) == 10_000 + GHOSTS_MAX
    )
