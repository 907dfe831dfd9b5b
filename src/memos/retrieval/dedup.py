"""Leaving out hits that say again what a better hit says. Pure; takes hits best first and keeps order.

    no    nothing is left out
    sim   exact duplicates (content hash and speakers), what is told and where it was derived from, and
          texts that differ in nothing but function words
    mmr   the same, then maximal marginal relevance (Carbonell & Goldstein 1998): a hit yields to one that
          adds more to those already chosen

Two texts count as the same only if their content words, numbers and negations agree in order: "allergic
to nuts" and "not allergic to nuts" are far apart, however close a model puts them. A derived item and the
one source it was derived from are one hit; a summary of many turns does not swallow them, and two facts
out of one turn stay two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from memos.retrieval.keywords import analyse
from memos.retrieval.request import Dedup, Hit

# Share of the relevance in maximal marginal relevance; the rest is novelty.
MMR_RELEVANCE = 0.9
TEXTS_CACHED_MAX = 4_096

_NEGATION = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|cannot|without|hardly)\b|n['’]t\b|[不没無无非别未]",
    re.IGNORECASE,
)

Said = tuple[tuple[str, ...], tuple[str, ...], int]


def dedup(hits: Sequence[Hit], *, how: Dedup, top_k: int) -> list[Hit]:
    """At most `top_k` of the hits."""
    if how == "no":
        return list(hits[:top_k])
    # What is looked at twice is bounded: the rest of a long list can hardly rise into the first top_k.
    kept = _distinct(hits, limit=top_k if how == "sim" else 2 * top_k)
    return kept[:top_k] if how == "sim" else _diverse(kept, top_k)


def _distinct(hits: Sequence[Hit], *, limit: int) -> list[Hit]:
    kept: list[Hit] = []
    texts: set[tuple[str, tuple[str, ...]]] = set()
    said: set[Said] = set()
    told: set[str] = set()  # keys of raw items among the kept hits
    derived: set[str] = set()  # the one source of a derived item among the kept hits
    for hit in hits:
        if len(kept) == limit:
            break
        item = hit.item
        keys = {source.key for source in item.sources if source.key}
        own = {item.id, *keys}
        text = (item.content_hash, item.participants)
        if text in texts:
            continue
        if item.raw and own & derived:
            continue
        if not item.raw and keys and keys <= told:
            continue
        wording = _said(item.memory, item.participants)
        if wording in said:
            continue
        texts.add(text)
        said.add(wording)
        if item.raw:
            told |= own
        elif len(keys) == 1:
            derived |= keys
        kept.append(hit)
    return kept


def _said(text: str, participants: tuple[str, ...]) -> Said:
    """What makes two texts say the same: content terms in order, who takes part, how often they negate."""
    return _content(text), participants, len(_NEGATION.findall(text))


@lru_cache(maxsize=TEXTS_CACHED_MAX)
def _content(text: str) -> tuple[str, ...]:
    """The content terms in order. Cached: the same memories come up for query after query."""
    return tuple(analyse(text))


def _diverse(hits: Sequence[Hit], top_k: int) -> list[Hit]:
    """Maximal marginal relevance over content terms (Dice)."""
    if len(hits) <= 1:
        return list(hits)
    terms = [frozenset(_content(hit.item.memory)) for hit in hits]
    best = max(hit.score for hit in hits)
    least = min(hit.score for hit in hits)
    span = (best - least) or 1.0
    relevance = [MMR_RELEVANCE * (hit.score - least) / span for hit in hits]
    closest = [0.0] * len(hits)  # to any of the chosen
    left = list(range(len(hits)))
    chosen: list[Hit] = []
    while left and len(chosen) < top_k:
        pick = max(left, key=lambda i: (round(relevance[i] - (1.0 - MMR_RELEVANCE) * closest[i], 4), -i))
        left.remove(pick)
        chosen.append(hits[pick])
        for i in left:
            closest[i] = max(closest[i], _dice(terms[i], terms[pick]))
    return chosen


def _dice(one: frozenset[str], other: frozenset[str]) -> float:
    size = len(one) + len(other)
    return 2.0 * len(one & other) / size if size else 0.0
