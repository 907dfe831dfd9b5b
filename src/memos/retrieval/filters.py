"""The documented `filter` of a search, read into what a store can select plus what is left to check.

    {"and": [{"session_id": "s1"}, {"created_at": {"gte": "2024-05-01"}}]}      every condition holds
    {"or": [{"tags": {"contains": "trip"}}, {"memory": {"like": "%lisbon%"}}]}  at least one holds
    {"session_id": "s1", "info.project": {"in": ["a", "b"]}}                     short for "and"

Fields are those of `FIELDS` and `info.NAME` (what the caller gave as `info`). A plain value asks for
equality; for a field with several values (tags, participants, links) that it is one of them. `contains`
asks for a part of a text or a whole entry of a list, `like` is SQL's (% any text, _ any character); both
disregard case, equality does not. An unknown field, operator or type of value raises InvalidInput.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from memos.errors import InvalidInput
from memos.memory.item import LIVE, ItemStatus, MemoryItem, MemoryKind
from memos.memory.moments import parse_moment
from memos.memory.store import ItemFilter

Predicate = Callable[[MemoryItem], bool]

OPERATORS = ("gt", "gte", "lt", "lte", "in", "contains", "like")
CONDITIONS_MAX = 100
DEPTH_MAX = 5
VALUES_MAX = 1_000
PATTERN_CHARS_MAX = 1_000
INFO_PREFIX = "info."

_TEXTS: Mapping[str, Callable[[MemoryItem], str]] = {
    "id": lambda item: item.id,
    "user_id": lambda item: item.user_id,
    "session_id": lambda item: item.session_id,
    "scenario": lambda item: item.scenario,
    "turn_id": lambda item: item.turn_id,
    "memory": lambda item: item.memory,
    "key": lambda item: item.key,
    "background": lambda item: item.background,
    "role": lambda item: item.role,
    "memory_type": lambda item: item.kind.value,
    "status": lambda item: item.status.value,
    "read": lambda item: item.read.value,
}
_LISTS: Mapping[str, Callable[[MemoryItem], tuple[str, ...]]] = {
    "tags": lambda item: item.tags,
    "participants": lambda item: item.participants,
    "links": lambda item: item.links,
    "sources": lambda item: tuple(source.key for source in item.sources),
}
_NUMBERS: Mapping[str, Callable[[MemoryItem], float]] = {
    "confidence": lambda item: item.confidence,
    "usage": lambda item: item.use_count,
    "version": lambda item: item.version,
    "position": lambda item: item.position,
}
_TIMES: Mapping[str, Callable[[MemoryItem], datetime | None]] = {
    "created_at": lambda item: item.created_at,
    "updated_at": lambda item: item.updated_at,
    "happened_at": lambda item: item.happened_at,
    "valid_until": lambda item: item.valid_until,
    "used_at": lambda item: item.used_at,
}
FIELDS = (*_TEXTS, *_LISTS, *_NUMBERS, *_TIMES)

_SELECTED = ("id", "session_id", "scenario", "tags")  # what a store selects by equality
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ParsedFilter:
    """`wanted` selects at least everything that passes; `predicate` (if any) says what really does."""

    wanted: ItemFilter
    predicate: Predicate | None = None


@dataclass(frozen=True, slots=True)
class _Condition:
    field: str
    operator: str  # "eq" or one of OPERATORS
    value: Any


def parse_filter(given: Mapping[str, Any] | None) -> ParsedFilter:
    """The filter of a request; None or {} passes everything. Raises InvalidInput."""
    if given is None:
        return ParsedFilter(ItemFilter())
    if not isinstance(given, Mapping):
        raise InvalidInput(
            f"filter must be an object such as {{'session_id': 's1'}}, not {type(given).__name__}"
        )
    budget = [CONDITIONS_MAX]
    conjuncts = _parse_all(given, depth=1, budget=budget)
    wanted = ItemFilter()
    rest: list[Predicate] = []
    for conjunct in conjuncts:
        if not isinstance(conjunct, _Condition):
            rest.append(conjunct)
            continue
        wanted, exact = _select(wanted, conjunct)
        if not exact:
            rest.append(_check(conjunct))
    return ParsedFilter(wanted, _every(rest) if rest else None)


def _parse_all(given: Mapping[str, Any], *, depth: int, budget: list[int]) -> list[_Condition | Predicate]:
    """The conditions of an object, all of which must hold."""
    if depth > DEPTH_MAX:
        raise InvalidInput(f"filter is nested more than {DEPTH_MAX} deep; write it flatter")
    found: list[_Condition | Predicate] = []
    for name, value in given.items():
        if name not in ("and", "or"):
            budget[0] -= 1
            if budget[0] < 0:
                raise InvalidInput(
                    f"filter has more than {CONDITIONS_MAX} conditions; use 'in' for many values"
                )
            found.extend(_conditions(name, value))
            continue
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InvalidInput(f"filter[{name!r}] must be a list of conditions, not {type(value).__name__}")
        branches = [_parse_branch(name, branch, depth=depth, budget=budget) for branch in value]
        if name == "and":
            found.extend(condition for branch in branches for condition in branch)
        elif branches:
            found.append(_any([_every([_as_predicate(c) for c in branch]) for branch in branches]))
    return found


def _parse_branch(
    name: str, branch: object, *, depth: int, budget: list[int]
) -> list[_Condition | Predicate]:
    if not isinstance(branch, Mapping) or not branch:
        raise InvalidInput(f"filter[{name!r}] must hold objects such as {{'tags': 'trip'}}, not {branch!r}")
    return _parse_all(branch, depth=depth + 1, budget=budget)


def _conditions(field: str, value: object) -> list[_Condition | Predicate]:
    if field not in FIELDS and not (field.startswith(INFO_PREFIX) and len(field) > len(INFO_PREFIX)):
        raise InvalidInput(
            f"filter names {field!r}, which is no field; fields are {', '.join(FIELDS)}, info.NAME"
        )
    if isinstance(value, Mapping):
        if not value:
            raise InvalidInput(
                f"filter[{field!r}] is an empty object; give a value or one of {', '.join(OPERATORS)}"
            )
        return [_condition(field, operator, operand) for operator, operand in value.items()]
    return [_condition(field, "eq", value)]


def _condition(field: str, operator: str, value: object) -> _Condition:
    """One condition with its value brought into the field's type."""
    if operator not in ("eq", *OPERATORS):
        raise InvalidInput(f"filter[{field!r}] uses {operator!r}; operators are {', '.join(OPERATORS)}")
    where = f"filter[{field!r}]" if operator == "eq" else f"filter[{field!r}][{operator!r}]"
    if operator == "in":
        if not isinstance(value, list | tuple) or not value:
            raise InvalidInput(f"{where} must be a list of values, not {value!r}")
        if len(value) > VALUES_MAX:
            raise InvalidInput(f"{where} has {len(value)} values; at most {VALUES_MAX} are taken")
        return _Condition(field, operator, tuple(_value(where, field, one) for one in value))
    if operator in ("contains", "like"):
        if field in _NUMBERS or field in _TIMES:
            raise InvalidInput(f"{where}: {operator} works on text and lists; use gt, gte, lt or lte")
        if not isinstance(value, str) or not value or len(value) > PATTERN_CHARS_MAX:
            raise InvalidInput(
                f"{where} must be a text of 1 to {PATTERN_CHARS_MAX} characters, not {value!r:.80}"
            )
        return _Condition(field, operator, _Like.of(value) if operator == "like" else value.casefold())
    if operator != "eq" and (field in _TEXTS or field in _LISTS):
        raise InvalidInput(f"{where}: {operator} works on times and numbers; use in, contains or like")
    return _Condition(field, operator, _value(where, field, value))


