"""Rank metrics against values worked out by hand."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos.evaluation.metrics import Scores, average, percentile, score


def test_the_metrics_of_a_ranking_are_those_worked_out_by_hand() -> None:
    """Two of three wanted found, at ranks 2 and 7."""
    ranking = ["x", "a", "y", "z", "v", "w", "b"]
    found = score(ranking, {"a", "b", "c"})
    ideal = 1 + 1 / log2(3) + 1 / log2(4)
    expected = (1 / log2(3) + 1 / log2(8)) / ideal
    assert found == Scores(
        r5=pytest.approx(1 / 3),
        r10=pytest.approx(2 / 3),
        r20=pytest.approx(2 / 3),
        mrr=0.5,
        ndcg10=pytest.approx(expected),
        n=1,
    )


def test_a_perfect_ranking_scores_one_and_an_empty_one_zero() -> None:
    """The ends of the scale."""
    assert score(["a", "b"], {"b", "a"}) == Scores(1.0, 1.0, 1.0, 1.0, 1.0)
    assert score([], {"a"}) == Scores(0.0, 0.0, 0.0, 0.0, 0.0)


def test_what_comes_twice_counts_once() -> None:
    """A repeated hit takes a place and finds nothing new."""
    assert score(["a", "a", "a", "a", "a", "b"], {"a", "b"}).r5 == 0.5


def test_reciprocal_rank_looks_beyond_the_cuts() -> None:
    """MRR sees the whole ranking, recall only its head."""
    found = score([*map(str, range(24)), "a"], {"a"})
    assert (found.r20, found.mrr) == (0.0, 1 / 25)


def test_a_question_without_wanted_ids_is_refused() -> None:
    """Recall of nothing is undefined."""
    with pytest.raises(ValueError, match="no recall"):
        score(["a"], [])


@given(st.lists(st.sampled_from("abcdefgh")), st.sets(st.sampled_from("abcdefgh"), min_size=1))
def test_metrics_are_shares_and_recall_grows_with_depth(ranking: list[str], wanted: set[str]) -> None:
    """All within [0, 1], r5 <= r10 <= r20."""
    found = score(ranking, wanted)
    assert 0.0 <= found.r5 <= found.r10 <= found.r20 <= 1.0
    assert 0.0 <= found.mrr <= 1.0
    assert 0.0 <= found.ndcg10 <= 1.0 + 1e-9


def test_averages_count_their_questions() -> None:
    """The mean of each metric, and zeros for no questions."""
    mean = average([Scores(0.0, 0.5, 1.0, 0.25, 0.5), Scores(1.0, 0.5, 1.0, 0.75, 1.0)])
    assert mean == Scores(0.5, 0.5, 1.0, 0.5, 0.75, n=2)
    assert average([]) == Scores(0.0, 0.0, 0.0, 0.0, 0.0, n=0)


def test_percentiles_are_values_that_occurred() -> None:
    """Nearest rank, whatever the order; 0 for nothing."""
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.95) == 95.0
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.5) == 0.0
