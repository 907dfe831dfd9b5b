"""What is known about the working memory of a cube as a cache: its order, what was asked of it, its curve.

A record is a value that the store keeps with the working set (`PutState`, in the transaction that replaces
the set), so it survives a restart. Two kinds of accesses are counted by the place that the item had in the
order *before* the recall for the query:

    uses      memories that an answer used: what working memory is for
    recalls   the `RECALLS_SEEN` best memories of a recall: where nobody reports answers

As the order does not depend on the capacity, an access at place p is a hit with every capacity above p: the
counts by place are the miss-ratio curve. Counts are halved when there are `ACCESSES_MAX`, so that the curve
is about recent accesses; there are never more of them than places and ghosts. The curve ends where the order ends (places and ghosts).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from memos.memory.item import WorkingEntry
from memos.memory.working import Balance, Cause, Order, WorkingPlan

STATE = "working"  # the name under which the store keeps it
ACCESSES_MAX = 1_000
RECALLS_SEEN = 5
COUNT_MIN = 0.01  # a place that was asked for so long ago is forgotten


@dataclass(frozen=True, slots=True)
class Use:
    """An answer used an item. `place` before the recall for its query; None: it was not remembered."""

    item_id: str
    place: int | None
    recalled: bool  # the last recall alone would have held it
    hot: bool  # heat alone would have held it

    def to_json(self) -> list[Any]:
        return [self.item_id, self.place, self.recalled, self.hot]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> Use:
        return cls(str(value[0]), value[1], bool(value[2]), bool(value[3]))


@dataclass(frozen=True, slots=True)
class Accesses:
    """How many accesses were to an item at each place of the order; `beyond`: to one not remembered."""

    by_place: Mapping[int, float] = field(default_factory=dict)
    beyond: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.by_place.values()) + self.beyond

    def within(self, capacity: int) -> float:
        """The share of accesses that a working memory of `capacity` places would have held; 0 without any."""
        total = self.total
        held = sum(count for place, count in self.by_place.items() if place < capacity)
        return held / total if total else 0.0

    def after(self, places: Iterable[int | None]) -> Accesses:
        """The counts after more accesses."""
        by_place, beyond = dict(self.by_place), self.beyond
        for place in places:
            if place is None:
                beyond += 1
            else:
                by_place[place] = by_place.get(place, 0.0) + 1
            if sum(by_place.values()) + beyond >= ACCESSES_MAX:
                by_place = {one: count / 2 for one, count in by_place.items() if count >= COUNT_MIN}
                beyond /= 2
        return Accesses(by_place, beyond)

    def to_json(self) -> dict[str, Any]:
        return {"by_place": {str(one): count for one, count in self.by_place.items()}, "beyond": self.beyond}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Accesses:
        return cls({int(one): float(count) for one, count in value["by_place"].items()}, value["beyond"])


@dataclass(frozen=True, slots=True)
class WorkingRecord:
    """The record of one cube. `before` is the order that the last recall found."""

    order: Order = field(default_factory=Order)
    before: Order = field(default_factory=Order)
    balance: Balance = field(default_factory=Balance)
    uses: Accesses = field(default_factory=Accesses)
    recalls: Accesses = field(default_factory=Accesses)
    changes: Mapping[str, int] = field(default_factory=dict)  # by cause, since the cube was made
    sufficed: int = 0  # queries for which nothing was recalled
    replaced: int = 0  # recalls that made a new working set
    spread: float | None = None  # of the scores of the last recall; None: it found less than there are places
    forgotten: int = 0  # items that had a place and were deleted since the last plan

    def use_of(self, item_id: str, *, recalled: bool) -> Use:
        """The use of an item by an answer; `recalled`: a recall ran for its query."""
        order = self.before if recalled else self.order
        return Use(item_id, order.place_of(item_id), item_id in order.recalled, order.is_hot(item_id))

    def balanced(self, uses: Iterable[Use]) -> Balance:
        """The balance after these uses."""
        balance = self.balance
        for use in uses:
            balance = balance.after(recalled=use.recalled, hot=use.hot)
        return balance

    def gone(self, entries: Iterable[WorkingEntry]) -> frozenset[str]:
        """What the order has places for and the working set has not: it was deleted, archived, replaced."""
        here = {entry.item_id for entry in entries}
        return frozenset(one for one in self.order.ids[: self.order.places] if one not in here)

    @property
    def named(self) -> frozenset[str]:
        """Every item that the record remembers."""
        orders = (self.order, self.before)
        return frozenset(one for order in orders for one in (*order.ids, *order.heat, *order.recalled))

    def without(self, gone: AbstractSet[str]) -> WorkingRecord:
        """The record without a trace of deleted items; those that had a place are counted for the next plan."""
        stood = sum(one in gone for one in self.order.ids[: self.order.places])
        return replace(
            self,
            order=self.order.without(gone),
            before=self.before.without(gone),
            forgotten=self.forgotten + stood,
        )

    def after(
        self,
        plan: WorkingPlan,
        uses: Sequence[Use],
        *,
        first: Sequence[str],
        sufficed: int,
        gone: int,
        spread: float | None = None,
    ) -> WorkingRecord:
        """The record after a plan.

        `uses`: since the plan before; `first`: the best of the recall behind this plan, as many as there
        are; `sufficed`: queries since then that needed no recall; `gone`: items that left without a plan; `spread`:
        how far the best score of that recall stands above the one in the middle of the places.
        """
        changes = dict(self.changes)
        for cause in plan.causes.values():
            changes[cause.value] = changes.get(cause.value, 0) + 1
        if gone:
            changes[Cause.GONE.value] = changes.get(Cause.GONE.value, 0) + gone
        return replace(
            self,
            order=plan.order,
            before=self.order,
            balance=self.balanced(uses),
            uses=self.uses.after(use.place for use in uses),
            recalls=self.recalls.after(self.order.place_of(one) for one in first[:RECALLS_SEEN]),
            changes=changes,
            sufficed=self.sufficed + sufficed,
            replaced=self.replaced + 1,
            spread=spread,
            forgotten=0,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "order": _order_json(self.order),
            "before": _order_json(self.before),
            "balance": [self.balance.recalled, self.balance.hot],
            "uses": self.uses.to_json(),
            "recalls": self.recalls.to_json(),
            "changes": dict(self.changes),
            "sufficed": self.sufficed,
            "replaced": self.replaced,
            "spread": self.spread,
            "forgotten": self.forgotten,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> WorkingRecord:
        """The record as the store has it; an empty one for a cube that has none yet."""
        if value is None:
            return cls()
        return cls(
            order=_order(value["order"]),
            before=_order(value["before"]),
            balance=Balance(*value["balance"]),
            uses=Accesses.from_json(value["uses"]),
            recalls=Accesses.from_json(value["recalls"]),
            changes=dict(value["changes"]),
            sufficed=int(value["sufficed"]),
            replaced=int(value["replaced"]),
            spread=value.get("spread"),
            forgotten=int(value.get("forgotten", 0)),
        )


def _order_json(order: Order) -> dict[str, Any]:
    return {
        "ids": list(order.ids),
        "places": order.places,
        "heat": {one: round(left, 4) for one, left in order.heat.items()},
        "recalled": list(order.recalled),
    }


def _order(value: Mapping[str, Any]) -> Order:
    return Order(tuple(value["ids"]), int(value["places"]), dict(value["heat"]), tuple(value["recalled"]))
