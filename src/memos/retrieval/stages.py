"""The stages of recall: small functions from what the channels found to one score a stage. Pure.

    direct    what the item itself says: lexical, dense, links, participant, time, scenario, recency, use
    context   what stands around it: episode (best of its episode), neighbours, reply (after a question)
    wording   how it is worded: question (it asks instead of telling), substance (how much it says),
              moment (it tells when)
    second    what the first look leads to: again (near to its best hit), walk (names lead there)

`stage_table.py` lists them all with what they do; here are their functions.

The sum of the direct stages is what context spreads. Every array is (queries, items) or (items,), so the
same code ranks one query and fits weights over all queries of a conversation. Stages know of items only
participants, episodes, places and times. A stage whose weight is 0 is not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memos.retrieval.fuse import Mask, Scores, min_max, weighted_sum
from memos.retrieval.weights import RecallWeights

Places = npt.NDArray[np.int64]

BEFORE, AFTER, TWO_BEFORE, TWO_AFTER = range(4)


@dataclass(frozen=True, slots=True, eq=False)
class Episodes:
    """Items grouped by episode: what `maximum.reduceat` needs to take the best of each."""

    group: Places  # (items,) number of each item's episode
    order: Places  # (items,) the items, those of an episode together
    starts: Places  # (episodes,) where each episode begins in `order`

    @classmethod
    def of(cls, labels: Places) -> Episodes:
        """The grouping of items by any whole-number labels."""
        order = np.argsort(labels, kind="stable")
        in_order = labels[order]
        first = np.ones(len(labels), dtype=bool)
        first[1:] = in_order[1:] != in_order[:-1]
        group = np.empty(len(labels), dtype=np.int64)
        group[order] = np.cumsum(first) - 1
        return cls(group, order, np.flatnonzero(first))

    def best(self, scores: Scores) -> Scores:
        """For each item the best score of its episode."""
        if scores.shape[-1] == 0:
            return scores
        best: Scores = np.maximum.reduceat(scores[:, self.order], self.starts, axis=1)[:, self.group]
        return best


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """What is known of q queries and n candidates. Raw scores; 0 where a channel found nothing."""

    found: Mask  # (q, n) the item is a candidate of the query
    lexical: Scores  # (q, n) BM25 without the names of participants
    names: Scores  # (q, n) BM25 of the names alone
    dense: Scores  # (q, n) cosine
    links: Scores  # (q, n) summed rarity of the shared links
    participant: Scores  # (q, n) 1: the one participant whom the query names took part
    time: Scores  # (q, n) 1: in a period that the query names
    scenario: Scores  # (q, n) 1: same session; 0.5: same scenario
    recency: Scores  # (q, n) 1 now, falling with age
    use: Scores  # (n,) in [0, 1], growing with the uses
    asks_when: Scores  # (q, 1) 1: the query asks for a time
    asks_several: Scores  # (q, 1) 1: the query asks for several things
    asks: Scores  # (n,) 1: the item ends by asking
    tells_when: Scores  # (n,) 1: the item names a time
    substance: Scores  # (n,) in [-1, 1]: how much the item says, 0 for a common sentence
    again: Scores  # (q, n) cosine with the best hit of the first look
    walk: Scores  # (q, n) the share of a random walk from the first hits that ends at the item
    episodes: Episodes
    steps: Places  # (4, n) the item 1 before, 1 after, 2 before, 2 after; -1: none


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Scores of all candidates, and the share of each stage in them."""

    score: Scores  # (q, n); -inf where the item is no candidate
    parts: Mapping[str, Scores]


Weighted = tuple[str, Callable[[RecallWeights], float], Callable[[Signals, RecallWeights], Scores]]

_DIRECT: tuple[Weighted, ...] = (
    ("lexical", lambda w: w.lexical, lambda s, w: min_max(s.lexical + w.name_terms * s.names, s.found)),
    ("dense", lambda w: w.dense, lambda s, w: min_max(s.dense, s.found)),
    ("links", lambda w: w.links, lambda s, w: min_max(s.links, s.found)),
    ("participant", lambda w: w.participant, lambda s, w: s.participant),
    ("time", lambda w: w.time, lambda s, w: s.time),
    ("scenario", lambda w: w.scenario, lambda s, w: s.scenario),
    ("recency", lambda w: w.recency, lambda s, w: s.recency),
    ("use", lambda w: w.use, lambda s, w: s.use[None, :] * s.found),
)

