"""What a user has corrected, or a newer fact has outdated: before a turn that is known to be wrong stands what corrects it. Pure.

A turn stays what was said and stays recallable; `extra["corrected_by"]` of it names the corrections. Hits
keep their order otherwise; a correction that was not among them takes the place of the last one.

Of a turn that says several things a clause alone may be outdated: `extra["outdated_clauses"]` names it and what
holds in its place. That stands before the turn where the query is about the clause rather than about the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from memos.memory.item import MemoryItem
from memos.retrieval.keywords import analyse, query_terms
from memos.retrieval.request import Hit, Way

CORRECTED_BY = "corrected_by"  # in an item's `extra`: the ids of the items that correct what it says
OUTDATED_CLAUSES = (
    "outdated_clauses"  # in an item's `extra`: [{"text": the clause, "by": the id of what holds}]
)
CORRECTS = "corrects"  # in the `extra` of a correction: the ids of what it corrects
STAGE = "corrections"  # the share of a score that a correction owes to the turn it corrects
CORRECTIONS_MAX = 50  # of one search

Fetch = Callable[[Collection[str]], Mapping[str, MemoryItem]]


def corrections_of(item: MemoryItem) -> tuple[str, ...]:
    """The ids of what corrects the item."""
    ids = item.extra.get(CORRECTED_BY, ())
    return tuple(one for one in ids if isinstance(one, str)) if isinstance(ids, list | tuple) else ()


@dataclass(frozen=True, slots=True)
class OutdatedClause:
    """A clause, as it stands in the turn, and the id of what holds in its place."""

    text: str
    by: str


def outdated_clauses(item: MemoryItem) -> tuple[OutdatedClause, ...]:
    """What the item says that holds no longer, beside what does; nothing that an edit has taken out of it."""
    kept = item.extra.get(OUTDATED_CLAUSES, ())
    return tuple(
        OutdatedClause(one["text"], one["by"])
        for one in (kept if isinstance(kept, list | tuple) else ())
        if isinstance(one, Mapping)
        and isinstance(text := one.get("text"), str)
        and isinstance(one.get("by"), str)
        and text in item.memory
    )


def first_for(item: MemoryItem, terms: Mapping[str, float]) -> tuple[str, ...]:
    """The ids of what stands before the item where these terms (with weights) are searched for."""
    marked = outdated_clauses(item)
    if not marked:
        return corrections_of(item)
    rest = Counter(analyse(item.memory))
    for one in marked:
        rest.subtract(analyse(one.text))
    others = _weight(terms, {term for term, times in rest.items() if times > 0})
    about = (one.by for one in marked if _weight(terms, analyse(one.text)) > others)
    return tuple(dict.fromkeys([*corrections_of(item), *about]))


def _weight(terms: Mapping[str, float], said: Collection[str]) -> float:
    return sum(weight for term, weight in terms.items() if term in said)


def with_corrections_first(hits: Sequence[Hit], fetch: Fetch, *, top_k: int, query: str = "") -> list[Hit]:
    """The hits, each corrected one behind its corrections. `fetch` gives those of the named items that
    may be shown, live and within the request's limits."""
    terms = query_terms(query) if any(outdated_clauses(hit.item) for hit in hits) else {}
    before = {hit.item.id: first_for(hit.item, terms) for hit in hits}
    if not any(before.values()):
        return list(hits)
    found = {hit.item.id: hit for hit in hits}
    wanted = list(dict.fromkeys(one for hit in hits for one in before[hit.item.id]))[:CORRECTIONS_MAX]
    fetched = fetch([one for one in wanted if one not in found])
    placed: dict[str, Hit] = {}
    for hit in hits:
        for one in before[hit.item.id]:
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
