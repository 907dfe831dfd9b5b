"""The stages, each on hand-made signals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from memos.errors import InvalidInput
from memos.retrieval.stage_table import SCORING
from memos.retrieval.stages import Episodes, Signals, rank, ranked_by_wording
from memos.retrieval.weights import STAGES, RecallWeights

COUNT = 5


def signals(**given: Any) -> Signals:
    """Five candidates of one query in a row of one session, that say nothing but what is given."""
    row = np.zeros((1, COUNT), dtype=np.float32)
    steps = np.array([[-1, 0, 1, 2, 3], [1, 2, 3, 4, -1], [-1, -1, 0, 1, 2], [2, 3, 4, -1, -1]])
    blank = Signals(
        found=np.ones((1, COUNT), dtype=bool),
        lexical=row,
        names=row,
        dense=row,
        links=row,
        participant=row,
        time=row,
        scenario=row,
        recency=row,
        use=row[0],
        asks_when=np.zeros((1, 1), dtype=np.float32),
        asks_several=np.zeros((1, 1), dtype=np.float32),
        asks=row[0],
        tells_when=row[0],
        substance=row[0],
        again=row,
        walk=row,
        episodes=Episodes.of(np.zeros(COUNT, dtype=np.int64)),
        steps=steps,
    )
    arrays = {
        name: np.array([value] if np.ndim(getattr(blank, name)) == 2 else value, dtype=np.float32)
        for name, value in given.items()
        if name not in ("episodes", "found")
    }
    kept = {name: value for name, value in given.items() if name in ("episodes", "found")}
    return replace(blank, **arrays, **kept)


@pytest.mark.parametrize(
    ("stage", "given", "expected"),
    [
        ("lexical", {"lexical": [0, 1, 2, 4, 0]}, [0, 0.25, 0.5, 1, 0]),
        ("dense", {"dense": [0, -0.1, 0.4, 0.8, 0]}, [0, 0, 0.5, 1, 0]),
        ("links", {"links": [2, 0, 0, 0, 1]}, [1, 0, 0, 0, 0.5]),
        ("participant", {"participant": [1, 0, 1, 0, 1]}, [1, 0, 1, 0, 1]),
        ("time", {"time": [0, 0, 1, 0, 0]}, [0, 0, 1, 0, 0]),
        ("scenario", {"scenario": [1, 0.5, 0, 0, 0]}, [1, 0.5, 0, 0, 0]),
        ("recency", {"recency": [0.5, 0.25, 0, 0, 1]}, [0.5, 0.25, 0, 0, 1]),
        ("use", {"use": [0, 0, 0, 1, 0.5]}, [0, 0, 0, 1, 0.5]),
        ("question", {"asks": [0, 1, 0, 0, 0]}, [0, -1, 0, 0, 0]),
        ("substance", {"substance": [1, -1, 0, 0, 0.5]}, [1, -1, 0, 0, 0.5]),
        ("again", {"again": [0.5, -0.1, 1.0, 0, 0]}, [0.5, 0, 1, 0, 0]),
        ("walk", {"walk": [0, 0.02, 0, 0.01, 0]}, [0, 1, 0, 0.5, 0]),
        ("moment", {"asks_when": [1], "tells_when": [0, 1, 0, 0, 1]}, [0, 1, 0, 0, 1]),
    ],
)
def test_a_stage_alone_scores_by_its_signal(stage: str, given: dict[str, Any], expected: list[float]) -> None:
    """With one stage on at weight 1, the score of an item is that stage's signal, and so is its only part."""
    weights = replace(RecallWeights().only(stage), **{STAGES[stage][0]: 1.0})
    ranking = rank(signals(**given), weights)
    assert ranking.score[0].tolist() == pytest.approx(expected)
    assert set(ranking.parts) == {stage}


def test_the_moment_counts_only_for_a_query_that_asks_for_one() -> None:
    """Items that tell a time gain nothing when no time is asked for."""
    ranking = rank(signals(tells_when=[0, 1, 0, 0, 1]), RecallWeights().only("moment"))
    assert ranking.score[0].tolist() == [0.0] * COUNT