def _value(where: str, field: str, value: object) -> Any:
    if field in _TIMES:
        return parse_moment(value, field=where)
    if field in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidInput(f"{where} must be a number, not {value!r}")
        return float(value)
    if field in _TEXTS or field in _LISTS:
        if not isinstance(value, str):
            raise InvalidInput(f"{where} must be a text, not {value!r}")
        if field == "memory_type" and value not in set(MemoryKind):
            raise InvalidInput(f"{where}={value!r} is no memory type; types are {', '.join(MemoryKind)}")
        if field == "status" and (value not in set(ItemStatus) or ItemStatus(value) not in LIVE):
            live = ", ".join(sorted(LIVE))
            raise InvalidInput(f"{where}={value!r}: a search sees live memories only, whose status is {live}")
        return value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise InvalidInput(f"{where} must be a text, a number or true/false, not {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class _Like:
    """SQL's LIKE as its pieces between the %: taking each piece at its first place is exact and never backtracks."""

    pieces: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, pattern: str) -> _Like:
        pieces = pattern.split("%")
        forms = ["".join("." if c == "_" else re.escape(c) for c in piece) for piece in pieces]
        forms[-1] += r"\Z"
        return cls(tuple(re.compile(form, re.IGNORECASE | re.DOTALL) for form in forms))

    def matches(self, text: str) -> bool:
        first, *others = self.pieces
        found = first.match(text)
        for piece in others:
            if found is None:
                return False
            found = piece.search(text, found.end())
        return found is not None


