"""Single-valued facts over time: which end, when, and which stay in conflict."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.slots import Fact, fact_fields
from memos.memory.supersede import plan

DAY0 = datetime(2020, 1, 1, tzinfo=UTC)
NOW = datetime(2025, 1, 1, tzinfo=UTC)


def at(days: int) -> datetime:
    return DAY0 + timedelta(days=days)


def fact_item(
    item_id: str,
    value: str,
    *,
    true_from: int | None,
    learned: int | None = None,
    slot: str = "lives_in",
    subject: str = "Anna",
    ended: bool = False,
) -> MemoryItem:
    return MemoryItem(
        item_id, "c1", "u1", f"{subject} {slot} {value}", raw=False,
        created_at=at(true_from or 0) if learned is None else at(learned), updated_at=DAY0,
        happened_at=None if true_from is None else at(true_from),
        extra=fact_fields(Fact(subject, slot, value, ended)),
    )  # fmt: skip


def ends(*items: MemoryItem) -> dict[str, datetime]:
    return {done.item.id: done.valid_until for done in plan(items, now=NOW).supersessions}


def test_the_newest_value_wins_and_the_old_one_keeps_both_times() -> None:
    """The old fact ends when the new one begins; when it was learned and when it was true stay as they were."""
    old, new = fact_item("a", "Paris", true_from=1), fact_item("b", "Lyon", true_from=9)
    (done,) = plan([new, old], now=NOW).supersessions
    assert (done.item.id, done.by_id, done.valid_until) == ("a", "b", at(9))
    assert done.item == replace(old, valid_until=at(9), updated_at=NOW)
    assert "lives_in" in done.reason and "Lyon" in done.reason


def test_every_value_ends_where_the_next_begins_in_any_order_of_arrival() -> None:
    """A chain of values is cut into consecutive periods whatever the order of the items."""
    chain = [
        fact_item("a", "Paris", true_from=1),
        fact_item("b", "Lyon", true_from=5),
        fact_item("c", "Paris", true_from=9),
    ]
    for order in permutations(chain):
        assert ends(*order) == {"a": at(5), "b": at(9)}


def test_what_is_learned_late_about_the_past_displaces_nothing_after_it() -> None:
    """A fact learned today but true long ago is itself history."""
    now_true = fact_item("a", "Lyon", true_from=100, learned=100)
    past = fact_item("b", "Paris", true_from=5, learned=900)
    assert ends(now_true, past) == {"b": at(100)}


def test_a_correction_about_the_same_time_wins_by_being_learned_later() -> None:
    """Of two values true from the same moment the one learned later holds."""
    assert ends(
        fact_item("a", "Paris", true_from=5, learned=5), fact_item("b", "Lyon", true_from=5, learned=8)
    ) == {"a": at(5)}


def test_inside_a_session_the_later_turn_wins() -> None:
    """Facts of one session and one date are ordered by their place in it."""
    first = replace(fact_item("a", "Paris", true_from=5), session_id="s", position=2)
    second = replace(fact_item("b", "Lyon", true_from=5), session_id="s", position=4)
    assert ends(second, first) == {"a": at(5)}


def test_without_an_order_in_time_both_stay_and_are_flagged() -> None:
    """Nothing says which came later: no fact ends, and the conflict names both."""
    result = plan([fact_item("a", "Paris", true_from=5), fact_item("b", "Lyon", true_from=5)], now=NOW)
    assert result.supersessions == ()
    (conflict,) = result.conflicts
    assert (conflict.item_ids, conflict.subject, conflict.slot) == (("a", "b"), "Anna", "lives_in")


def test_a_doubtful_fact_displaces_nothing() -> None:
    """A later fact below the bar of confidence is flagged instead."""
    doubtful = replace(fact_item("b", "Lyon", true_from=9), confidence=0.3)
    result = plan([fact_item("a", "Paris", true_from=1), doubtful], now=NOW)
    assert result.supersessions == () and result.conflicts[0].item_ids == ("a", "b")


@pytest.mark.parametrize(
    ("one", "other"), [("Paris", "paris"), ("the Netherlands", "Netherlands"), ("上海", "上海")]
)
def test_the_same_value_again_is_no_change(one: str, other: str) -> None:
    """A confirmed value neither ends nor conflicts."""
    result = plan([fact_item("a", one, true_from=1), fact_item("b", other, true_from=9)], now=NOW)
    assert result == type(result)()


def test_ends_without_a_new_value() -> None:
    """An end closes the value it names, or whatever it was when it names none, and nothing later or other."""
    paris, lyon = fact_item("a", "Paris", true_from=1), fact_item("b", "Lyon", true_from=3)
    over = fact_item("c", "Lyon", true_from=7, ended=True)
    assert ends(paris, lyon, over) == {"a": at(3), "b": at(7)}
    assert ends(fact_item("a", "Rome", true_from=1), over) == {}
    job = fact_item("j", "nurse", slot="job", true_from=1)
    quit_job = fact_item("q", "", slot="job", true_from=4, ended=True)
    again = fact_item("n", "teacher", slot="job", true_from=9)
    assert ends(job, quit_job, again) == {"j": at(4)}


def test_slots_of_several_values_gain_and_only_ends_close_them() -> None:
    """A second pet does not displace the first; an end closes exactly the one it names."""
    max_, coco = (
        fact_item("a", "Max", slot="pet", true_from=1),
        fact_item("b", "Coco", slot="pet", true_from=5),
    )
    assert ends(max_, coco) == {}
    assert ends(max_, coco, fact_item("c", "Max", slot="pet", true_from=8, ended=True)) == {"a": at(8)}


def test_opposite_tastes_supersede() -> None:
    """A like turns into a dislike of the same thing, never of another."""
    like = fact_item("a", "like", slot="taste:sushi", true_from=1)
    assert ends(like, fact_item("b", "dislike", slot="taste:sushi", true_from=5)) == {"a": at(5)}
    assert ends(like, fact_item("b", "dislike", slot="taste:rain", true_from=5)) == {}


def test_different_subjects_users_and_cubes_are_apart() -> None:
    """Only facts of one subject, of one user, in one cube replace one another."""
    old, new = fact_item("a", "Paris", true_from=1), fact_item("b", "Lyon", true_from=9)
    strangers = (
        fact_item("b", "Lyon", true_from=9, subject="Anna's wife"), replace(new, cube_id="c2"), replace(new, user_id="u2"),
        fact_item("b", "Lyon", true_from=9, slot="born_in"),
    )  # fmt: skip
    for stranger in strangers:
        assert ends(old, stranger) == {}
    assert ends(old, fact_item("b", "Lyon", true_from=9, subject="ANNA")) == {"a": at(9)}


@pytest.mark.parametrize("change", [{"raw": True}, {"status": ItemStatus.ARCHIVED}, {"extra": {}}])
def test_raw_turns_and_what_is_not_live_take_no_part(change: dict[str, object]) -> None:
    """A raw turn is never superseded and supersedes nothing, nor does what is archived or holds no fact."""
    old, new = fact_item("a", "Paris", true_from=1), fact_item("b", "Lyon", true_from=9)
    assert ends(replace(old, **change), new) == {} == ends(old, replace(new, **change))  # type: ignore[arg-type]


def test_running_again_changes_nothing() -> None:
    """The plan is idempotent: applied once, a second run has nothing to do."""
    items = [
        fact_item("a", "Paris", true_from=1),
        fact_item("b", "Lyon", true_from=5),
        fact_item("c", "Rome", true_from=9),
    ]
    done = {one.item.id: one.item for one in plan(items, now=NOW).supersessions}
    settled = [done.get(item.id, item) for item in items]
    assert plan(settled, now=NOW).supersessions == ()
    # A value that turns out to have begun in between moves the end forward in time, never back.
    between = fact_item("d", "Oslo", true_from=3)
    assert ends(*settled, between) == {"a": at(3), "d": at(5)}


def test_without_a_time_of_truth_the_time_of_learning_orders() -> None:
    """Facts without a date are ordered by when they were learned."""
    old = fact_item("a", "Paris", true_from=None, learned=1)
    assert ends(old, fact_item("b", "Lyon", true_from=None, learned=4)) == {"a": at(4)}
