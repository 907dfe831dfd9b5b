"""Structured replies: the JSON object in a model's text, and whether it fits the schema that was asked for.

Pure. `read_object` looks past what models put around their JSON (thoughts, code fences, a sentence before
or after) and past commas that end a list; `fitted` undoes slips that leave no doubt of what was meant (a number in
quotes, a field nobody asked for, null for nothing), so that they cost no second question; `mismatch` checks the part of JSON Schema that schemas of ours use: type, enum, const, required,
properties, additionalProperties, items, anyOf, local $ref, and the bounds of numbers, texts and lists.
Other keywords are not checked. Work is bounded: texts, nesting and attempts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

CHARS_MAX = 4 * 1024 * 1024
STARTS_MAX = 16  # opening braces that are tried
DEPTH_MAX = 64

# A comma before a closing bracket, outside of strings; one that is never closed is taken whole.
_LAST_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\Z))|,(\s*+[}\]])', re.DOTALL)
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


def split_thought(text: str) -> tuple[str, str]:
    """(what stands between <think> and </think> at the beginning, the rest)."""
    found = _THOUGHT.match(text)
    return (found[1].strip(), text[found.end() :]) if found else ("", text)


def read_object(text: str) -> dict[str, Any]:
    """The first JSON object of a reply. ValueError says what stands there instead."""
    if len(text) > CHARS_MAX:
        raise ValueError(f"the reply has {len(text)} characters; at most {CHARS_MAX} are read")
    try:
        return _first_object(text)
    except ValueError:
        bare = _LAST_COMMA.sub(lambda found: found[1] or found[2], text)
        if bare == text:
            raise
        return _first_object(bare)


def _first_object(text: str) -> dict[str, Any]:
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    reason = "there is no JSON object in it"
    start = text.find("{")
    for _ in range(STARTS_MAX):
        if start < 0:
            break
        try:
            found, _end = decoder.raw_decode(text, start)
        except RecursionError as error:
            raise ValueError("its JSON is nested too deeply") from error
        except ValueError as error:
            reason = f"its JSON is broken or cut off ({error})"
            start = text.find("{", start + 1)
            if _is_inside_a_broken_object(text, start):
                break
            continue
        if isinstance(found, dict):
            return found
    raise ValueError(reason)


def fitted(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` with such slips undone; what is still wrong is for `mismatch` to say. Nothing missing is made up."""
    return _fitted(value, schema, schema, DEPTH_MAX)


def mismatch(value: Any, schema: Mapping[str, Any]) -> str:
    """Where and how `value` does not fit, or "" when it does."""
    return _mismatch(value, schema, schema, "the reply", DEPTH_MAX)


