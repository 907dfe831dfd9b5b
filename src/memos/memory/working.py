"""What stands in working memory after a recall: one pure decision, which production and benchmark share.

Every item has a value, and the best `capacity` of them have the places:

    value = 0.5 ** (rank / RANK_HALF)  +  USE_WEIGHT * share * heat
            what the query needs now      what answers have used, fading with every recall

`rank` is the item's place among the candidates of this recall, best first; gaps in what is remembered have
raised their candidates' scores before. `heat` rises by 1 with each answer that used the item and keeps the
share `heat_kept` of itself over a recall: recency and frequency of use in one number (LRFU, Lee et al.
2001, IEEE Transactions on Computers 50). `share` follows what pays in this cube (`Balance`), as ARC does
(Megiddo and Modha 2003, FAST): where answers use what they used before, heat counts more, where they use
what the last recalls brought, it counts less. The rank counts rather than the score, because scores of two
recalls, or of two rerankers, do not compare.

The order by value does not depend on the capacity. So a larger working memory holds all that a smaller
one holds, and the place of an item in the order says how large it would have had to be: the miss-ratio
curve (`working_record`) needs no replay (Mattson et al. 1970, IBM Systems Journal 9, on stack algorithms).
What follows the places in that order are the ghosts: they have lost, or nearly had, a place.

Whatever comes or leaves has exactly one cause, and a sentence that says it with numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from memos.errors import InvalidInput
from memos.memory.item import WorkingEntry

PINNED_TAG = "memos:pinned"  # an item that bears it keeps the place that it has
GHOSTS_PER_PLACE = 4  # ordered items beyond the places that are remembered, for each place
GHOSTS_MAX = 1_000
HEAT_MIN = 0.001  # what has cooled down to less is forgotten


class Cause(StrEnum):
    """Why an item came or left, as metrics count it."""

    RECALLED = "recalled"  # came: the query needs it
    RETURNED = "returned"  # came: a ghost that was recalled again, or whose uses outweigh what stood there
    OUTRANKED = "outranked"  # left: recalled, but others are worth more
    COOLED = "cooled"  # left: answers used it, too long ago
    UNRELATED = "unrelated"  # left: not recalled, and no answer used it
    GONE = "gone"  # left: deleted, archived or replaced meanwhile


@dataclass(frozen=True, slots=True)
class WorkingPolicy:
    """The constants; fitted by `benchmarks.working_memory --tune`, cross-validated over conversations."""

    rank_half: float = 12.0  # ranks after which the need of the query counts half
    heat_kept: float = 0.95  # share of an item's heat that is left after a recall
    use_weight: float = 1.5  # of heat beside need, where nothing but repeated use pays
    balance_kept: float = 0.98  # share of older evidence that is left after a use


POLICY = WorkingPolicy()


@dataclass(frozen=True, slots=True)
class Balance:
    """Which of two working memories would have held what answers used, in uses that fade.

    `recalled`: only the best of the last recall. `hot`: only what was used most and last. Uses that both or
    neither would have held say nothing.
    """

    recalled: float = 2.0
    hot: float = 2.0

    @property
    def share(self) -> float:
        """How much heat counts, between 0 and 1."""
        return (self.hot + 0.5) / (self.recalled + self.hot + 1.0)

    def after(self, *, recalled: bool, hot: bool, kept: float = POLICY.balance_kept) -> Balance:
        """The balance after one more use."""
        return Balance(
            kept * self.recalled + (recalled and not hot), kept * self.hot + (hot and not recalled)
        )


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
    cause: Cause


@dataclass(frozen=True, slots=True)
class Order:
    """All items that have or nearly have a place, most valuable first; the first `places` have one."""

    ids: tuple[str, ...] = ()
    places: int = 0
    heat: Mapping[str, float] = field(default_factory=dict)  # hottest first; of those that have any
    recalled: tuple[str, ...] = ()  # the best of the recall, as many as there are places

    def place_of(self, item_id: str) -> int | None:
        """How many items are worth more; None for one that is not remembered."""
        return self.ids.index(item_id) if item_id in self.ids else None

    def is_hot(self, item_id: str) -> bool:
        """Whether the item would have a place if heat alone decided."""
        return item_id in tuple(self.heat)[: self.places]

    def without(self, gone: AbstractSet[str]) -> Order:
        """The same without some items, which live no more."""
        return Order(
            tuple(one for one in self.ids if one not in gone),
            self.places - sum(one in gone for one in self.ids[: self.places]),
            {one: left for one, left in self.heat.items() if one not in gone},
            tuple(one for one in self.recalled if one not in gone),
        )


@dataclass(frozen=True, slots=True)
class WorkingPlan:
    """`entries` is the whole new set, best fitting first; `added`, `kept` and `removed` part it from the old one.

    `causes` has one for each of `added` and `removed`; `order` goes into the next plan.
    """

    entries: tuple[WorkingEntry, ...]
    added: tuple[WorkingEntry, ...]
    kept: tuple[WorkingEntry, ...]
    removed: tuple[Departure, ...]
    causes: Mapping[str, Cause]
    order: Order

    @property
    def changes_anything(self) -> bool:
        return bool(self.added or self.removed)


def remembered_max(capacity: int) -> int:
    """How many items an order holds at most: places and ghosts."""
    return capacity + min(GHOSTS_MAX, GHOSTS_PER_PLACE * capacity)


def plan_working(
    old: Sequence[WorkingEntry],
    candidates: Sequence[Candidate],
    *,
    capacity: int,
    now: datetime,
    order: Order | None = None,
    used: Mapping[str, int] | None = None,
    balance: Balance | None = None,
    pinned: AbstractSet[str] = frozenset(),
    policy: WorkingPolicy = POLICY,
) -> WorkingPlan:
    """The working set that follows from `old`, the scored candidates and what answers have used.

    `order` is that of the plan before; `used` counts, by id, the answers that have used an item since then.
    Old entries of `pinned` items keep their places before all others, as far as there are places; a pin
    brings nothing in. Of two candidates for one item the better counts; of equal scores or values an old
    entry goes first (what is there stays there), then the order given. An item that is no candidate and
    has no heat gets no place. An item with heat may get a place without being a candidate: the caller has
    to know that it lives, and plans again without it where it does not. Raises InvalidInput.
    """
    if capacity < 1:
        raise InvalidInput(f"capacity of working memory must be at least 1, not {capacity}")
    order, remembered = order or Order(), remembered_max(capacity)
    before = {entry.item_id: entry for entry in old}
    ranked = _ranked(candidates, before)
    heat = _heat(order, used or {}, kept=policy.heat_kept, limit=remembered)
    weight = policy.use_weight * (balance or Balance()).share
    value = {one.item_id: 0.5 ** (rank / policy.rank_half) for rank, one in enumerate(ranked)}
    for one, degrees in heat.items():
        value[one] = value.get(one, 0.0) + weight * degrees
    stays = {one for one in before if one in pinned}
    known = dict.fromkeys([*value, *(one for one in before if one in stays)])
    ids = sorted(known, key=lambda one: (one not in stays, -value.get(one, 0.0), one not in before))
    held, scored = ids[:capacity], {one.item_id: one for one in ranked}
    entries = _entries(held, before, scored, heat, stays, now)
    least = value.get(held[-1], 0.0) if held else 0.0
    removed = tuple(
        _departure(entry.item_id, scored, value, order, least=least)
        for entry in old
        if entry.item_id not in held
    )
    added = tuple(entry for entry in entries if entry.item_id not in before)
    ghosts = frozenset(order.ids[order.places :])
    causes = {
        one.item_id: Cause.RETURNED if one.item_id in ghosts or one.item_id not in scored else Cause.RECALLED
        for one in added
    }
    return WorkingPlan(
        entries=entries,
        added=added,
        kept=tuple(entry for entry in entries if entry.item_id in before),
        removed=removed,
        causes=causes | {one.item_id: one.cause for one in removed},
        order=Order(
            tuple(ids[:remembered]), len(held), heat, tuple(one.item_id for one in ranked[:capacity])
        ),
    )


def _ranked(candidates: Sequence[Candidate], before: Mapping[str, WorkingEntry]) -> list[Candidate]:
    """Each item once, with its best score, best first."""
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        known = best.get(candidate.item_id)
        if known is None or candidate.score > known.score:
            best[candidate.item_id] = candidate
    return sorted(best.values(), key=lambda one: (-one.score, one.item_id not in before))


def _heat(order: Order, used: Mapping[str, int], *, kept: float, limit: int) -> dict[str, float]:
    """The heat of each item at this recall, hottest first: what is left of it, and the uses since."""
    heat = {one: kept * left for one, left in order.heat.items()}
    for one, times in used.items():
        heat[one] = heat.get(one, 0.0) + max(0, times)
    hottest = sorted((one for one, left in heat.items() if left >= HEAT_MIN), key=lambda one: -heat[one])
    return {one: heat[one] for one in hottest[:limit]}


def _entries(
    held: Sequence[str],
    before: Mapping[str, WorkingEntry],
    scored: Mapping[str, Candidate],
    heat: Mapping[str, float],
    stays: AbstractSet[str],
    now: datetime,
) -> tuple[WorkingEntry, ...]:
    """The places: what fits the query by its score, then what is held for other reasons.

    An entry that is no candidate fits no better than the last one that is, and gets that one's score.
    """
    fitting = sorted((one for one in held if one in scored), key=lambda one: -scored[one].score)
    least = min((one.score for one in scored.values()), default=0.0)
    entries = []
    for one in [*fitting, *(one for one in held if one not in scored)]:
        candidate = scored.get(one)
        score = least if candidate is None else candidate.score
        reason = _why_held(candidate, heat.get(one, 0.0), is_pinned=one in stays)
        if one in before:
            entries.append(replace(before[one], score=score, reason=f"kept: {reason}"))
        else:
            entries.append(WorkingEntry(one, score, reason, now))
    return tuple(entries)


def _why_held(candidate: Candidate | None, heat: float, *, is_pinned: bool) -> str:
    reasons = [] if candidate is None else [candidate.reason]
    if heat > 0.0:
        reasons.append(f"answers used it (heat {heat:.2f})")
    if is_pinned:
        reasons.append("pinned")
    return "; ".join(reasons)


def _departure(
    item_id: str,
    scored: Mapping[str, Candidate],
    value: Mapping[str, float],
    order: Order,
    *,
    least: float,
) -> Departure:
    worth = value.get(item_id, 0.0)
    if item_id in scored:
        reason = f"outranked: score {scored[item_id].score:.3f}, value {worth:.3f} is below {least:.3f}"
        return Departure(item_id, reason, Cause.OUTRANKED)
    if item_id in value or item_id in order.heat:
        reason = f"cooled: answers used it, but its value {worth:.3f} is below {least:.3f}"
        return Departure(item_id, reason, Cause.COOLED)
    return Departure(item_id, "does not bear on the query", Cause.UNRELATED)
