"""Messages as the text of a pack, and back.

`ids` is what a status needs, one JSON list a pack; `body` the rest of each message, one JSON list a line, so
that a pack is divided without reading what is in it: JSON writes a line break inside a text as an escape.
Values that JSON does not know come back as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json

from memos.errors import InvalidInput
from memos.mem_scheduler.queues import columns
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, UserContext

Named = tuple[str, str, str | None, int]
"""Key, item, task, number of one message."""

_REST = (
    "content",
    "trace_id",
    "session_id",
    "timestamp",
    "user_name",
    "api_path",
    "info",
    "chat_history",
    "user_context",
)
_rest_of = itemgetter(*_REST)
_rest_and_trace_of = itemgetter(*_REST, "traceparent")  # what is traced has one value more
_CONTENT = _REST.index("content")
_TIMESTAMP = _REST.index("timestamp")
_timestamp_of = itemgetter(_TIMESTAMP)
_LINE = b",\n"


def body_lines(messages: Sequence[ScheduleMessageItem]) -> list[bytes]:
    """The fields of each message that are not in `ids` and not its pack's. Raises InvalidInput."""
    rows = [
        _rest_and_trace_of(fields) if fields["traceparent"] else _rest_of(fields)
        for fields in [message.__dict__ for message in messages]
    ]
    for timestamp in map(_timestamp_of, rows):
        if type(timestamp) is not datetime or timestamp.tzinfo is not UTC:
            rows = list(map(_with_plain_timestamp, rows))
            break
    try:
        return list(map(to_json, rows))
    except (PydanticSerializationError, TypeError):
        return list(map(_encode_slowly, rows))


def join_lines(lines: Sequence[bytes]) -> bytes:
    return _LINE.join(lines)


def split_lines(body: bytes) -> list[bytes]:
    return body.split(_LINE)


def encode_ids(pack_id: int, enqueued_at: float, label: str, named: Sequence[Named]) -> str:
    """Raises InvalidInput for a text that is none."""
    try:
        return to_json((pack_id, enqueued_at, label, named)).decode()
    except PydanticSerializationError as error:
        raise InvalidInput("an id to be queued holds a lone surrogate; it is not valid text") from error


def decode_ids(texts: Iterable[str]) -> list[tuple[int, float, str, list[Named]]]:
    """The `ids` of several packs."""
    found: list[tuple[int, float, str, list[Named]]] = from_json(f"[{','.join(texts)}]", cache_strings="none")
    return found


def with_content(line: bytes, content: str) -> bytes:
    """The line of the same message with another content."""
    (values,) = _decode_lines(line)
    values[_CONTENT] = content
    try:
        return to_json(values)
    except PydanticSerializationError:
        return _encode_slowly(values)


def build_messages(
    named: Sequence[Sequence[Any]],
    body: bytes,
    *,
    stream: str,
    user_id: str,
    mem_cube_id: str,
    labels: Iterable[str],
) -> list[ScheduleMessageItem]:
    """The messages of ids and lines that belong together; they were validated when they were first made."""
    fields = [
        {
            "item_id": item_id,
            "redis_message_id": key,
            "stream_key": stream,
            "user_id": user_id,
            "trace_id": trace_id,
            "mem_cube_id": mem_cube_id,
            "session_id": session_id,
            "label": label,
            "content": content,
            "timestamp": datetime.fromisoformat(timestamp),
            "user_name": user_name,
            "info": info,
            "api_path": api_path,
            "task_id": task_id,
            "chat_history": history,
            "user_context": None if context is None else UserContext(**context),
            "traceparent": traced[0] if traced else "",
        }
        for (key, item_id, task_id, _), label, (
            content,
            trace_id,
            session_id,
            timestamp,
            user_name,
            api_path,
            info,
            history,
            context,
            *traced,
        ) in zip(named, labels, _decode_lines(body))  # noqa: B905 - labels may be endless
    ]
    return columns.build_messages(fields)


def _decode_lines(body: bytes) -> list[list[Any]]:
    text = b"[%b]" % body
    try:
        found: list[list[Any]] = from_json(text, cache_strings="none")
    except ValueError:  # nested deeper than pydantic reads
        found = json.loads(text)
    return found


def _with_plain_timestamp(values: tuple[Any, ...]) -> tuple[Any, ...]:
    timestamp = values[_TIMESTAMP]
    if not isinstance(timestamp, datetime):
        raise InvalidInput(f"timestamp must be a datetime, not {type(timestamp).__name__}")
    return (*values[:_TIMESTAMP], timestamp.isoformat(), *values[_TIMESTAMP + 1 :])


def _encode_slowly(values: Sequence[Any]) -> bytes:
    """For what pydantic cannot write: deep nesting, objects of other classes."""
    plain = [
        value.model_dump(mode="json")
        if isinstance(value, BaseModel)
        else value.isoformat()
        if isinstance(value, datetime)
        else value
        for value in values
    ]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), default=str).encode()