def test_an_episode_lends_its_best_score_to_its_own_items_only() -> None:
    """The bonus is the best direct score of the item's episode."""
    weights = replace(RecallWeights().only("lexical", "episode"), lexical=1.0, episode=0.5)
    episodes = Episodes.of(np.array([7, 7, 3, 3, 7]))
    ranking = rank(signals(lexical=[4, 0, 1, 0, 0], episodes=episodes), weights)
    assert ranking.parts["episode"][0].tolist() == pytest.approx([0.5, 0.5, 0.125, 0.125, 0.5])


def test_neighbours_gain_by_distance_what_is_above_the_floor() -> None:
    """One place away counts `near`, two places `far`, and only the score above `context_floor`."""
    weights = replace(
        RecallWeights().only("lexical", "neighbours"), lexical=1.0, near=0.5, far=0.25, context_floor=0.2
    )
    ranking = rank(signals(lexical=[10, 0, 0, 0, 1]), weights)
    assert ranking.parts["neighbours"][0].tolist() == pytest.approx([0, 0.4, 0.2, 0, 0])


def test_what_stands_around_counts_less_when_several_things_are_asked_for() -> None:
    """`several` scales episode and neighbours of such a query, and of no other."""
    weights = replace(
        RecallWeights().only("lexical", "episode", "neighbours"), episode=1.0, context_floor=0.0, several=0.5
    )
    one = rank(signals(lexical=[2, 0, 0, 0, 0]), weights).parts
    many = rank(signals(lexical=[2, 0, 0, 0, 0], asks_several=[1]), weights).parts
    for stage in ("episode", "neighbours"):
        assert many[stage][0].tolist() == pytest.approx((0.5 * one[stage][0]).tolist())
    assert many["lexical"][0].tolist() == one["lexical"][0].tolist()


def test_a_reply_gains_by_the_question_before_it() -> None:
    """The item right after a well-fitting question gains, the one after a statement does not."""
    weights = replace(RecallWeights().only("lexical", "reply"), lexical=1.0, reply=1.0, context_floor=0.0)
    ranking = rank(signals(lexical=[1, 0, 1, 0, 0], asks=[1, 0, 0, 0, 0]), weights)
    assert ranking.parts["reply"][0].tolist() == pytest.approx([0, 1, 0, 0, 0])


def test_an_item_that_is_no_candidate_never_ranks() -> None:
    """Its score is minus infinity, and it lends nothing to its neighbours."""
    weights = replace(
        RecallWeights().only("lexical", "neighbours", "episode"),
        near=1.0,
        far=0.0,
        context_floor=0.0,
        episode=1.0,
    )
    found = np.array([[False, True, True, True, True]])
    ranking = rank(signals(lexical=[9, 0, 1, 0, 0], found=found), weights)
    assert ranking.score[0, 0] == -np.inf
    assert ranking.parts["neighbours"][0].tolist() == pytest.approx([0, 1, 0, 1, 0])


def test_the_parts_sum_up_to_the_score() -> None:
    """Every candidate's score is the sum of what its stages report, under the shipped weights."""
    given = signals(
        lexical=[3, 1, 0, 0, 2],
        dense=[0.1, 0.9, 0.3, 0, 0.2],
        asks=[0, 1, 0, 0, 0],
        participant=[1, 0, 0, 1, 0],
    )
    ranking = rank(given, RecallWeights())
    total = sum(part[0] for part in ranking.parts.values())
    assert ranking.score[0].tolist() == pytest.approx(total.tolist(), abs=1e-5)


def test_a_stage_without_weight_is_not_reported() -> None:
    """Switching a stage off takes it out of the parts."""
    ranking = rank(signals(lexical=[1, 2, 3, 4, 5]), RecallWeights().without("episode", "neighbours"))
    assert "lexical" in ranking.parts
    assert not {"episode", "neighbours"} & set(ranking.parts)


