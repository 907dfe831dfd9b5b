"""Messages, lanes and followups as the scripts take and give them.

A message travels as JSON without its empty fields; it was validated when it was first made, and is put
together again without validating it once more, which would cost more than the rest of a claim.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from pydantic_core import PydanticSerializationError, from_json, to_json

from memos.mem_scheduler.queues.base import Lane
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, UserContext
from memos.mem_scheduler.schemas.task_schemas import class_of

if TYPE_CHECKING:
    from memos.memory.store import Followup

_OVERWRITTEN = ("redis_message_id", "stream_key")  # each delivery brings its own
_NAMES = set(ScheduleMessageItem.model_fields)  # shared by all deliveries
_EMPTY: dict[str, Any] = {
    name: "" if name == "trace_id" else field.get_default(call_default_factory=False)
    for name, field in ScheduleMessageItem.model_fields.items()
}
_assign = object.__setattr__


def encode(message: ScheduleMessageItem) -> bytes:
    """The fields that say something, as JSON; what JSON does not know becomes text."""
    fields = {
        name: value
        for name, value in message.__dict__.items()
        if value is not None and value != "" and name not in _OVERWRITTEN
    }
    try:
        return to_json(fields, fallback=str)
    except (PydanticSerializationError, UnicodeError):
        context = message.user_context
        if context is not None:
            fields["user_context"] = context.model_dump(mode="json")
        fields["timestamp"] = message.timestamp.isoformat()
        return json.dumps(fields, default=str).encode()


def decode(text: str, *, key: str, stream: str) -> ScheduleMessageItem:
    """The message of `encode`, with the key and lane of its delivery."""
    fields = {**_EMPTY, **from_json(text)}
    fields["timestamp"] = datetime.fromisoformat(fields["timestamp"])
    if fields["user_context"] is not None:
        fields["user_context"] = UserContext(**fields["user_context"])
    fields["redis_message_id"] = key
    fields["stream_key"] = stream
    message = ScheduleMessageItem.__new__(ScheduleMessageItem)
    _assign(message, "__dict__", fields)
    _assign(message, "__pydantic_fields_set__", _NAMES)
    _assign(message, "__pydantic_extra__", None)
    _assign(message, "__pydantic_private__", None)
    return message


@lru_cache(maxsize=4_096)
def encoded(part: str) -> str:
    """Percent-encoded: any character is safe between the slashes of a lane."""
    return quote(part, safe="")


def lane_text(user_id: str, mem_cube_id: str, task_class: str) -> str:
    return f"{encoded(user_id)}/{encoded(mem_cube_id)}/{encoded(task_class)}"


@lru_cache(maxsize=4_096)
def lane_of(text: str) -> Lane:
    user_id, mem_cube_id, task_class = (unquote(part) for part in text.split("/"))
    return Lane(user_id, mem_cube_id, task_class)


def row_of(number: int, message: ScheduleMessageItem) -> bytes:
    """What a status row keeps of a message: its place in the call, item, task and label."""
    return to_json((number, message.item_id, message.task_id or "", message.label), fallback=str)


def task_text(user_id: str, task_id: str) -> str:
    """A business task of a user."""
    return f"{encoded(user_id)}/{encoded(task_id)}"


def followup_arguments(followups: Sequence[Followup]) -> list[Any]:
    """What `enter_followup` takes of each."""
    arguments: list[Any] = []
    for number, followup in enumerate(followups, 1_000_000):  # behind the messages of the call
        message = followup.message
        arguments += (
            lane_text(message.user_id, message.mem_cube_id, class_of(message.label)),
            followup.key,
            message.label,
            row_of(number, message),
            encode(message),
            followup.parent_key,
            followup.delay_s,
            task_text(message.user_id, message.task_id) if message.task_id else "",
        )
    return arguments