def _select(wanted: ItemFilter, condition: _Condition) -> tuple[ItemFilter, bool]:
    """`wanted` narrowed by the condition where the store can, and whether that says all of it."""
    field, operator, value = condition.field, condition.operator, condition.value
    if field in ("created_at", "happened_at") and operator in ("gt", "gte", "lt", "lte"):
        # A moment wider than asked, whatever the store makes of the borders: the check decides there.
        stem = field.removesuffix("_at")
        if operator.startswith("g"):
            bound, edge = f"{stem}_from", value - _MOMENT
        else:
            bound, edge = f"{stem}_to", value + _MOMENT
        return _narrowed(wanted, bound, edge), False
    if field == "memory_type" and operator in ("eq", "in"):
        if wanted.kinds:
            return wanted, False  # a second condition on the field: left to the check
        values = (value,) if operator == "eq" else value
        return replace(wanted, kinds=tuple(MemoryKind(one) for one in values)), True
    if field in _SELECTED and operator in ("eq", "in"):
        return _one_of(wanted, field, (value,) if operator == "eq" else value)
    return wanted, False


def _one_of(wanted: ItemFilter, field: str, values: tuple[str, ...]) -> tuple[ItemFilter, bool]:
    """The store selects by the first condition on a field; a second one is left to the check."""
    if field == "id":
        return (wanted, False) if wanted.ids else (replace(wanted, ids=values), True)
    if field == "session_id":
        return (wanted, False) if wanted.session_ids else (replace(wanted, session_ids=values), True)
    if field == "scenario":
        return (wanted, False) if wanted.scenarios else (replace(wanted, scenarios=values), True)
    return (wanted, False) if wanted.tags else (replace(wanted, tags=values), True)


def _narrowed(wanted: ItemFilter, bound: str, edge: datetime) -> ItemFilter:
    if bound == "created_from" and (wanted.created_from is None or edge > wanted.created_from):
        return replace(wanted, created_from=edge)
    if bound == "created_to" and (wanted.created_to is None or edge < wanted.created_to):
        return replace(wanted, created_to=edge)
    if bound == "happened_from" and (wanted.happened_from is None or edge > wanted.happened_from):
        return replace(wanted, happened_from=edge)
    if bound == "happened_to" and (wanted.happened_to is None or edge < wanted.happened_to):
        return replace(wanted, happened_to=edge)
    return wanted


def _as_predicate(condition: _Condition | Predicate) -> Predicate:
    return _check(condition) if isinstance(condition, _Condition) else condition


def _every(checks: Sequence[Predicate]) -> Predicate:
    return lambda item: all(check(item) for check in checks)


def _any(checks: Sequence[Predicate]) -> Predicate:
    return lambda item: any(check(item) for check in checks)


def _check(condition: _Condition) -> Predicate:
    return lambda item: any(_holds(condition, actual) for actual in _actual(condition.field, item))


def _actual(field: str, item: MemoryItem) -> Sequence[Any]:
    """The values that the item has in the field; none when it has no such value."""
    if field in _TEXTS:
        return (_TEXTS[field](item),)
    if field in _LISTS:
        return _LISTS[field](item)
    if field in _NUMBERS:
        return (_NUMBERS[field](item),)
    if field in _TIMES:
        moment = _TIMES[field](item)
        return () if moment is None else (moment,)
    stored = item.extra.get(field.removeprefix(INFO_PREFIX))
    return stored if isinstance(stored, list | tuple) else (stored,)


def _holds(condition: _Condition, actual: Any) -> bool:
    operator, value = condition.operator, condition.value
    if operator == "eq":
        return bool(actual == value)
    if operator == "in":
        return actual in value
    if operator in ("contains", "like"):
        if not isinstance(actual, str):
            return False
        if isinstance(value, _Like):
            return value.matches(actual)
        folded = actual.casefold()
        return bool(folded == value) if condition.field in _LISTS else value in folded
    if isinstance(actual, bool) or isinstance(actual, str) != isinstance(value, str) or actual is None:
        return False  # values that have no order between them
    if operator == "gt":
        return bool(actual > value)
    if operator == "gte":
        return bool(actual >= value)
    return bool(actual < value) if operator == "lt" else bool(actual <= value)
