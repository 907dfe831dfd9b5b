"""The message that travels through the queue, and its wire form.

`ScheduleMessageItem` accepts what the documents show; what can never work (an empty user id, a NUL
byte) is refused at `submit`, by `validate_message`, with an error that names the value. The wire form
(`to_dict`) spells `mem_cube_id` as `cube_id`, as the documented consumers of the stream expect.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from memos import context
from memos.errors import InvalidInput

ID_CHARS_MAX = 512
CONTENT_BYTES_MAX = 4 * 1024 * 1024
TURN_ID = "turn_id"  # in `info`: the chat turn that a message belongs to


class UserContext(BaseModel):
    """Who asks and which cubes may be read and written, carried with an API-born message."""

    model_config = ConfigDict(extra="allow")

    user_id: str | None = None
    mem_cube_id: str | None = None
    readable_cube_ids: list[str] | None = None
    writable_cube_ids: list[str] | None = None


class ScheduleMessageItem(BaseModel):
    """One task. `item_id` is the caller's name for it; the queue mints its own key for every accepted
    message (`redis_message_id` on a delivered message), because chained copies repeat `item_id`."""

    model_config = ConfigDict(validate_assignment=False)

    item_id: str = Field(default_factory=lambda: str(uuid4()))
    redis_message_id: str = ""
    stream_key: str = ""
    user_id: str
    trace_id: str = Field(default_factory=context.current_trace_id)
    mem_cube_id: str
    session_id: str = ""
    label: str
    content: str
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    user_name: str = ""
    info: dict[str, Any] | None = None
    api_path: str | None = None
    task_id: str | None = None
    chat_history: list[Any] | None = None
    user_context: UserContext | None = None
    traceparent: str = ""  # the place of its submit in a trace (`memos.tracing`); "" where nothing is traced

    def to_dict(self) -> dict[str, str]:
        """The flat wire form: every value a string; None is "", containers are JSON. `traceparent` only where
        there is one."""
        wire = {
            "item_id": self.item_id,
            "user_id": self.user_id,
            "cube_id": self.mem_cube_id,
            "trace_id": self.trace_id,
            "session_id": self.session_id,
            "label": self.label,
            "cube": "Not Applicable",
            "content": self.content,
            "timestamp": self.timestamp.isoformat(),
            "user_name": self.user_name,
            "info": _json(self.info),
            "task_id": self.task_id or "",
            "api_path": self.api_path or "",
            "chat_history": _json(self.chat_history),
            "user_context": _json(self.user_context.model_dump(mode="json") if self.user_context else None),
        }
        return wire | {"traceparent": self.traceparent} if self.traceparent else wire

    @classmethod
    def from_dict(cls, wire: dict[str, Any]) -> ScheduleMessageItem:
        """The message of a wire form. Raises InvalidInput when a needed field is missing or malformed."""
        try:
            fields: dict[str, Any] = {
                "user_id": wire["user_id"],
                "mem_cube_id": wire["cube_id"] if "cube_id" in wire else wire["mem_cube_id"],
                "label": wire["label"],
                "content": wire["content"],
            }
            for name in (
                "item_id",
                "trace_id",
                "session_id",
                "user_name",
                "task_id",
                "api_path",
                "traceparent",
            ):
                if wire.get(name):
                    fields[name] = wire[name]
            if wire.get("timestamp"):
                fields["timestamp"] = wire["timestamp"]
            for name in ("info", "chat_history", "user_context"):
                if wire.get(name):
                    value = wire[name]
                    fields[name] = json.loads(value) if isinstance(value, str) else value
            return cls(**fields)
        except (KeyError, ValueError) as error:
            raise InvalidInput(f"not a message in wire form: {error}") from error

    def to_json(self) -> str:
        """The wire form as one JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ScheduleMessageItem:
        """The message of `to_json`. Raises InvalidInput."""
        try:
            wire = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"not JSON: {error}") from error
        if not isinstance(wire, dict):
            raise InvalidInput(f"a message in wire form is a JSON object, not {type(wire).__name__}")
        return cls.from_dict(wire)


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def check_id(field: str, value: object, *, chars_max: int = ID_CHARS_MAX) -> str:
    """`value` if it can serve as an id: a string of 1 to `chars_max` characters without control characters.

    Any other character is fine (`:`, `/`, emoji). Raises InvalidInput naming field and value.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{field} must be a string, not {type(value).__name__} ({value!r})")
    if not value.strip():
        raise InvalidInput(f"{field} is empty ({value!r}); give 1 to {chars_max} characters")
    if len(value) > chars_max:
        raise InvalidInput(
            f"{field} has {len(value)} characters ({value[:40]!r}…); at most {chars_max} are allowed"
        )
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise InvalidInput(f"{field} holds a control or surrogate character ({value[:80]!r}); remove it")
    return value


def check_text(field: str, value: object, *, bytes_max: int = CONTENT_BYTES_MAX) -> str:
    """`value` if it is a non-empty text without NUL, of at most `bytes_max` bytes in UTF-8."""
    if not isinstance(value, str):
        raise InvalidInput(f"{field} must be a string, not {type(value).__name__}")
    if not value.strip():
        raise InvalidInput(f"{field} is empty ({value!r}); give some text")
    if "\x00" in value:
        raise InvalidInput(f"{field} holds a NUL character at position {value.index(chr(0))}; remove it")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{field} holds a lone surrogate at position {error.start}; it is not valid text"
        ) from error
    if size > bytes_max:
        raise InvalidInput(f"{field} has {size} bytes; at most {bytes_max} are allowed: split it")
    return value


def info_text(message: ScheduleMessageItem, name: str) -> str:
    """A string of the message's `info`, "" where there is none."""
    value = (message.info or {}).get(name)
    return value if isinstance(value, str) else ""


def validate_message(message: object) -> ScheduleMessageItem:
    """`message` if the queue may accept it; InvalidInput otherwise."""
    if not isinstance(message, ScheduleMessageItem):
        raise InvalidInput(f"not a ScheduleMessageItem: {type(message).__name__} ({str(message)[:80]!r})")
    for field in ("item_id", "user_id", "mem_cube_id", "label"):
        check_id(field, getattr(message, field))
    check_text("content", message.content)
    if message.task_id and message.task_id.strip():
        check_text("task_id", message.task_id)
    for field in ("info", "chat_history"):
        value = getattr(message, field)
        if value:
            _check_json(field, value)
    return message


def _check_json(field: str, value: Any) -> None:
    """Refuse what cannot travel: nested without end, or larger than a content may be."""
    try:
        size = len(json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace"))
    except (ValueError, RecursionError, TypeError) as error:
        raise InvalidInput(f"{field} cannot be written as JSON: {error}; give plain values") from error
    if size > CONTENT_BYTES_MAX:
        raise InvalidInput(
            f"{field} has {size} bytes as JSON; at most {CONTENT_BYTES_MAX} are allowed: store it and send its id"
        )
