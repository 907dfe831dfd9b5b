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
"""

from __future__ import annotations

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
COVERAGE_FACTOR = 2.0  # one occurrence in a short text scores 0.6 of a term's IDF; half the mass is much
WORDS_ALONE_MAX = 0.9  # what words without likeness can reach
LENT = 0.9  # share of what the item one place away reaches
LENT_FAR = 0.7  # two places away


def span_of(sizes: Places) -> Scores:
    """The span of cosines in cubes of so many items."""
    unique, places = np.unique(sizes, return_inverse=True)
    spans = np.array([_span(int(size)) for size in unique], dtype=np.float32)
    result: Scores = spans[places]
    return result


@lru_cache(maxsize=1_024)
def _span(size: int) -> float:
    normal = NormalDist()
    share = (1.0 - SURE) / max(1, size)  # 0.97^(1/n) to first order, which large n leaves above 0
    growth = -normal.inv_cdf(share) - normal.inv_cdf(SURE)  # by symmetry: of 1 - share
    return min(COSINE_SPAN, COSINE_SPAN_ALONE + SPAN_GROWTH * growth)


def relativity(*, cosines: Scores, lexical: Scores, mass: Scores, sizes: Places, steps: Places) -> Scores:
    """(q, n) values of (q, n) cosines and BM25 scores. `sizes`: for each item, how many its cube has.

    `mass` is, for each item, the sum of weight times IDF over the terms of the query in the item's cube: what
    BM25 comes near to at most. 0 when the query has no terms.
    """
    likeness = np.clip((cosines - COSINE_UNRELATED) / span_of(sizes), 0.0, 1.0)
    reached = np.clip(COVERAGE_FACTOR * lexical, 0.0, mass)
    covered = np.where(mass > 0.0, reached / np.where(mass > 0.0, mass, 1.0), 0.0)
    own = 1.0 - (1.0 - likeness) * (1.0 - WORDS_ALONE_MAX * covered)
    near = np.maximum(stepped(own, steps[BEFORE]), stepped(own, steps[AFTER]))
    far = np.maximum(stepped(own, steps[TWO_BEFORE]), stepped(own, steps[TWO_AFTER]))
    lent = np.maximum(LENT * near, LENT_FAR * far)
    result: Scores = np.maximum(own, lent).astype(np.float32)
    return result
