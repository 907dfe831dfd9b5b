"""The order of the block."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos.memory.activation.layout import LayoutState, Wanted, plan
from memos.memory.activation.simulate import Churn, simulate


def wanted(*names: str, tokens: int = 10) -> list[Wanted]:
    return [Wanted(name, 1, tokens, f"line of {name}") for name in names]


def standing(state: LayoutState) -> dict[str, str]:
    return {one.item_id: one.digest for one in state.residents}


def order(state: LayoutState) -> list[str]:
    return [one.item_id for one in state.residents]


def after(*sets: Sequence[Wanted], slack: float = 0.25) -> LayoutState:
    state = LayoutState()
    for one in sets:
        state = plan(state, one, standing=standing(state), slack=slack).state
    return state


def test_rank_alone_moves_nothing() -> None:
    """A new order of rank leaves the block as it was and shows in the rank line only."""
    state = after(wanted("a", "b", "c"))
    done = plan(state, wanted("c", "a", "b"), standing=standing(state))
    assert done.state == state
    assert done.reuse == 1.0
    assert done.rank == (3, 1, 2)


def test_newcomers_stand_at_the_tail() -> None:
    """What enters comes last, whatever its rank, under a mark that was never given."""
    state = after(wanted("a", "b"))
    done = plan(state, wanted("new", "a", "b"), standing=standing(state))
    assert order(done.state) == ["a", "b", "new"]
    assert [one.mark for one in done.state.residents] == [1, 2, 3]
    assert done.kept == 2


def test_lost_rank_is_slack_and_a_return_is_free() -> None:
    """A memory that only lost its rank keeps its place; when it is wanted again nothing is computed."""
    names = [f"m{n}" for n in range(8)]
    state = after(wanted(*names), wanted(*names[1:]))
    assert order(state) == names
    back = plan(state, wanted(*names), standing=standing(state))
    assert back.state == state
    assert back.reuse == 1.0


def test_deleted_goes_at_once_with_all_slack_behind_it() -> None:
    """What may not be shown is out of the next block, and so is slack that has to be computed anyway."""
    names = [f"m{n}" for n in range(12)]
    state = after(wanted(*names), wanted(*[one for one in names if one != "m9"]))
    assert "m9" in order(state)
    left = standing(state)
    del left["m2"]
    done = plan(state, wanted(*[one for one in names if one not in ("m2", "m9")]), standing=left)
    assert done.kept == 2
    assert order(done.state) == [one for one in names if one not in ("m2", "m9")]


def test_a_changed_line_is_purged_and_comes_back_at_the_tail() -> None:
    """An edited memory never stands beside its old text."""
    state = after(wanted("a", "b", "c"))
    edited = Wanted("a", 2, 10, "another line of a")
    done = plan(state, [edited, *wanted("b", "c")], standing={**standing(state), "a": edited.digest})
    assert order(done.state) == ["b", "c", "a"]
    assert done.kept == 0
    assert done.state.residents[-1].version == 2


def test_a_use_that_raises_the_row_version_changes_nothing() -> None:
    """The version of a row rises with each use; the block goes by the line."""
    state = after(wanted("a", "b"))
    used = [Wanted("a", 5, 10, "line of a"), Wanted("b", 9, 10, "line of b")]
    assert plan(state, used, standing=standing(state)).state == state


def test_over_budget_the_cheapest_cut_is_taken() -> None:
    """Of the places to cut at, the one that computes the fewest tokens again for the slack that goes."""
    names = [f"m{n}" for n in range(16)]
    state = after(wanted(*names))
    # 15 % of slack at the head may stay; slack at the tail is cut off, although both together are too much.
    remaining = [one for one in names if one not in ("m0", "m13", "m14", "m15")]
    done = plan(state, wanted(*remaining), standing=standing(state))
    assert order(done.state) == [f"m{n}" for n in range(13)]
    assert done.kept == 13
    assert done.reuse == 1.0


def test_a_block_has_a_limit() -> None:
    """What is wanted fits the limit, the least relevant is left out, and slack takes only what is left."""
    state = after(wanted("a", "b", "c", "d"))
    done = plan(state, wanted("d", "c", "b"), standing=standing(state), tokens_max=30)
    assert sorted(order(done.state)) == ["b", "c", "d"]
    assert plan(state, wanted("d", "c", "b", "a"), standing=standing(state), tokens_max=25).tokens == 20


lines = st.lists(st.integers(0, 30), max_size=12, unique=True)


@given(st.lists(st.tuples(lines, st.sets(st.integers(0, 30), max_size=3)), min_size=1, max_size=12))
def test_every_block_holds_what_is_wanted_and_nothing_that_is_gone(
    steps: list[tuple[list[int], set[int]]],
) -> None:
    """Whatever comes and goes: each memory once, all wanted ones, no purged one, slack within its limit, the
    kept beginning as it was, marks unique."""
    state = LayoutState()
    for names, gone in steps:
        want = wanted(*[f"i{n}" for n in names if n not in gone], tokens=7)
        left = {key: value for key, value in standing(state).items() if int(key[1:]) not in gone}
        done = plan(state, want, standing=left)
        ids = order(done.state)
        assert len(set(ids)) == len(ids)
        assert {one.item_id for one in want} <= set(ids)
        assert not {f"i{n}" for n in gone} & set(ids)
        assert done.slack_tokens <= 0.25 * sum(one.tokens for one in want)
        assert done.state.residents[: done.kept] == state.residents[: done.kept]
        assert len({one.mark for one in done.state.residents}) == len(ids)
        assert done.tokens == sum(one.tokens for one in done.state.residents)
        state = done.state


@pytest.mark.parametrize(
    ("churn", "changes", "bar"),
    [("reranked", 1, 0.72), ("young", 1, 0.84), ("reranked", 3, 0.37), ("young", 3, 0.60)],
)
def test_reuse_over_many_updates(churn: Churn, changes: int, bar: float) -> None:
    """The bars of reuse hold with the default slack, for more than one seed."""
    for seed in (11, 12, 13):
        assert simulate(churn, changes, updates=200, seed=seed).reuse_mean >= bar


def test_the_planner_earns_its_place() -> None:
    """Over the same updates the planner keeps more than residence order without slack, and that more than rank."""
    reuse = [simulate("young", 1, policy=policy).reuse_mean for policy in ("rank", "tail", "lazy")]
    assert reuse == sorted(reuse)
    assert simulate("young", 1).length_mean < 1.25