def is_strict(schema: Any) -> bool:
    """Whether endpoints that enforce schemas strictly take this one: closed objects, all fields required, and
    no bound on a text's length, which some of them refuse."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "string" and ("maxLength" in schema or "minLength" in schema):
        return False
    properties = schema.get("properties")
    if schema.get("type") == "object" or isinstance(properties, Mapping):
        required = schema.get("required")
        names = set(properties) if isinstance(properties, Mapping) else set()
        if schema.get("additionalProperties") is not False or not isinstance(required, list):
            return False
        if set(required) != names:
            return False
    return all(is_strict(inner) for inner in schema.values())


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _is_inside_a_broken_object(text: str, start: int) -> bool:
    """Whether the next brace belongs to the object that just failed: its parts are not the answer.

    A brace that begins a line or follows prose can begin another attempt; one after a colon, a comma or a
    bracket is a part.
    """
    before = text[max(0, start - 200) : max(start, 0)].rstrip()
    return before.endswith((":", ",", "[", "{"))


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}


def _is_of(value: Any, name: Any) -> bool:
    kinds = _TYPES.get(name)
    if kinds is None:
        return True
    if isinstance(value, bool):
        return bool in kinds
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, kinds)


def _mismatch(value: Any, schema: Any, root: Mapping[str, Any], where: str, depth: int) -> str:
    if depth <= 0:
        return f"{where} is nested too deeply"
    if schema is False:
        return f"{where} must not be there"
    if not isinstance(schema, Mapping):
        return ""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _mismatch(value, _resolve(reference, root), root, where, depth - 1)
    kinds = schema.get("type")
    names = kinds if isinstance(kinds, list) else [] if kinds is None else [kinds]
    if names and not any(_is_of(value, name) for name in names):
        return f"{where} must be {' or '.join(map(str, names))}, not {_name_of(value)}"
    if "const" in schema and value != schema["const"]:
        return f"{where} must be {schema['const']!r}"
    allowed = schema.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        return f"{where} must be one of {', '.join(map(repr, allowed))}"
    choices = schema.get("anyOf")
    if isinstance(choices, list) and choices:
        faults = [_mismatch(value, one, root, where, depth - 1) for one in choices]
        if all(faults):
            return faults[0]
    if isinstance(value, dict):
        return _of_object(value, schema, root, where, depth)
    if isinstance(value, list):
        return _of_list(value, schema, root, where, depth)
    return _out_of_bounds(value, schema, where)


def _of_object(
    value: dict[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], where: str, depth: int
) -> str:
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        return f"{where} lacks {', '.join(map(repr, missing))}"
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, inner in value.items():
        place = f"{where}.{name}"[:200]
        if name not in properties and others is False:
            return f"{place} is not a field of the schema"
        fault = _mismatch(inner, properties.get(name, others), root, place, depth - 1)
        if fault:
            return fault
    return ""


def _of_list(
    value: list[Any], schema: Mapping[str, Any], root: Mapping[str, Any], where: str, depth: int
) -> str:
    for number, inner in enumerate(value):
        fault = _mismatch(inner, schema.get("items"), root, f"{where}[{number}]", depth - 1)
        if fault:
            return fault
    return _outside(len(value), schema, ("minItems", "maxItems"), f"{where} has {len(value)} entries")


def _fitted(value: Any, schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if depth <= 0 or not isinstance(schema, Mapping):
        return value
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _fitted(value, _resolve(reference, root), root, depth - 1)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        closed = schema.get("additionalProperties") is False
        return {
            name: _fitted(inner, properties.get(name), root, depth - 1)
            for name, inner in value.items()
            if name in properties or not closed
        }
    if isinstance(value, list):
        return [
            _fitted(inner, schema.get("items"), root, depth - 1) for inner in value[: schema.get("maxItems")]
        ]
    return _meant(value, schema)


def _meant(value: Any, schema: Mapping[str, Any]) -> Any:
    """A number, a word or nothing, as the schema writes it."""
    kind = schema.get("type")
    if value is None and kind in ("string", "array") and "enum" not in schema:
        return "" if kind == "string" else []
    if not isinstance(value, str):
        return value
    word = value.strip()
    if kind in ("number", "integer") and _NUMBER.fullmatch(word):
        number = float(word)
        return int(number) if number.is_integer() else number
    if kind == "boolean" and word.casefold() in ("true", "false"):
        return word.casefold() == "true"
    allowed = schema.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        alike = [one for one in allowed if isinstance(one, str) and one.casefold() == word.casefold()]
        return alike[0] if len(alike) == 1 else value
    return value


def _out_of_bounds(value: Any, schema: Mapping[str, Any], where: str) -> str:
    if isinstance(value, str):
        count = len(value)
        return _outside(count, schema, ("minLength", "maxLength"), f"{where} has {count} characters")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _outside(value, schema, ("minimum", "maximum"), f"{where} is {value}")
    return ""


def _outside(size: float, schema: Mapping[str, Any], names: tuple[str, str], said: str) -> str:
    least, most = (schema.get(name) for name in names)
    if least is not None and size < least:
        return f"{said}; at least {least} wanted"
    if most is not None and size > most:
        return f"{said}; at most {most} wanted"
    return ""


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _name_of(value: Any) -> str:
    return next(name for name, kinds in _TYPES.items() if isinstance(value, kinds))
