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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from memos.memory.store import Facet
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


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is looked at of an item, so that an item need not be read to be left out."""

    id: str
    text: str
    content_hash: str
    participants: tuple[str, ...]
    raw: bool
    source_keys: tuple[str, ...]
    score: float

    @classmethod
    def of(cls, facet: Facet, text: str, score: float) -> Candidate:
        """The item of these facets with this text."""
        keys = facet.source_keys
        return cls(facet.id, text, facet.content_hash, facet.participants, facet.raw, keys, score)


def dedup(hits: Sequence[Hit], *, how: Dedup, top_k: int) -> list[Hit]:
    """At most `top_k` of the hits."""
    return [hits[place] for place in chosen(map(_candidate, hits), how=how, top_k=top_k)]


def _candidate(hit: Hit) -> Candidate:
    item = hit.item
    keys = tuple(source.key for source in item.sources)
    return Candidate(item.id, item.memory, item.content_hash, item.participants, item.raw, keys, hit.score)


def chosen(candidates: Iterable[Candidate], *, how: Dedup, top_k: int) -> list[int]:
    """The places of at most `top_k` of them. No more are asked for than it takes."""
    if how == "no":
        return [place for place, _ in zip(range(top_k), candidates, strict=False)]
    # What is looked at twice is bounded: the rest of a long list can hardly rise into the first top_k.
    kept = _distinct(candidates, limit=top_k if how == "sim" else 2 * top_k)
    if how == "mmr":
        kept = _diverse(kept, top_k)
    return [place for place, _ in kept[:top_k]]


def _distinct(candidates: Iterable[Candidate], *, limit: int) -> list[tuple[int, Candidate]]:
    kept: list[tuple[int, Candidate]] = []
    texts: set[tuple[str, tuple[str, ...]]] = set()
    said: set[Said] = set()
    told: set[str] = set()  # keys of raw items among the kept hits
    derived: set[str] = set()  # the one source of a derived item among the kept hits
    for place, item in enumerate(candidates):
        keys = {key for key in item.source_keys if key}
        own = {item.id, *keys}
        text = (item.content_hash, item.participants)
        if text in texts:
            continue
        if item.raw and own & derived:
            continue
        if not item.raw and keys and keys <= told:
            continue
        wording = _said(item.text, item.participants)
        if wording in said:
            continue
        texts.add(text)
        said.add(wording)
        if item.raw:
            told |= own
        elif len(keys) == 1:
            derived |= keys
        kept.append((place, item))
        if len(kept) >= limit:
            break
    return kept


def _said(text: str, participants: tuple[str, ...]) -> Said:
    """What makes two texts say the same: content terms in order, who takes part, how often they negate."""
    return _content(text), participants, len(_NEGATION.findall(text))


@lru_cache(maxsize=TEXTS_CACHED_MAX)
def _content(text: str) -> tuple[str, ...]:
    """The content terms in order. Cached: the same memories come up for query after query."""
    return tuple(analyse(text))


def _diverse(kept: list[tuple[int, Candidate]], top_k: int) -> list[tuple[int, Candidate]]:
    """Maximal marginal relevance over content terms (Dice)."""
    if len(kept) <= 1:
        return kept
    terms = [frozenset(_content(item.text)) for _, item in kept]
    scores = [item.score for _, item in kept]
    best, least = max(scores), min(scores)
    span = (best - least) or 1.0
    relevance = [MMR_RELEVANCE * (score - least) / span for score in scores]
    closest = [0.0] * len(kept)  # to any of the chosen
    left = list(range(len(kept)))
    chosen: list[tuple[int, Candidate]] = []
    while left and len(chosen) < top_k:
        pick = max(left, key=lambda i: (round(relevance[i] - (1.0 - MMR_RELEVANCE) * closest[i], 4), -i))
        left.remove(pick)
        chosen.append(kept[pick])
        for i in left:
            closest[i] = max(closest[i], _dice(terms[i], terms[pick]))
    return chosen


def _dice(one: frozenset[str], other: frozenset[str]) -> float:
    size = len(one) + len(other)
    return 2.0 * len(one & other) / size if size else 0.0
