"""Scaling and summing of scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memos.retrieval.fuse import min_max, weighted_sum

FOUND = np.ones((1, 3), dtype=bool)


def test_the_best_becomes_one_and_zero_stays_zero() -> None:
    """A row is divided by its best score."""
    assert min_max(np.array([[0.0, 2.0, 4.0]], dtype=np.float32), FOUND).tolist() == [[0.0, 0.5, 1.0]]


def test_what_is_not_found_counts_for_nothing() -> None:
    """A score outside the candidates neither scales the others nor appears."""
    scaled = min_max(np.array([[9.0, 2.0, 4.0]], dtype=np.float32), np.array([[False, True, True]]))
    assert scaled.tolist() == [[0.0, 0.5, 1.0]]


def test_candidates_added_at_the_bottom_change_no_score() -> None:
    """Weak candidates do not move the scale, so weights hold in cubes of any size."""
    few = min_max(np.array([[3.0, 4.0]], dtype=np.float32), np.ones((1, 2), dtype=bool))
    many = min_max(np.array([[3.0, 4.0, 0.1, 0.2]], dtype=np.float32), np.ones((1, 4), dtype=bool))
    assert many[0, :2].tolist() == few[0].tolist()


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 3), st.integers(0, 6)), elements=st.floats(-5, 50, width=32)
    )
)
def test_scaled_scores_lie_between_zero_and_one(scores: np.ndarray) -> None:
    """Whatever the scores, negative cosines and empty rows included, the result is within [0, 1] and finite."""
    scaled = min_max(scores, np.ones(scores.shape, dtype=bool))
    assert np.all((scaled >= 0.0) & (scaled <= 1.0))


def test_the_sum_of_no_parts_is_zero() -> None:
    """With every stage off there is still a score for each candidate."""
    like = np.zeros((1, 3), dtype=np.float32)
    assert weighted_sum({}, like).tolist() == [[0.0, 0.0, 0.0]]
    parts = {"one": np.full((1, 3), 1.5, dtype=np.float32), "two": np.full((1, 3), -0.5, dtype=np.float32)}
    assert weighted_sum(parts, like)[0].tolist() == pytest.approx([1.0, 1.0, 1.0])
