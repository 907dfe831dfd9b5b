"""`relativity`: how well a memory fits a query on an absolute scale in [0, 1], to cut on. Pure.

Scaled scores cannot serve: the best of them is 1 even where nothing fits. Two measures can:
    likeness   the cosine of the sentence vectors without names, mapped so that unrelated sentences are 0
    coverage   the share of the query's rarity (its IDF mass) that the item's words reach
They are joined as independent evidence, 1 - (1 - a)(1 - b), and an item is lent most of what its nearest
neighbours in the session reach, since an answer often shares no word with its question.

The best of many unrelated sentences is nearer to a query than one of them, so the same cosine says more in a
small cube. Cosines of short statements and questions about other things stay below 0.23 in 97 of 100 pairs, and
below 0.42 is the best of hundreds. Between them the span from "unrelated" to "the same" follows the level that
the largest of n normal draws stays below in 97 of 100 cases: the quantile of 0.97^(1/n).

That is what holds of memories at large. Where every memory of a cube was compared, the query's own cosines say
more: memories that all lie around 0 let one at 0.25 stand out, those of one talk about one thing do not. The
same level, of a normal distribution with their median and their median deviation, which the few that fit hardly
move, then stands in for the one at large if it is lower. Among hundreds of turns it would let in twice as many
strays for next to no more evidence (docs/recall.md), so from dozens on it counts less and less.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from memos.retrieval.fuse import Scores
from memos.retrieval.stages import AFTER, BEFORE, TWO_AFTER, TWO_BEFORE, Places, stepped

COSINE_UNRELATED = 0.1  # of sentences that have nothing to do with each other, names left out
COSINE_SPAN = 0.7  # above that, in a cube of hundreds: the same thing in other words
COSINE_SPAN_ALONE = 0.29  # in a cube of one
SPAN_GROWTH = 0.204  # of the span for each standard deviation by which the best of n is above one
SURE = 0.97  # of cases in which unrelated sentences stay below the default cut
CUT = 0.45  # the default cut, which spans are measured for
COMPARED_MIN = 16  # cosines of one query, from which on they tell how far unrelated ones spread
COMPARED_FULL = 40  # up to so many nothing else counts, beyond it less, by the square
COMPARED_MAX = 128
COVERAGE_FACTOR = 2.0  # one occurrence in a short text scores 0.6 of a term's IDF; half the mass is much
WORDS_ALONE_MAX = 0.9  # what words without likeness can reach
LENT = 0.9  # share of what the item one place away reaches
LENT_FAR = 0.7  # two places away
_MEDIAN_DEVIATION = NormalDist().inv_cdf(0.75)  # of a standard normal distribution, from its median


def span_of(size: int, compared: Collection[float] = ()) -> float:
    """The span of cosines in a cube of so many items; `compared`: those of the query with every one of them, or
    nothing where not all are known."""
    at_large = min(COSINE_SPAN, COSINE_SPAN_ALONE + SPAN_GROWTH * (_level(size) - _level(1)))
    if not COMPARED_MIN <= len(compared) <= COMPARED_MAX:
        return at_large
    cosines = np.fromiter(compared, dtype=np.float64, count=len(compared))
    middle = float(np.median(cosines))
    deviation = float(np.median(np.abs(cosines - middle))) / _MEDIAN_DEVIATION
    span = (middle + deviation * _level(len(compared)) - COSINE_UNRELATED) / CUT
    here = min(at_large, max(COSINE_SPAN_ALONE, span))
    weight = min(1.0, COMPARED_FULL / len(compared)) ** 2
    return weight * here + (1.0 - weight) * at_large


@lru_cache(maxsize=1_024)
def _level(size: int) -> float:
    """What the largest of so many standard normal draws stays below, in SURE of cases."""
    share = (1.0 - SURE) / max(1, size)  # 0.97^(1/n) to first order, which large n leaves above 0
    return -NormalDist().inv_cdf(share)  # by symmetry: of 1 - share


def relativity(*, cosines: Scores, lexical: Scores, mass: Scores, spans: Scores, steps: Places) -> Scores:
    """(q, n) values of (q, n) cosines and BM25 scores. `spans`: for each item, that of its cube.

    `mass` is, for each item, the sum of weight times IDF over the terms of the query in the item's cube: what
    BM25 comes near to at most. 0 when the query has no terms.
    """
    likeness = np.clip((cosines - COSINE_UNRELATED) / spans, 0.0, 1.0)
    reached = np.clip(COVERAGE_FACTOR * lexical, 0.0, mass)
    covered = np.where(mass > 0.0, reached / np.where(mass > 0.0, mass, 1.0), 0.0)
    own = 1.0 - (1.0 - likeness) * (1.0 - WORDS_ALONE_MAX * covered)
    near = np.maximum(stepped(own, steps[BEFORE]), stepped(own, steps[AFTER]))
    far = np.maximum(stepped(own, steps[TWO_BEFORE]), stepped(own, steps[TWO_AFTER]))
    lent = np.maximum(LENT * near, LENT_FAR * far)
    result: Scores = np.maximum(own, lent).astype(np.float32)
    return result
