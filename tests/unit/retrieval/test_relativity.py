"""The absolute scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memos.retrieval.relativity import relativity, span_of

ALONE = np.full((4, 3), -1, dtype=np.int64)
IN_A_ROW = np.array([[-1, 0, 1], [1, 2, -1], [-1, -1, 0], [2, -1, -1]])


def values(
    cosines: list[float],
    lexical: list[float],
    *,
    mass: float = 4.0,
    steps: Any = ALONE,
    size: int = 600,
) -> list[float]:
    return relativity(
        cosines=np.array([cosines], dtype=np.float32),
        lexical=np.array([lexical], dtype=np.float32),
        mass=np.full(len(cosines), mass, dtype=np.float32),
        sizes=np.full(len(cosines), size, dtype=np.int64),
        steps=steps,
    )[0].tolist()


def test_the_best_of_nothing_is_not_related() -> None:
    """Unlike scaled scores, the best candidate of a query that nothing fits stays below the default cut."""
    assert max(values([0.12, 0.08, 0.1], [0.0, 0.0, 0.0])) < 0.05


def test_likeness_and_words_support_each_other() -> None:
    """An item with both beats one with either, and each alone can pass the default cut."""
    both, likeness, words = values([0.6, 0.6, 0.0], [2.0, 0.0, 2.0])
    assert both > likeness > 0.45
    assert both > words > 0.45


def test_a_full_match_of_the_words_is_enough_without_an_embedder() -> None:
    """With no cosine at all, an item with all terms of the query passes and one with few does not."""
    full, few, none = values([0.0, 0.0, 0.0], [2.5, 0.4, 0.0])
    assert full > 0.8
    assert few < 0.45
    assert none == 0.0


def test_a_query_without_terms_leaves_likeness_alone() -> None:
    """No mass divides nothing."""
    assert values([0.8, 0.1, 0.0], [0.0, 0.0, 0.0], mass=0.0)[0] > 0.9


def test_neighbours_are_lent_less_with_distance() -> None:
    """An answer next to a fitting question passes by it; further away it is lent less."""
    fit, near, far = values([0.8, 0.0, 0.0], [0.0, 0.0, 0.0], steps=IN_A_ROW)
    assert fit > near > far > 0.45


@given(
    hnp.arrays(np.float32, (1, 3), elements=st.floats(-1, 1, width=32)),
    hnp.arrays(np.float32, (1, 3), elements=st.floats(0, 100, width=32)),
    hnp.arrays(np.float32, (3,), elements=st.floats(0, 100, width=32)),
    hnp.arrays(np.int64, (3,), elements=st.integers(0, 10**9)),
)
def test_relativity_stays_between_zero_and_one(cosines: Any, lexical: Any, mass: Any, sizes: Any) -> None:
    """For any scores and sizes the result is a number in [0, 1]."""
    result = relativity(cosines=cosines, lexical=lexical, mass=mass, sizes=sizes, steps=IN_A_ROW)
    assert np.all((result >= 0.0) & (result <= 1.0))


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=2), st.floats(0.0, 1.0, width=32))
def test_the_same_cosine_never_says_more_in_a_larger_cube(sizes: list[int], cosine: float) -> None:
    """Of many unrelated memories one is near by chance, so a cosine counts less the more there are."""
    small, large = sorted(sizes)
    in_small = values([cosine, 0.0, 0.0], [0.0, 0.0, 0.0], size=small)[0]
    assert in_small >= values([cosine, 0.0, 0.0], [0.0, 0.0, 0.0], size=large)[0]


def test_the_span_grows_from_one_memory_to_hundreds() -> None:
    """Narrow for one, between for dozens, and no wider than it is for hundreds, however many there are."""
    sizes = np.array([1, 31, 600, 10**12, 1, 0], dtype=np.int64)
    one, dozens, hundreds, endless, again, none = span_of(sizes).tolist()
    assert one == again == none < dozens < hundreds == pytest.approx(endless, abs=1e-3)
    assert (one, hundreds) == pytest.approx((0.29, 0.7), abs=0.005)
