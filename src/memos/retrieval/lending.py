"""A hit that fits well speaks for those that recall ranks close to it. Pure.

`relativity` sees an item's own words and meaning and those of its neighbours. The ranking knows more:
participants, time, episode, how a text is worded. What all stages together put at 0.9 of the score of the
first hit is lent 0.9 of what the best of the first hits reaches on the absolute scale; it never gets more
than that one has. So nothing is lent where nothing fits.

Measured on seven long conversations with the cut of 0.45: recall@10 rises from .775 to .801; of the ten best hits
for questions about other people's conversations 2.0 are left instead of 1.6, and none for as many of them as
before (64 of 100). docs/recall.md has what the stage gains now.
"""

from __future__ import annotations

from collections.abc import Sequence

LENDERS = 10  # first hits among which the best lends


def lent(scores: Sequence[float], relativities: Sequence[float]) -> list[float]:
    """The relativities of hits, best score first, each at least what the best of the first lends it."""
    if not scores or scores[0] <= 0.0:
        return list(relativities)
    best, first = max(relativities[:LENDERS]), scores[0]
    return [
        max(own, best * min(1.0, max(0.0, score) / first))
        for score, own in zip(scores, relativities, strict=True)
    ]