def test_every_stage_can_be_switched_off_alone() -> None:
    """`without` takes exactly the weights of its stage to 0."""
    for stage, names in STAGES.items():
        changed = RecallWeights().without(stage)
        for name in RecallWeights.names():
            expected = 0.0 if name in names else getattr(RecallWeights(), name)
            assert getattr(changed, name) == expected


def test_no_candidates_rank_to_nothing() -> None:
    """Empty arrays go through all stages."""
    empty = np.zeros((1, 0), dtype=np.float32)
    nothing = Signals(
        found=np.zeros((1, 0), dtype=bool),
        lexical=empty,
        names=empty,
        dense=empty,
        links=empty,
        participant=empty,
        time=empty,
        scenario=empty,
        recency=empty,
        use=empty[0],
        asks_when=np.zeros((1, 1), dtype=np.float32),
        asks_several=np.zeros((1, 1), dtype=np.float32),
        asks=empty[0],
        tells_when=empty[0],
        substance=empty[0],
        episodes=Episodes.of(np.zeros(0, dtype=np.int64)),
        steps=np.zeros((4, 0), dtype=np.int64),
        again=empty,
        walk=empty,
    )
    assert rank(nothing, RecallWeights()).score.shape == (1, 0)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 1e9])
def test_an_impossible_weight_is_refused_by_name(value: float) -> None:
    """Negative, endless and undefined weights raise InvalidInput naming the weight."""
    with pytest.raises(InvalidInput, match="dense"):
        RecallWeights(dense=value)


def test_an_unknown_stage_is_refused_by_name() -> None:
    """`without` and `only` say which stages there are."""
    with pytest.raises(InvalidInput, match=r"'magic'.*lexical"):
        RecallWeights().without("magic")
    with pytest.raises(InvalidInput, match="'magic'"):
        RecallWeights().only("magic")


def test_every_stage_of_the_table_that_scores_has_a_function_and_a_weight() -> None:
    """The table and the functions agree: with all signals on, all stages with a weight report a part."""
    full = [1.0, 0.5, 0.2, 0.1, 0.3]
    by_query = ("lexical", "dense", "links", "participant", "time", "scenario", "recency", "again", "walk")
    given = signals(
        **dict.fromkeys((*by_query, "use", "asks", "substance", "tells_when"), full), asks_when=[1.0]
    )
    weights = RecallWeights(**dict.fromkeys(RecallWeights.names(), 0.5))
    assert set(rank(given, weights).parts) == SCORING
    for stage in SCORING:
        assert stage not in rank(given, weights.without(stage)).parts


@pytest.mark.parametrize("off", ["", "reply", "neighbours", "question", "again"])
def test_wording_added_to_a_ranking_gives_what_ranking_with_it_gives(off: str) -> None:
    """Number for number and stage for stage, whichever stages run."""
    row = [0.1, 0.9, 0.3, 0.0, 0.7]
    bare = signals(lexical=row, dense=row[::-1], again=row, asks_when=[1.0], participant=[1, 0, 0, 1, 1])
    worded = replace(
        bare,
        asks=np.array([1, 0, 1, 0, 0], dtype=np.float32),
        tells_when=np.array([0, 1, 0, 0, 1], dtype=np.float32),
        substance=np.array([0.2, -0.4, 0, 1, -1], dtype=np.float32),
    )
    weights = RecallWeights().without(off) if off else RecallWeights()
    whole, added = rank(worded, weights), ranked_by_wording(rank(bare, weights), worded, weights)
    assert list(whole.parts) == list(added.parts)
    assert np.array_equal(whole.score, added.score)
    assert all(np.array_equal(part, added.parts[stage]) for stage, part in whole.parts.items())


def test_what_scores_nothing_is_switched_by_no_weight() -> None:
    """A cut is refused by `without`, which tells that it has no weight."""
    with pytest.raises(InvalidInput, match="gives no score"):
        RecallWeights().without("mmr")
