"""The documented filter, read and applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos.errors import InvalidInput
from memos.memory.item import MemoryItem, MemoryKind, Source
from memos.memory.store import ItemFilter
from memos.retrieval.filters import CONDITIONS_MAX, FIELDS, parse_filter

TRIP = MemoryItem(
    id="trip",
    cube_id="cube",
    user_id="user",
    memory="We flew to Lisbon in May",
    session_id="s1",
    tags=("Travel", "may"),
    participants=("Ann",),
    sources=(Source(type="chat", message_id="m1"),),
    confidence=0.8,
    created_at=datetime(2024, 5, 2, tzinfo=UTC),
    updated_at=datetime(2024, 5, 2, tzinfo=UTC),
    happened_at=datetime(2024, 5, 1, 12, tzinfo=UTC),
    extra={"project": "Atlas", "stars": 4, "labels": ["red", "blue"], "done": True},
)
DINNER = replace(
    TRIP,
    id="dinner",
    memory="Dinner with Bob, 100% fish",
    session_id="s2",
    tags=("food",),
    participants=("Bob",),
    sources=(),
    confidence=0.3,
    happened_at=None,
    kind=MemoryKind.USER,
    extra={},
)


def passing(given: dict[str, Any]) -> set[str]:
    """The ids of the items that pass by selection and check together."""
    parsed = parse_filter(given)
    return {
        item.id
        for item in (TRIP, DINNER)
        if _selected(parsed.wanted, item) and (parsed.predicate is None or parsed.predicate(item))
    }


def _selected(wanted: ItemFilter, item: MemoryItem) -> bool:
    """What a store makes of the filter: exact values, times half open."""
    moments = ((wanted.created_from, wanted.created_to, item.created_at),)
    moments += ((wanted.happened_from, wanted.happened_to, item.happened_at),)
    for start, end, moment in moments:
        if (start or end) and moment is None:
            return False
        if (start and moment < start) or (end and moment >= end):
            return False
    return (
        (not wanted.ids or item.id in wanted.ids)
        and (not wanted.session_ids or item.session_id in wanted.session_ids)
        and (not wanted.scenarios or item.scenario in wanted.scenarios)
        and (not wanted.tags or bool(set(wanted.tags) & set(item.tags)))
        and (not wanted.kinds or item.kind in wanted.kinds)
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"trip", "dinner"}),
        ({"and": []}, {"trip", "dinner"}),
        ({"session_id": "s1"}, {"trip"}),
        ({"session_id": "S1"}, set()),
        ({"session_id": {"in": ["s1", "s2"]}}, {"trip", "dinner"}),
        ({"id": "dinner", "session_id": "s1"}, set()),
        ({"and": [{"session_id": "s1"}, {"session_id": {"in": ["s2"]}}]}, set()),
        ({"tags": "food"}, {"dinner"}),
        ({"tags": {"contains": "travel"}}, {"trip"}),
        ({"tags": {"like": "TRA%"}}, {"trip"}),
        ({"participants": {"in": ["Bob", "Eve"]}}, {"dinner"}),
        ({"sources": "m1"}, {"trip"}),
        ({"memory": {"contains": "LISBON"}}, {"trip"}),
        ({"memory": {"like": "we%may"}}, {"trip"}),
        ({"memory": {"like": "%b_b%"}}, {"dinner"}),
        ({"memory": {"like": "%100%"}}, {"dinner"}),
        ({"memory": {"like": "lisbon"}}, set()),
        ({"memory_type": "UserMemory"}, {"dinner"}),
        ({"memory_type": {"in": ["UserMemory", "LongTermMemory"]}}, {"trip", "dinner"}),
        ({"status": "activated"}, {"trip", "dinner"}),
        ({"confidence": {"gte": 0.8}}, {"trip"}),
        ({"confidence": {"gt": 0.8}}, set()),
        ({"confidence": {"lt": 0.8, "gt": 0.1}}, {"dinner"}),
        ({"happened_at": {"gte": "2024-05-01T12:00:00+00:00"}}, {"trip"}),
        ({"happened_at": {"gt": "2024-05-01T12:00:00+00:00"}}, set()),
        ({"happened_at": {"lte": "2024-05-01T12:00:00+00:00"}}, {"trip"}),
        ({"happened_at": {"lt": "2024-05-01T12:00:00+00:00"}}, set()),
        ({"created_at": {"gte": "2024-05-01T00:00:00Z", "lt": "2024-06-01T00:00:00Z"}}, {"trip", "dinner"}),
        ({"created_at": "2024-05-02T00:00:00Z"}, {"trip", "dinner"}),
        ({"info.project": "Atlas"}, {"trip"}),
        ({"info.project": {"contains": "atl"}}, {"trip"}),
        ({"info.stars": {"gte": 4}}, {"trip"}),
        ({"info.stars": {"gte": "4"}}, set()),
        ({"info.labels": "blue"}, {"trip"}),
        ({"info.done": True}, {"trip"}),
        ({"info.missing": None}, {"trip", "dinner"}),
        ({"or": [{"tags": "food"}, {"session_id": "s1"}]}, {"trip", "dinner"}),
        ({"or": [{"tags": "food", "session_id": "s1"}, {"id": "nobody"}]}, set()),
        ({"or": [{"tags": "food"}, {"and": [{"tags": "may"}, {"confidence": {"lt": 0.5}}]}]}, {"dinner"}),
        ({"and": [{"or": [{"id": "trip"}, {"id": "dinner"}]}, {"tags": "food"}]}, {"dinner"}),
    ],
)
def test_exactly_the_matching_items_pass(given: dict[str, Any], expected: set[str]) -> None:
    """Selection by the store and the check together mean what the filter says."""
    assert passing(given) == expected


def test_what_a_store_can_select_is_not_checked_again() -> None:
    """Equality on sessions, ids and tags is left to the indexes, so that a search reads no items for it."""
    parsed = parse_filter({"session_id": "s1", "tags": {"in": ["a", "b"]}, "memory_type": "UserMemory"})
    assert parsed.predicate is None
    assert parsed.wanted == ItemFilter(session_ids=("s1",), tags=("a", "b"), kinds=(MemoryKind.USER,))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"sesion_id": "s1"}, "'sesion_id'.*session_id"),
        ({"info.": "x"}, "'info.'"),
        ({"tags": {"has": "x"}}, "'has'.*contains"),
        ({"tags": {}}, "'tags'"),
        ({"tags": {"in": []}}, "'in'"),
        ({"tags": {"in": "x"}}, "'in'"),
        ({"tags": {"gt": "x"}}, "'tags'.*gt"),
        ({"tags": 3}, "'tags'.*3"),
        ({"confidence": {"contains": "x"}}, "'confidence'.*contains"),
        ({"confidence": "high"}, "'confidence'.*'high'"),
        ({"confidence": True}, "'confidence'.*True"),
        ({"created_at": {"gte": "some day"}}, "'created_at'.*'some day'"),
        ({"memory": {"like": ""}}, "'memory'"),
        ({"memory_type": "Dreams"}, "'Dreams'.*LongTermMemory"),
        ({"status": "deleted"}, "'deleted'.*live"),
        ({"info.x": {"gt": [1]}}, "'info.x'"),
        ({"and": {"tags": "x"}}, "'and'"),
        ({"or": "x"}, "'or'"),
        ({"or": [{}]}, "'or'"),
        ({"or": ["x"]}, "'or'"),
        ({"tags": {"in": ["x"] * 1_001}}, "1001"),
        ({"and": [{"tags": "x"}] * (CONDITIONS_MAX + 1)}, "more than"),
        ({"and": [{"and": [{"and": [{"and": [{"and": [{"tags": "x"}]}]}]}]}]}, "nested"),
    ],
)
def test_what_can_never_work_is_refused_by_name(given: dict[str, Any], names: str) -> None:
    """Unknown fields, operators and values raise InvalidInput naming them and the way out."""
    with pytest.raises(InvalidInput, match=names):
        parse_filter(given)


@pytest.mark.parametrize("given", ["tags", [], 3])
def test_a_filter_must_be_an_object(given: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidInput, match="filter must be an object"):
        parse_filter(given)


def test_no_filter_passes_everything() -> None:
    """None selects all live items without a check."""
    parsed = parse_filter(None)
    assert parsed.wanted.is_default
    assert parsed.predicate is None


@given(st.text(alphabet="ab%_", max_size=12), st.text(alphabet="ab", max_size=12))
def test_like_agrees_with_its_definition(pattern: str, text: str) -> None:
    """Matching by pieces gives what the textbook recursion gives."""

    def matches(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "%":
            return any(matches(p[1:], t[start:]) for start in range(len(t) + 1))
        return bool(t) and p[0] in ("_", t[0]) and matches(p[1:], t[1:])

    if pattern:
        predicate = parse_filter({"memory": {"like": pattern}}).predicate
        assert predicate is not None
        assert predicate(replace(TRIP, memory=text)) is matches(pattern, text)


def test_every_field_can_be_asked_for(make_item: Callable[..., MemoryItem]) -> None:
    """Each documented field takes a plain value of its type."""
    values: dict[str, Any] = {"confidence": 1.0, "usage": 0, "version": 1, "position": 0}
    values |= dict.fromkeys(
        ("created_at", "updated_at", "happened_at", "valid_until", "used_at"), "2024-05-01T00:00:00Z"
    )
    values |= {"memory_type": "UserMemory", "status": "resolving"}
    for field in FIELDS:
        parsed = parse_filter({field: values.get(field, "x")})
        predicate = parsed.predicate or (lambda _: True)
        assert isinstance(predicate(make_item("a", "text")), bool)
