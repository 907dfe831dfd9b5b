"""JSON and JSON Lines as lines "path: value", one part for each element of the outermost list or object.

A list of chat messages, with or without tool calls, comes out as what was said and called, in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memos.documents.model import Budget, Part
from memos.errors import DocumentUnreadable

DEPTH_MAX = 60
CALL_CHARS_MAX = 4_000


def json_parts(text: str, name: str, budget: Budget) -> list[Part]:
    """The parts of a JSON document, or of one JSON value a line."""
    value, lines = _load(text, name)
    if isinstance(value, list):
        rows = lines or list(range(1, len(value) + 1))
        parts = [(number, one) for number, one in zip(rows, value, strict=True)]
        return [part for number, one in parts for part in _element(number, one, budget)]
    if isinstance(value, Mapping):
        return [
            Part(budget.text("\n".join(body)), headings=(str(key)[:200],))
            for key, inner in value.items()
            if (body := list(_lines(inner, "" if isinstance(inner, Mapping) else str(key))))
        ]
    return [Part(budget.text(_leaf(value)))]


def _load(text: str, name: str) -> tuple[Any, list[int]]:
    """(value, line numbers where every line is a value of its own)."""
    try:
        return json.loads(text), []
    except RecursionError as error:
        raise DocumentUnreadable(f"{name} is nested too deeply to be read") from error
    except ValueError as error:
        fault = error
    found: list[Any] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line))
        except RecursionError as error:
            raise DocumentUnreadable(f"{name}, line {number}, is nested too deeply to be read") from error
        except ValueError as error:
            told = fault if not found else error
            raise DocumentUnreadable(f"{name} is no JSON: {told}") from error
        numbers.append(number)
    return found, numbers


def _element(number: int, value: Any, budget: Budget) -> Iterator[Part]:
    budget.row()
    body = [_message(value)] if _is_message(value) else list(_lines(value, ""))
    text = "\n".join(line for line in body if line)
    if text.strip():
        yield Part(budget.text(text), rows=(number, number), kind="row")


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("role"), str)
        and (isinstance(value.get("content"), str | list) or bool(value.get("tool_calls")))
    )


def _message(value: Mapping[str, Any]) -> str:
    content = value.get("content") or ""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "\n".join(text for text in texts if isinstance(text, str))
    who = value.get("name") if isinstance(value.get("name"), str) else ""
    said = f"{who or value['role']}: {content}" if content.strip() else ""
    return "\n".join([*([said] if said else []), *tool_call_lines(value.get("tool_calls"))])


def tool_call_lines(calls: Any) -> list[str]:
    """What tool calls of a message ask for, a line each: `called search(city="Lyon")`."""
    found = []
    for call in calls if isinstance(calls, Sequence) and not isinstance(calls, str) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        inner = function if isinstance(function, Mapping) else call
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"]:
            continue
        given = inner.get("arguments", inner.get("input", ""))
        found.append(f"called {inner['name']}({_arguments(given)})"[:CALL_CHARS_MAX])
    return found


def _arguments(given: Any) -> str:
    if isinstance(given, str):
        written: str = given
        try:
            given = json.loads(written)
        except (ValueError, RecursionError):
            return written
    if isinstance(given, Mapping):
        return ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items())
    return "" if given in ("", None) else json.dumps(given, ensure_ascii=False)


def _lines(value: Any, path: str, depth: int = 0) -> Iterator[str]:
    if depth > DEPTH_MAX:
        yield f"{path}: {json.dumps(value, ensure_ascii=False)}" if path else json.dumps(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _lines(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list):
        if value and all(not isinstance(one, Mapping | list) for one in value):
            yield _line(path, ", ".join(map(_leaf, value)))
            return
        for place, inner in enumerate(value):
            yield from _lines(inner, f"{path}[{place}]", depth + 1)
    else:
        yield _line(path, _leaf(value))


def _line(path: str, text: str) -> str:
    return f"{path}: {text}" if path else text


def _leaf(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
