"""What stands in working memory after a recall: a pure decision over old entries and scored candidates.

The places go to the best scored of old and new together; an old entry keeps its place by its score
alone. Every entry says why it is there, everything that leaves says why it left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from memos.errors import InvalidInput
from memos.memory.item import WorkingEntry


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that may take a place. `score` is comparable over one call, larger is better."""

    item_id: str
    score: float
    reason: str  # e.g. "recalled for 'dog name'"


@dataclass(frozen=True, slots=True)
class Departure:
    """An entry that loses its place."""

    item_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkingPlan:
    """`entries` is the whole new set, best first; `added`, `kept` and `removed` part it from the old one."""

    entries: tuple[WorkingEntry, ...]
    added: tuple[WorkingEntry, ...]
    kept: tuple[WorkingEntry, ...]
    removed: tuple[Departure, ...]

    @property
    def changes_anything(self) -> bool:
        return bool(self.added or self.removed)


def plan_working(
    old: Sequence[WorkingEntry], candidates: Sequence[Candidate], *, capacity: int, now: datetime
) -> WorkingPlan:
    """The working set that follows from `old` and the scored candidates.

    Candidates include every old entry that is still relevant, scored against the query; an old entry
    without one leaves. Of two candidates for one item the better counts; of equal scores an old entry
    goes first (what is there stays there), then the order given.
    """
    if capacity < 1:
        raise InvalidInput(f"capacity of working memory must be at least 1, not {capacity}")
    before = {entry.item_id: entry for entry in old}
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        known = best.get(candidate.item_id)
        if known is None or candidate.score > known.score:
            best[candidate.item_id] = candidate
    ranked = sorted(best.values(), key=lambda one: (-one.score, one.item_id not in before))
    entries = tuple(_entry(one, before.get(one.item_id), now) for one in ranked[:capacity])
    ids = {entry.item_id for entry in entries}
    outranked = {one.item_id: one for one in ranked[capacity:]}
    return WorkingPlan(
        entries=entries,
        added=tuple(entry for entry in entries if entry.item_id not in before),
        kept=tuple(entry for entry in entries if entry.item_id in before),
        removed=tuple(
            Departure(entry.item_id, _why(outranked.get(entry.item_id), capacity))
            for entry in old
            if entry.item_id not in ids
        ),
    )


def _entry(candidate: Candidate, before: WorkingEntry | None, now: datetime) -> WorkingEntry:
    if before is None:
        return WorkingEntry(candidate.item_id, candidate.score, candidate.reason, now)
    return replace(before, score=candidate.score, reason=f"kept: {candidate.reason}")


def _why(outranked: Candidate | None, capacity: int) -> str:
    if outranked is None:
        return "does not bear on the query"
    return f"outranked: score {outranked.score:.3f} is below the best {capacity}"
