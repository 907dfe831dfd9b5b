"""The pure decision about the places of working memory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos.errors import InvalidInput
from memos.memory.item import WorkingEntry
from memos.memory.working import Candidate, plan_working

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
