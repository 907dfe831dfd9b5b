"""The working memory of a cube as a cache, in numbers: what `memos working` and the dashboard show. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from memos.memory.working import remembered_max
from memos.memory.working_record import WorkingRecord

USES_MIN = 20  # accesses by answers, from which on the curve is about them
POINTS_MAX = 20  # of the curve

Basis = Literal["uses", "recalls"]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The share of accesses that so many places would have held."""

    capacity: int
    hit_rate: float


@dataclass(frozen=True, slots=True)
class WorkingReport:
    """`basis`: whether accesses are memories that answers used, or the best ones of each recall.

    Of `accesses` (recent ones; older ones count half, a quarter …) `hit_rate` were to an item that had a
    place before the recall for the query, `ghost_rate` to one that just had none. `gain` is what twice as
    many places would have held more. `use_share` is how much past use counts beside need, from 0 to 1.
    """

    capacity: int
    basis: Basis
    accesses: float
    hit_rate: float
    ghost_rate: float
    gain: float
    curve: tuple[CurvePoint, ...]
    use_share: float
    changes: Mapping[str, int]
    sufficed: int
    replaced: int
    ghosts: int

    @property
    def sentence(self) -> str:
        """The gain in words."""
        if not self.accesses:
            return "nothing was asked yet"
        what = "what answers used" if self.basis == "uses" else "the best of each recall"
        return (
            f"{self.capacity} → {2 * self.capacity} places would have held {100 * self.gain:.0f} % more of {what}"
            f" ({100 * self.hit_rate:.0f} % → {100 * (self.hit_rate + self.gain):.0f} %)"
        )


def report(record: WorkingRecord, *, capacity: int) -> WorkingReport:
    """The report on a cube with so many places now."""
    basis: Basis = "uses" if record.uses.total >= USES_MIN or not record.recalls.total else "recalls"
    accesses = record.uses if basis == "uses" else record.recalls
    hit_rate = accesses.within(capacity)
    known = accesses.within(remembered_max(capacity))
    return WorkingReport(
        capacity=capacity,
        basis=basis,
        accesses=accesses.total,
        hit_rate=hit_rate,
        ghost_rate=known - hit_rate,
        gain=accesses.within(2 * capacity) - hit_rate,
        curve=tuple(CurvePoint(places, accesses.within(places)) for places in _capacities(capacity)),
        use_share=record.balance.share,
        changes=dict(record.changes),
        sufficed=record.sufficed,
        replaced=record.replaced,
        ghosts=max(0, len(record.order.ids) - record.order.places),
    )


def _capacities(capacity: int) -> list[int]:
    """Up to `POINTS_MAX` capacities from few places to places and ghosts, the present one among them."""
    last = remembered_max(capacity)
    even = {max(1, round(last * number / POINTS_MAX)) for number in range(1, POINTS_MAX + 1)}
    return sorted({*even, capacity, 2 * capacity} & set(range(1, last + 1)))
