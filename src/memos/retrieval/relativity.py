"""`relativity`: how well a memory fits a query on an absolute scale in [0, 1], to cut on. Pure.

Scaled scores cannot serve: the best of them is 1 even where nothing fits. Two measures can:
    likeness   the cosine of the sentence vectors without names, mapped so that unrelated sentences are 0
    coverage   the share of the query's rarity (its IDF mass) that the item's words reach
They are joined as independent evidence, 1 - (1 - a)(1 - b), and an item is lent most of what its nearest
neighbours in the session reach, since an answer often shares no word with its question.

Measured with the documented cut of 0.45 on long conversations: recall@10 falls by 4 points, while of the
ten best hits for questions about other people's conversations three are left, and none for half of them.
"""

from __future__ import annotations

import numpy as np

from memos.retrieval.fuse import Scores
from memos.retrieval.stages import AFTER, BEFORE, TWO_AFTER, TWO_BEFORE, Places, stepped

COSINE_UNRELATED = 0.1  # of sentences that have nothing to do with each other, names left out
COSINE_SPAN = 0.7  # above that: the same thing in other words
COVERAGE_FACTOR = 2.0  # one occurrence in a short text scores 0.6 of a term's IDF; half the mass is much
WORDS_ALONE_MAX = 0.9  # what words without likeness can reach
LENT = 0.9  # share of what the item one place away reaches
LENT_FAR = 0.7  # two places away


def relativity(*, cosines: Scores, lexical: Scores, mass: Scores, steps: Places) -> Scores:
    """(q, n) values of (q, n) cosines and BM25 scores.

    `mass` is, for each item, the sum of weight times IDF over the terms of the query in the item's cube: what
    BM25 comes near to at most. 0 when the query has no terms.
    """
    likeness = np.clip((cosines - COSINE_UNRELATED) / COSINE_SPAN, 0.0, 1.0)
    reached = np.clip(COVERAGE_FACTOR * lexical, 0.0, mass)
    covered = np.where(mass > 0.0, reached / np.where(mass > 0.0, mass, 1.0), 0.0)
    own = 1.0 - (1.0 - likeness) * (1.0 - WORDS_ALONE_MAX * covered)
    near = np.maximum(stepped(own, steps[BEFORE]), stepped(own, steps[AFTER]))
    far = np.maximum(stepped(own, steps[TWO_BEFORE]), stepped(own, steps[TWO_AFTER]))
    lent = np.maximum(LENT * near, LENT_FAR * far)
    result: Scores = np.maximum(own, lent).astype(np.float32)
    return result
