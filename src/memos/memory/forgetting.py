"""Forgetting: how well a memory is retained, and what is to be archived. Nothing is deleted here.

Retention follows the exponential forgetting curve of Ebbinghaus (1885) in the form of MemoryBank (Zhong et
al., "MemoryBank: Enhancing Large Language Models with Long-Term Memory", AAAI 2024, section 2.3):

    R = exp(-t / S)

with t the time since the memory was last used and S its strength; S begins at one unit and grows by one
with each use, which also sets t back to 0. ACT-R's base-level activation (Anderson & Schooler 1991) fits
human data better, but needs the time of every use; the store keeps how often and when last, which is
exactly what this formula takes. Two deviations, both about S: the unit is `STRENGTH_DAYS` per kind instead
of one day (an assistant must not forget a home address in a week), and it is scaled by confidence.

TTL is a plain bound on age, for those who must not keep things. Pure; time comes in.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from memos.errors import InvalidInput
from memos.memory.item import MemoryItem, MemoryKind, ReadState

# Days after which an unused memory of full confidence is retained to 1/e (37 %).
STRENGTH_DAYS: Mapping[MemoryKind, float] = {
    MemoryKind.WORKING: 30.0,
    MemoryKind.LONG_TERM: 90.0,
    MemoryKind.PREFERENCE: 365.0,
    MemoryKind.USER: 730.0,
}
USES_COUNTED_MAX = 100
THRESHOLD = 0.05
# Forgetting these by disuse could hurt somebody: they go only by TTL, supersession or by hand.
LASTING_TAGS = frozenset({"allergy", "instruction", "pinned"})
_LASTING_SLOTS = ("allergy:", "health")
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Archival:
    """One item to archive, and why."""

    item_id: str
    reason: str
    retention: float


def strength_days(item: MemoryItem) -> float:
    """S in days: grows by its unit with each use, and with confidence."""
    uses = min(max(item.use_count, 0), USES_COUNTED_MAX)
    sure = min(max(item.confidence, 0.1), 1.0)
    return STRENGTH_DAYS[item.kind] * (1 + uses) * sure


def retention(item: MemoryItem, now: datetime) -> float:
    """R in (0, 1]: 1 when just learned or used. A clock that is behind the item's times counts as no time."""
    last = item.created_at if item.used_at is None else max(item.created_at, item.used_at)
    days = max(0.0, (now - last).total_seconds() / DAY_S)
    return math.exp(-days / strength_days(item))


def is_lasting(item: MemoryItem) -> bool:
    """Whether an item never fades by disuse."""
    if LASTING_TAGS.intersection(item.tags):
        return True
    fact = item.extra.get("fact")
    slot = fact.get("slot", "") if isinstance(fact, Mapping) else ""
    return isinstance(slot, str) and slot.startswith(_LASTING_SLOTS)


def to_archive(
    items: Iterable[MemoryItem],
    now: datetime,
    *,
    ttl: timedelta | Mapping[MemoryKind, timedelta] | None = None,
    threshold: float = THRESHOLD,
    protected: Collection[str] = (),
    limit: int | None = None,
) -> list[Archival]:
    """What to archive among `items`, the least retained first.

    ttl: age since learning at which items go whatever their use, for all kinds or by kind; None: never.
    threshold: retention below which items go; 0 switches decay off. protected: ids that stay, such as
    those in working memory. Items that are not live, or still wait to be read, are never named.
    """
    if not 0.0 <= threshold < 1.0:
        raise InvalidInput(f"threshold={threshold!r} must be at least 0 and below 1 (0 switches decay off)")
    if limit is not None and limit < 0:
        raise InvalidInput(f"limit={limit!r} must not be negative; give None for no limit")
    ttls = _ttls(ttl)
    kept = frozenset(protected)
    found: list[Archival] = []
    for item in items:
        if item.id in kept or not item.live or item.read is ReadState.DUE:
            continue
        retained = retention(item, now)
        reason = _reason(item, now, retained, ttls.get(item.kind), threshold)
        if reason:
            found.append(Archival(item.id, reason, retained))
    found.sort(key=lambda one: (one.retention, one.item_id))
    return found if limit is None else found[:limit]


def _ttls(ttl: timedelta | Mapping[MemoryKind, timedelta] | None) -> Mapping[MemoryKind, timedelta]:
    ttls = {} if ttl is None else dict.fromkeys(MemoryKind, ttl) if isinstance(ttl, timedelta) else dict(ttl)
    for kind, age in ttls.items():
        if age <= timedelta(0):
            raise InvalidInput(
                f"ttl={age} for {kind.value} must be longer than nothing; give None to keep all"
            )
    return ttls


def _reason(item: MemoryItem, now: datetime, retained: float, ttl: timedelta | None, threshold: float) -> str:
    if ttl is not None and now - item.created_at >= ttl:
        return f"ttl: learned {_days(now - item.created_at)} days ago, kept for {_days(ttl)}"
    if retained < threshold and not is_lasting(item):
        last = item.used_at or item.created_at
        return (
            f"decay: retention {retained:.3f} below {threshold:g}, used {item.use_count} times, "
            f"last {_days(now - last)} days ago"
        )
    return ""


def _days(span: timedelta) -> str:
    return f"{span.total_seconds() / DAY_S:.4g}"
