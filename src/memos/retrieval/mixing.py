"""Joining several recalls for one question. Pure.

Scores of different searches do not compare; relativity does, being absolute. The order that the first
recall gave stays: it was ranked by more than relativity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from memos.retrieval.dedup import dedup
from memos.retrieval.keywords import analyse
from memos.retrieval.request import Dedup, Hit

FOLLOW_UP_TERMS_MAX = 2  # a question with no more words that count leans on the one before it
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
DISPLACED_SHARE = 0.5  # of the first recall that others may take the place of


def leans_on_earlier(query: str) -> bool:
    """Whether a query says too little to stand alone: "find cheaper ones", 有便宜的吗."""
    terms = analyse(query)
    # Of Chinese both characters and their pairs are terms; two characters are about a word.
    characters = sum(len(term) == 1 and _UNSPACED.match(term) is not None for term in terms)
    words = sum(_UNSPACED.match(term) is None for term in terms)
    return words + (characters + 1) // 2 <= FOLLOW_UP_TERMS_MAX


def best_of(recalls: Iterable[tuple[float, Sequence[Hit]]]) -> list[Hit]:
    """Every item once with the best of its relativities, each times the weight of its recall; best first."""
    found: dict[str, Hit] = {}
    for weight, hits in recalls:
        for hit in hits:
            weighed = replace(hit, relativity=weight * hit.relativity)
            known = found.get(hit.item.id)
            if known is None or weighed.relativity > known.relativity:
                found[hit.item.id] = weighed
    return sorted(found.values(), key=lambda hit: (-hit.relativity, hit.item.id))


def joined(first: Sequence[Hit], more: Sequence[Hit], *, top_k: int, how: Dedup) -> list[Hit]:
    """At most `top_k`: the first recall's hits, then what more there is while there is room.

    Without room a further hit takes the place of the last of the first that fits the question less.
    """
    kept = list(first[:top_k])
    known = {hit.item.id for hit in kept}
    displaced = int(DISPLACED_SHARE * len(kept))
    added: list[Hit] = []
    for hit in sorted(more, key=lambda one: (-one.relativity, one.item.id)):
        if hit.item.id in known:
            continue
        if len(kept) + len(added) >= top_k:
            if not displaced or kept[-1].relativity >= hit.relativity:
                break
            kept.pop()
            displaced -= 1
        known.add(hit.item.id)
        added.append(hit)
    return dedup([*kept, *added], how="no" if how == "no" else "sim", top_k=top_k)
