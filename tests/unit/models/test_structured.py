"""Structured replies: what fits a schema, what does not, and which schemas are strict."""

from __future__ import annotations

import re
from typing import Any

import pytest

from memos.models.structured import fitted, is_strict, mismatch, read_object, split_thought


def listed(**more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": more}, "required": ["x"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "good", "bad", "fault"),
    [
        ({"type": "integer"}, 3, True, "x must be integer, not boolean"),
        ({"type": "integer"}, 3.0, 3.5, "must be integer"),
        ({"type": "number", "minimum": 0, "maximum": 1}, 0.5, 2, "at most 1 wanted"),
        ({"type": ["string", "null"]}, None, 4, "must be string or null"),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "ab", "a", "at least 2 wanted"),
        ({"enum": ["a", "b"]}, "b", "c", "one of 'a', 'b'"),
        ({"const": 7}, 7, 8, "must be 7"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 1}, ["a"], [], "has 0 entries"),
        ({"type": "array", "items": {"type": "string"}}, [], ["a", 1], r"x\[1\] must be string"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "a", 1, "must be null"),
        ({"$ref": "#/$defs/name"}, "a", "", "at least 1 wanted"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "b"}, "x.a must"),
        (False, None, 1, "must not be there"),
    ],
)
def test_what_fits_and_what_does_not(schema: Any, good: Any, bad: Any, fault: str) -> None:
    """A fitting value has no fault; another one is told where and how it does not fit."""
    whole = listed() | {"$defs": {"name": {"type": "string", "minLength": 1}}}
    whole["properties"] = {"x": schema}
    if schema is not False:
        assert mismatch({"x": good}, whole) == ""
    assert re.search(fault, mismatch({"x": bad}, whole))


def test_a_schema_that_calls_itself_ends() -> None:
    """Nesting is followed to a bound, not for ever."""
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    value: dict[str, Any] = {}
    for _ in range(200):
        value = {"next": value}
    assert "nested too deeply" in mismatch(value, schema)
    assert "nested too deeply" in mismatch(1, {"$ref": "#"})


def test_strict_schemas_are_closed_all_the_way() -> None:
    """Every object closed and every field required, inside lists and definitions too."""
    assert is_strict(listed(type="string"))
    assert is_strict(listed(type="array", items=listed(type="string")))
    assert not is_strict(listed(type="array", items={"type": "object", "properties": {"a": {}}}))
    assert not is_strict(listed(type="string") | {"required": []})


def test_thoughts_are_split_off() -> None:
    """Only a thought at the beginning is one."""
    assert split_thought("<think> a </think>\nb") == ("a", "b")
    assert split_thought("b <think>a</think>") == ("", "b <think>a</think>")


def test_a_part_of_a_broken_object_is_not_the_answer() -> None:
    """When the outer object is cut off, an inner one that is whole is not taken for it."""
    with pytest.raises(ValueError, match="broken or cut off"):
        read_object('{"a": {"b": 1}, "c": [{"d": 2}')


def test_hostile_texts_are_refused_in_bounds() -> None:
    """Deep nesting, many braces and huge texts end in ValueError."""
    for text in ('{"a":' * 100_000, "{" * 100_000, " " * 5_000_000, '{"a": ' + "9" * 5_000 + "}"):
        with pytest.raises(ValueError):
            read_object(text)


@pytest.mark.parametrize(
    ("schema", "written", "meant"),
    [
        ({"type": "integer"}, "3", 3),
        ({"type": "number"}, " 0.9 ", 0.9),
        ({"type": "boolean"}, "True", True),
        ({"type": "string"}, None, ""),
        ({"type": "array", "items": {"type": "integer"}}, None, []),
        ({"type": "array", "items": {"type": "integer"}}, ["1", 2], [1, 2]),
        ({"type": "array", "maxItems": 2}, [1, 2, 3], [1, 2]),
        ({"enum": ["person", "event"]}, "Person", "person"),
        (listed(type="integer"), {"x": "1", "why": "so"}, {"x": 1}),
    ],
)
def test_slips_that_leave_no_doubt_are_undone(schema: Any, written: Any, meant: Any) -> None:
    """What is written nearly as asked for fits without asking again."""
    whole = listed(**schema)
    assert mismatch({"x": written}, whole)
    kept = fitted({"x": written, "note": "nobody asked"}, whole)
    assert kept == {"x": meant} and mismatch(kept, whole) == ""


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({"type": "integer"}, "three"),
        ({"type": "integer"}, "3.5"),
        ({"type": "integer"}, None),
        ({"type": "boolean"}, "yes"),
        ({"type": "string"}, 4),
        ({"enum": ["a", "b"]}, "c"),
        ({"type": "string", "enum": ["a", ""]}, None),
        (listed(type="integer"), {}),
    ],
)
def test_what_leaves_a_doubt_still_does_not_fit(schema: Any, written: Any) -> None:
    """Nothing is guessed and nothing missing is made up."""
    whole = listed(**schema)
    assert mismatch(fitted({"x": written}, whole), whole)
    assert mismatch(fitted({}, whole), whole)


def test_commas_that_end_a_list_are_passed_over() -> None:
    """Outside of strings only, and a text full of open strings costs no more than its length."""
    assert read_object('{"x": [1, 2, ], "y": "a,]",\n}') == {"x": [1, 2], "y": "a,]"}
    with pytest.raises(ValueError, match="broken or cut off"):
        read_object('{"x": ' + '"\\"' * 200_000)
