"""Decay and TTL under a simulated clock."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from memos.errors import InvalidInput
from memos.memory.forgetting import (
    STRENGTH_DAYS,
    THRESHOLD,
    USES_COUNTED_MAX,
    is_lasting,
    retention,
    strength_days,
    to_archive,
)
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, ReadState
from memos.memory.slots import Fact, fact_fields

START = datetime(2024, 1, 1, tzinfo=UTC)


def after(days: float) -> datetime:
    return START + timedelta(days=days)


def learned(item_id: str = "m", **changes: object) -> MemoryItem:
    item = MemoryItem(item_id, "c", "u", "Anna went to the zoo", created_at=START, updated_at=START)
    return replace(item, **changes)  # type: ignore[arg-type]


def test_the_formula() -> None:
    """R = exp(-t / S): 1 at once, 1/e after S, and S grows by one unit with each use."""
    item = learned()
    unit = STRENGTH_DAYS[MemoryKind.LONG_TERM]
    assert retention(item, START) == 1.0
    assert retention(item, after(unit)) == pytest.approx(math.exp(-1))
    assert strength_days(replace(item, use_count=3)) == pytest.approx(4 * unit)
    assert retention(replace(item, use_count=3), after(unit)) == pytest.approx(math.exp(-0.25))
    assert retention(replace(item, confidence=0.5), after(unit)) == pytest.approx(math.exp(-2))


def test_retention_falls_with_time_and_only_with_time() -> None:
    """Day by day retention falls, stays above 0, and is what it was when asked twice."""
    item = learned()
    curve = [retention(item, after(day)) for day in range(0, 2000, 50)]
    assert curve == sorted(curve, reverse=True) and len(set(curve)) == len(curve) and curve[-1] > 0
    assert curve == [retention(item, after(day)) for day in range(0, 2000, 50)]


def test_use_sets_the_clock_back_and_makes_stronger() -> None:
    """An item used at day 100 is full again then, and fades more slowly after."""
    used = learned(use_count=1, used_at=after(100))
    assert retention(used, after(100)) == 1.0
    assert retention(used, after(190)) > retention(learned(), after(90))


def test_a_simulated_year_of_use() -> None:
    """What is used every month stays for years; what is never used again is archived in its first year."""
    often, never = learned("often"), learned("never")
    gone: dict[str, int] = {}
    for day in range(1200):
        if day % 30 == 0 and day <= 360:
            often = replace(often, use_count=often.use_count + 1, used_at=after(day))
        for one in to_archive([often, never], after(day)):
            gone.setdefault(one.item_id, day)
    # S * ln(1 / threshold) days
    assert gone == {"never": math.ceil(STRENGTH_DAYS[MemoryKind.LONG_TERM] * math.log(1 / THRESHOLD))}
    assert 180 < gone["never"] < 365


def test_kinds_fade_at_their_own_pace() -> None:
    """User facts last longer than preferences, those longer than events, those longer than working notes."""
    kinds = (MemoryKind.USER, MemoryKind.PREFERENCE, MemoryKind.LONG_TERM, MemoryKind.WORKING)
    retained = [retention(learned(kind=kind), after(200)) for kind in kinds]
    assert retained == sorted(retained, reverse=True) and len(set(retained)) == 4


def test_what_must_not_be_forgotten_by_disuse() -> None:
    """Allergies, instructions and pinned items never decay, though a TTL still ends them."""
    lasting = [
        learned("tag", tags=("allergy",)), learned("rule", tags=("instruction",)), learned("pin", tags=("pinned",)),
        learned("slot", raw=False, extra=fact_fields(Fact("Anna", "allergy:nut", "yes"))),
    ]  # fmt: skip
    assert all(is_lasting(item) for item in lasting) and not is_lasting(learned(tags=("like",)))
    assert not is_lasting(learned(extra={"fact": "a caller's own"}))
    assert to_archive(lasting, after(100_000)) == []
    assert len(to_archive(lasting, after(100_000), ttl=timedelta(days=365))) == 4


def test_ttl() -> None:
    """An item goes when its age reaches the TTL of its kind, however much it is used."""
    used = learned(use_count=50, used_at=after(9.5))
    assert to_archive([used], after(9.99), ttl=timedelta(days=10)) == []
    (one,) = to_archive([used], after(10), ttl=timedelta(days=10))
    assert one.item_id == "m" and one.reason.startswith("ttl") and "10" in one.reason
    by_kind = {MemoryKind.USER: timedelta(days=1)}
    assert to_archive([used], after(10), ttl=by_kind) == []
    assert len(to_archive([replace(used, kind=MemoryKind.USER)], after(10), ttl=by_kind)) == 1


def test_protected_unread_and_dead_items_are_never_named() -> None:
    """What is in working memory, waits to be read, or is not live, stays as it is."""
    far = after(100_000)
    assert [one.item_id for one in to_archive([learned()], far)] == ["m"]
    assert to_archive([learned()], far, protected={"m"}) == []
    assert to_archive([learned(read=ReadState.DUE)], far) == []
    for status in (ItemStatus.ARCHIVED, ItemStatus.DELETED, ItemStatus.QUARANTINED):
        assert to_archive([learned(status=status)], far, ttl=timedelta(days=1)) == []
    assert len(to_archive([learned(status=ItemStatus.RESOLVING)], far)) == 1


def test_the_least_retained_go_first_and_the_limit_holds() -> None:
    """The order is by retention, ties by id, and at most `limit` are named."""
    items = [learned("b"), learned("a"), learned("weak", confidence=0.5), learned("strong", use_count=1)]
    named = to_archive(items, after(1000))
    assert [one.item_id for one in named] == ["weak", "a", "b", "strong"]
    assert [one.item_id for one in to_archive(items, after(1000), limit=2)] == ["weak", "a"]
    assert to_archive(items, after(1000), limit=0) == []


def test_reasons_carry_the_figures() -> None:
    """A reason says which rule, how much is retained, how often and when it was used."""
    (one,) = to_archive([learned(use_count=1, used_at=after(1))], after(1001))
    assert one.reason.startswith("decay") and "1 times" in one.reason and "1000 days" in one.reason
    assert one.retention == pytest.approx(retention(learned(use_count=1, used_at=after(1)), after(1001)))


def test_borders() -> None:
    """A clock behind, a broken count or confidence, and a threshold of 0 all behave."""
    assert retention(learned(), after(-5)) == 1.0
    assert retention(learned(use_count=-3), after(90)) == retention(learned(), after(90))
    assert retention(learned(confidence=0.0), after(9)) > 0
    assert strength_days(learned(use_count=10**9)) == STRENGTH_DAYS[MemoryKind.LONG_TERM] * (
        1 + USES_COUNTED_MAX
    )
    assert to_archive([learned()], after(10**5), threshold=0.0) == []


def test_bad_values_are_refused() -> None:
    """A threshold outside of [0, 1), a TTL of nothing and a negative limit are refused by name."""
    for threshold in (-0.1, 1.0, 2.0):
        with pytest.raises(InvalidInput, match="threshold"):
            to_archive([], START, threshold=threshold)
    with pytest.raises(InvalidInput, match="ttl"):
        to_archive([], START, ttl=timedelta(0))
    with pytest.raises(InvalidInput, match="limit"):
        to_archive([], START, limit=-1)