_WORDING: tuple[Weighted, ...] = (
    ("question", lambda w: w.question, lambda s, w: -s.asks[None, :] * s.found),
    ("substance", lambda w: w.substance, lambda s, w: s.substance[None, :] * s.found),
    ("moment", lambda w: w.moment, lambda s, w: s.asks_when * s.tells_when[None, :] * s.found),
)

_SECOND: tuple[Weighted, ...] = (
    ("again", lambda w: w.again, lambda s, w: min_max(s.again, s.found)),
    ("walk", lambda w: w.walk, lambda s, w: min_max(s.walk, s.found)),
)


def direct(signals: Signals, weights: RecallWeights) -> dict[str, Scores]:
    """What the items themselves say, a stage at a time."""
    return _apply(_DIRECT, signals, weights)


def context(signals: Signals, weights: RecallWeights, base: Scores) -> dict[str, Scores]:
    """What stands around the items says. `base` is the sum of the direct stages.

    A good neighbour counts only by what it has above `context_floor`: most items fit a little, and
    their sum would drown the few that fit well. For a query that asks for several things what stands around
    one of them counts less: the others are told elsewhere.
    """
    parts: dict[str, Scores] = {}
    share = 1.0 - (1.0 - np.float32(weights.several)) * signals.asks_several
    if weights.episode > 0.0:
        parts["episode"] = weights.episode * share * signals.episodes.best(base)
    strong = np.maximum(base - np.float32(weights.context_floor), 0.0)
    if weights.near > 0.0 or weights.far > 0.0:
        near = stepped(strong, signals.steps[BEFORE]) + stepped(strong, signals.steps[AFTER])
        far = stepped(strong, signals.steps[TWO_BEFORE]) + stepped(strong, signals.steps[TWO_AFTER])
        parts["neighbours"] = share * (weights.near * near + weights.far * far)
    if weights.reply > 0.0:
        parts["reply"] = _reply(signals, weights, base)
    return {stage: np.where(signals.found, part, 0.0).astype(np.float32) for stage, part in parts.items()}


def _reply(signals: Signals, weights: RecallWeights, base: Scores) -> Scores:
    strong = np.maximum(base - np.float32(weights.context_floor), 0.0)
    reply: Scores = weights.reply * stepped(strong * signals.asks[None, :], signals.steps[BEFORE])
    return reply


def wording(signals: Signals, weights: RecallWeights) -> dict[str, Scores]:
    """How the items are worded."""
    return _apply(_WORDING, signals, weights)


def second(signals: Signals, weights: RecallWeights) -> dict[str, Scores]:
    """What the first look leads to; nothing where it was not followed."""
    followed = {"again": bool(signals.again.any()), "walk": bool(signals.walk.any())}
    stages = tuple(one for one in _SECOND if followed[one[0]])
    return _apply(stages, signals, weights)


def rank(signals: Signals, weights: RecallWeights) -> Ranking:
    """All stages, fused."""
    parts = direct(signals, weights)
    base = weighted_sum(parts, signals.lexical)
    parts |= context(signals, weights, base)
    parts |= wording(signals, weights)
    parts |= second(signals, weights)
    return _summed(parts, signals)


def ranked_by_wording(ranking: Ranking, signals: Signals, weights: RecallWeights) -> Ranking:
    """What `rank` gives, by way of the ranking of the same signals without their wording."""
    parts = dict(ranking.parts)
    if "reply" in parts:
        base = weighted_sum({name: parts[name] for name, _, _ in _DIRECT if name in parts}, signals.lexical)
        parts["reply"] = np.where(signals.found, _reply(signals, weights, base), 0.0).astype(np.float32)
    parts |= wording(signals, weights)
    return _summed(parts, signals)


def _summed(parts: dict[str, Scores], signals: Signals) -> Ranking:
    score = weighted_sum(parts, signals.lexical)
    return Ranking(np.where(signals.found, score, -np.inf).astype(np.float32), parts)


def _apply(stages: tuple[Weighted, ...], signals: Signals, weights: RecallWeights) -> dict[str, Scores]:
    return {
        stage: np.float32(weight(weights)) * score(signals, weights)
        for stage, weight, score in stages
        if weight(weights) > 0.0
    }


def stepped(scores: Scores, step: Places) -> Scores:
    """For each item the score of the item that `step` names; 0 where there is none."""
    stepped: Scores = np.where(step >= 0, scores[:, step], 0.0).astype(np.float32)
    return stepped
