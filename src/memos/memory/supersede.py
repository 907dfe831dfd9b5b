"""Which derived facts no longer hold, because a newer one fills the same single-valued slot.

The rule, for the facts of one subject, slot, user and cube in the order in which they became true: a fact
holds until the next one of another value begins, and then gets that moment as `valid_until`. Both times
are kept and told apart: when it is true (`happened_at`, `valid_until`) and when it was learned
(`created_at`). Something learned late about the past therefore never displaces what came after it. Facts
that cannot be ordered in time contradict each other openly: both stay, flagged as a conflict. So do a
stated preference and a later one that only seems to follow from what was said.

Raw turns are never superseded: they are what was said. Pure: `plan` returns the changed items as values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from memos.memory.item import MemoryItem
from memos.memory.slots import Fact, fact_of, is_single

FACTS_OF_A_SLOT_MAX = 500  # of one subject; the newest are looked at
CONFIDENCE_MIN = 0.5  # below it a fact displaces nothing


@dataclass(frozen=True, slots=True)
class Supersession:
    """`item` with its `valid_until` set, because the fact of `by_id` holds from then on."""

    item: MemoryItem
    by_id: str
    valid_until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Facts that cannot both hold and have no order in time; all of them stay as they are."""

    item_ids: tuple[str, ...]
    subject: str
    slot: str
    reason: str


@dataclass(frozen=True, slots=True)
class SupersedePlan:
    """What changes. An item appears at most once among the supersessions."""

    supersessions: tuple[Supersession, ...] = ()
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, slots=True)
class _Dated:
    item: MemoryItem
    fact: Fact


def plan(
    items: Iterable[MemoryItem], *, now: datetime, confidence_min: float = CONFIDENCE_MIN
) -> SupersedePlan:
    """The supersessions among `items` (new and stored together; others than live derived facts are passed over).

    Running it again on its own result changes nothing.
    """
    groups: defaultdict[tuple[str, str, str, str], list[_Dated]] = defaultdict(list)
    for item in items:
        fact = fact_of(item)
        if fact is not None and item.live:
            groups[(item.cube_id, item.user_id, *fact.identity)].append(_Dated(item, fact))
    done: list[Supersession] = []
    conflicts: list[Conflict] = []
    for group in groups.values():
        group.sort(key=lambda one: (_true_from(one.item), one.item.created_at, one.item.id))
        _settle(group[-FACTS_OF_A_SLOT_MAX:], now, confidence_min, done, conflicts)
    return SupersedePlan(tuple(done), tuple(conflicts))


def _settle(
    group: Sequence[_Dated],
    now: datetime,
    confidence_min: float,
    done: list[Supersession],
    conflicts: list[Conflict],
) -> None:
    slot = group[0].fact.slot
    clashing: list[str] = []
    for one in group:
        if one.fact.ended:
            continue
        later = [other for other in group if other is not one and _displaces(other.fact, one.fact)]
        after = [other for other in later if _order(one.item, other.item) < 0]
        sure = [
            other
            for other in after
            if other.item.confidence >= confidence_min
            and not (_is_implied(other.item) and not _is_implied(one.item))
        ]
        if sure:
            first = min(sure, key=lambda other: _true_from(other.item))
            until = _true_from(first.item)
            if one.item.valid_until is None or until < one.item.valid_until:
                done.append(_superseded(one, first, until, now))
        unordered = [other for other in later if _order(one.item, other.item) == 0]
        doubtful = [other for other in after if other not in sure]
        if unordered or (doubtful and not sure):
            clashing.extend([one.item.id, *(other.item.id for other in [*unordered, *doubtful])])
    if clashing:
        ids = tuple(sorted(set(clashing)))
        why = "they contradict each other and nothing says which came later, or the later one is too doubtful"
        conflicts.append(Conflict(ids, group[0].fact.subject, slot, why))


def _displaces(newer: Fact, older: Fact) -> bool:
    """Whether `newer`, if it is the later one, ends `older`."""
    if newer.ended:  # "no longer lives in Paris" ends Paris only; "quit the job" ends whatever it was
        return not newer.value or newer.folded_value == older.folded_value
    return is_single(newer.slot) and newer.folded_value != older.folded_value


def _is_implied(item: MemoryItem) -> bool:
    """Whether it is a preference that nobody stated in so many words."""
    preference = item.extra.get("preference")
    return isinstance(preference, Mapping) and preference.get("explicit") is False


def _true_from(item: MemoryItem) -> datetime:
    return item.happened_at or item.created_at


def _order(a: MemoryItem, b: MemoryItem) -> int:
    """-1 when `a` became true before `b`, 1 after it, 0 when nothing tells."""
    if a.happened_at is not None and b.happened_at is not None and a.happened_at != b.happened_at:
        return -1 if a.happened_at < b.happened_at else 1
    if a.session_id and a.session_id == b.session_id and a.position != b.position:
        return -1 if a.position < b.position else 1
    # What is learned later about the same time is a correction.
    if a.created_at != b.created_at:
        return -1 if a.created_at < b.created_at else 1
    # Said in one breath, outside of any session: in the order in which it was stored.
    if a.session_id == b.session_id and a.position != b.position:
        return -1 if a.position < b.position else 1
    return 0


def _superseded(old: _Dated, new: _Dated, until: datetime, now: datetime) -> Supersession:
    item = replace(old.item, valid_until=until, updated_at=max(now, old.item.updated_at))
    what = f"{new.fact.value!r}" if not new.fact.ended else f"an end of {old.fact.value!r}"
    return Supersession(
        item, new.item.id, until, f"{old.fact.slot} of {old.fact.subject}: {what} from then on"
    )
