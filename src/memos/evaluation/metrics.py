"""Rank metrics of one question, and their averages. Pure.

A ranking is the list of what each hit stands for; a hit that stands for nothing, or for something that a
better hit stands for already, still takes its place. Recall at k is the share of the wanted ids among
the first k. nDCG is binary with discount log2(rank + 1) (Järvelin & Kekäläinen 2002); MRR looks at the
whole ranking.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, log2


@dataclass(frozen=True, slots=True)
class Scores:
    """Metrics of one question or averages over `n` of them; shares between 0 and 1."""

    r5: float
    r10: float
    r20: float
    mrr: float
    ndcg10: float
    n: int = 1


def score(ranking: Sequence[str], wanted: Collection[str]) -> Scores:
    """The metrics of one ranking. `wanted` holds at least one id."""
    gold = frozenset(wanted)
    if not gold:
        raise ValueError("a question without wanted ids has no recall")
    ranks: list[int] = []
    seen: set[str] = set()
    for rank, name in enumerate(ranking, start=1):
        if name in gold and name not in seen:
            ranks.append(rank)
            seen.add(name)
    ideal = sum(1.0 / log2(rank + 1) for rank in range(1, min(len(gold), 10) + 1))
    return Scores(
        r5=sum(rank <= 5 for rank in ranks) / len(gold),
        r10=sum(rank <= 10 for rank in ranks) / len(gold),
        r20=sum(rank <= 20 for rank in ranks) / len(gold),
        mrr=1.0 / ranks[0] if ranks else 0.0,
        ndcg10=sum(1.0 / log2(rank + 1) for rank in ranks if rank <= 10) / ideal,
    )


def average(scores: Iterable[Scores]) -> Scores:
    """The mean over questions; zeros with n = 0 for none."""
    rows = list(scores)
    count = len(rows)
    return Scores(
        r5=sum(row.r5 for row in rows) / max(1, count),
        r10=sum(row.r10 for row in rows) / max(1, count),
        r20=sum(row.r20 for row in rows) / max(1, count),
        mrr=sum(row.mrr for row in rows) / max(1, count),
        ndcg10=sum(row.ndcg10 for row in rows) / max(1, count),
        n=count,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
