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
        spans=np.full(len(cosines), span_of(size), dtype=np.float32),
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
    st.integers(0, 10**9),
)
def test_relativity_stays_between_zero_and_one(cosines: Any, lexical: Any, mass: Any, size: int) -> None:
    """For any scores and sizes the result is a number in [0, 1]."""
    spans = np.full(3, span_of(size, cosines[0].tolist()), dtype=np.float32)
    result = relativity(cosines=cosines, lexical=lexical, mass=mass, spans=spans, steps=IN_A_ROW)
    assert np.all((result >= 0.0) & (result <= 1.0))


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=2), st.floats(0.0, 1.0, width=32))
def test_the_same_cosine_never_says_more_in_a_larger_cube(sizes: list[int], cosine: float) -> None:
    """Of many unrelated memories one is near by chance, so a cosine counts less the more there are."""
    small, large = sorted(sizes)
    in_small = values([cosine, 0.0, 0.0], [0.0, 0.0, 0.0], size=small)[0]
    assert in_small >= values([cosine, 0.0, 0.0], [0.0, 0.0, 0.0], size=large)[0]


def test_the_span_grows_from_one_memory_to_hundreds() -> None:
    """Narrow for one, between for dozens, and no wider than it is for hundreds, however many there are."""
    one, dozens, hundreds, endless, none = map(span_of, (1, 31, 600, 10**12, 0))
    assert one == none < dozens < hundreds == pytest.approx(endless, abs=1e-3)
    assert (one, hundreds) == pytest.approx((0.29, 0.7), abs=0.005)


def test_memories_far_from_the_query_let_one_stand_out() -> None:
    """Thirty cosines around 0 make a lower level than memories at large; those spread as wide leave that one."""
    apart = [0.04 * (place % 5 - 2) for place in range(30)]
    of_one_talk = [0.3 + 0.15 * (place % 5 - 2) for place in range(30)]
    assert span_of(31, [*apart, 0.26]) == pytest.approx(span_of(1))
    assert span_of(31, of_one_talk) == span_of(31)


def test_the_few_that_fit_hardly_move_what_unrelated_means() -> None:
    """Five memories about what is asked do not raise the level for one another."""
    apart = [0.03 * (place % 7 - 3) for place in range(40)]
    assert span_of(45, [*apart, 0.5, 0.5, 0.6, 0.6, 0.7]) < span_of(45)


@given(st.integers(0, 10**6), st.lists(st.floats(-1, 1), max_size=200))
def test_the_span_stays_between_that_of_one_and_that_of_many(size: int, compared: list[float]) -> None:
    """Whatever was compared: never narrower than alone, never wider than in a cube of that size at large."""
    assert span_of(1) - 1e-9 <= span_of(size, compared) <= span_of(size) + 1e-9
