"""Moving an item from one kind of memory to another: one pure function for every move.

Long-term, user and preference memory are where an item *lives* (`MemoryItem.kind`). Working and
activation memory are where it *also stands*: entering working memory is a place in the working set, and
activation memory is a marker on the item, so neither takes the item out of its home. Only an item that
was written to working memory alone (`MemoryKind.WORKING`) has its home there.

`convert` changes nothing in a store. Its caller commits `Conversion.item` if `changed`, together with the
working set and the log that names `from_kind` and `to_kind`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from memos.errors import InvalidInput
from memos.memory.item import MemoryItem, MemoryKind

ACTIVE_TAG = "memos:activation"
REASON_CHARS_MAX = 500


class Area(StrEnum):
    """Everywhere an item can be moved to or from; the values are the documented memory type strings."""

    LONG_TERM = "LongTermMemory"
    USER = "UserMemory"
    PREFERENCE = "PreferenceMemory"
    WORKING = "WorkingMemory"
    ACTIVATION = "ActivationMemory"


HOMES = frozenset({Area.LONG_TERM, Area.USER, Area.PREFERENCE})

# Into activation memory only from working memory: the cache is built from what is in use. Out of it an
# item goes back to working memory or, when it is in use no longer, to its home.
ALLOWED: dict[Area, frozenset[Area]] = {
    Area.LONG_TERM: frozenset({Area.USER, Area.PREFERENCE, Area.WORKING}),
    Area.USER: frozenset({Area.LONG_TERM, Area.PREFERENCE, Area.WORKING}),
    Area.PREFERENCE: frozenset({Area.LONG_TERM, Area.USER, Area.WORKING}),
    Area.WORKING: frozenset({Area.LONG_TERM, Area.USER, Area.PREFERENCE, Area.ACTIVATION}),
    Area.ACTIVATION: frozenset({Area.WORKING, Area.LONG_TERM, Area.USER, Area.PREFERENCE}),
}


@dataclass(frozen=True, slots=True)
class Conversion:
    """One move. `item` is the item after it; `changed` says whether its row differs from before."""

    item: MemoryItem
    from_kind: Area
    to_kind: Area
    reason: str
    changed: bool

    @property
    def enters_working(self) -> bool:
        """The caller has to give the item a place in the working set."""
        return self.to_kind is Area.WORKING

    @property
    def leaves_working(self) -> bool:
        """The caller has to take the item out of the working set (activation keeps it there)."""
        return self.from_kind is Area.WORKING and self.to_kind in HOMES


def is_active(item: MemoryItem) -> bool:
    """Whether the item carries the marker of activation memory."""
    return ACTIVE_TAG in item.tags


def convert(
    item: MemoryItem,
    to_kind: Area | MemoryKind | str,
    reason: str,
    now: datetime,
    *,
    from_kind: Area | MemoryKind | str | None = None,
) -> Conversion:
    """The move of `item` to `to_kind`.

    from_kind: where the item stands when that is not its home (working or activation memory); by
    default its kind. Leaving a place for a home other than its own changes the item's kind as well.
    Raises InvalidInput when the move is not allowed, leads nowhere, or the item is not live.
    """
    target = _area("to_kind", to_kind)
    origin = _area("from_kind", item.kind if from_kind is None else from_kind)
    _check(item, origin, target, reason, now)
    moved = _moved(item, origin, target)
    changed = moved is not item
    if changed:
        moved = replace(moved, updated_at=max(now, item.updated_at))
    return Conversion(moved, origin, target, reason.strip(), changed)


def _moved(item: MemoryItem, origin: Area, target: Area) -> MemoryItem:
    moved = item
    if origin is Area.ACTIVATION:
        moved = replace(moved, tags=tuple(tag for tag in moved.tags if tag != ACTIVE_TAG))
    if target is Area.ACTIVATION and not is_active(moved):
        moved = replace(moved, tags=(*moved.tags, ACTIVE_TAG))
    if target in HOMES and moved.kind.value != target.value:
        moved = replace(moved, kind=MemoryKind(target.value))
    return moved


def _area(field: str, value: str) -> Area:
    try:
        return Area(str(value))
    except ValueError:
        known = ", ".join(area.value for area in Area)
        raise InvalidInput(f"{field}={value!r} is no area of memory; the areas are {known}") from None


def _check(item: MemoryItem, origin: Area, target: Area, reason: str, now: datetime) -> None:
    if not reason.strip():
        raise InvalidInput(f"reason is empty for the move of item {item.id!r}; say why it is moved")
    if len(reason) > REASON_CHARS_MAX:
        raise InvalidInput(f"reason has {len(reason)} characters; at most {REASON_CHARS_MAX} are kept")
    if now.tzinfo is None:
        raise InvalidInput(f"now={now!r} has no time zone; give an aware datetime")
    if not item.live:
        raise InvalidInput(
            f"item {item.id!r} is {item.status.value} and cannot be moved to {target.value}; restore it first"
        )
    home = Area(item.kind.value)
    if origin in HOMES and origin is not home:
        raise InvalidInput(f"item {item.id!r} lives in {home.value}, not in {origin.value}")
    if origin is Area.ACTIVATION and not is_active(item):
        raise InvalidInput(f"item {item.id!r} is not in {origin.value}, so it cannot leave it")
    if origin is target:
        raise InvalidInput(f"item {item.id!r} is in {target.value} already")
    if target not in ALLOWED[origin]:
        allowed = ", ".join(sorted(area.value for area in ALLOWED[origin]))
        raise InvalidInput(f"no move leads from {origin.value} to {target.value}; from there to: {allowed}")
