"""What a user has corrected, or a newer fact has outdated: before a turn that is known to be wrong stands what corrects it. Pure.

A turn stays what was said and stays recallable; `extra["corrected_by"]` of it names the corrections. Hits
keep their order otherwise; a correction that was not among them takes the place of the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from memos.memory.item import MemoryItem
from memos.retrieval.request import Hit, Way

CORRECTED_BY = "corrected_by"  # in an item's `extra`: the ids of the items that correct what it says
CORRECTS = "corrects"  # in the `extra` of a correction: the ids of what it corrects
STAGE = "corrections"  # the share of a score that a correction owes to the turn it corrects
CORRECTIONS_MAX = 50  # of one search

Fetch = Callable[[Collection[str]], Mapping[str, MemoryItem]]


def corrections_of(item: MemoryItem) -> tuple[str, ...]:
    """The ids of what corrects the item."""
    ids = item.extra.get(CORRECTED_BY, ())
    return tuple(one for one in ids if isinstance(one, str)) if isinstance(ids, list | tuple) else ()


def with_corrections_first(hits: Sequence[Hit], fetch: Fetch, *, top_k: int) -> list[Hit]:
    """The hits, each corrected one behind its corrections. `fetch` gives those of the named items that
    may be shown, live and within the request's limits."""
    if not any(corrections_of(hit.item) for hit in hits):
        return list(hits)
    found = {hit.item.id: hit for hit in hits}
    wanted = list(dict.fromkeys(one for hit in hits for one in corrections_of(hit.item)))[:CORRECTIONS_MAX]
    fetched = fetch([one for one in wanted if one not in found])
    placed: dict[str, Hit] = {}
    for hit in hits:
        for one in corrections_of(hit.item):
            if one in placed:
                continue
            if one in found:
                placed[one] = _raised(found[one], hit)
            elif one in fetched:
                placed[one] = _raised(Hit(fetched[one], 0.0, 0.0), hit)
        placed.setdefault(hit.item.id, hit)
    return list(placed.values())[:top_k]


def _raised(correction: Hit, hit: Hit) -> Hit:
    """The correction with at least the score and the fit of what it corrects."""
    score = max(correction.score, hit.score)
    parts = (
        {**correction.parts, STAGE: score - correction.score}
        if score > correction.score
        else correction.parts
    )
    return replace(
        correction,
        score=score,
        relativity=max(correction.relativity, hit.relativity),
        parts=parts,
        ways=(*correction.ways, Way(STAGE, hit.item.id)),
    )
