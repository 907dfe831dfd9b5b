"""Messages, lanes and followups as the scripts take and give them.

A message travels as a JSON array of the fields that nearly every one has, with an object behind them for the
others that say something; user and cube are the lane's. It was validated when it was first made, and is put
together again without validating it once more, which would cost more than the rest of a claim.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from pydantic_core import PydanticSerializationError, from_json, to_json

from memos.mem_scheduler.queues.base import Lane
from memos.mem_scheduler.queues.columns import build_messages
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, UserContext
from memos.mem_scheduler.schemas.task_schemas import class_of

if TYPE_CHECKING:
    from memos.memory.store import Followup

_EMPTY: dict[str, Any] = {
    name: field.get_default(call_default_factory=False)
    for name, field in ScheduleMessageItem.model_fields.items()
}
_COMMON = ("item_id", "trace_id", "timestamp", "content", "label")
_OF_DELIVERY = ("redis_message_id", "stream_key", "user_id", "mem_cube_id")
_OTHERS = tuple(name for name in _EMPTY if name not in (*_COMMON, *_OF_DELIVERY))
# With the stamp in front longer than `hash-max-listpack-value` (64): a hash of nothing but short rows is a packed
# list of up to 512 (`hash-max-listpack-entries`), and each write to it a walk along them.
_ROW_BYTES_MIN = 48
_common = itemgetter(*_COMMON)
_others = itemgetter(*_OTHERS)
_SILENT = tuple(_EMPTY[name] for name in _OTHERS)


def encode(message: ScheduleMessageItem) -> bytes:
    """The fields that say something, as JSON; what JSON does not know becomes text."""
    fields = message.__dict__
    parts: list[Any] = [*_common(fields)]
    others = _others(fields)
    if others != _SILENT:
        said = zip(_OTHERS, others, strict=True)
        parts.append({name: value for name, value in said if value is not None and value != ""})
    try:
        return to_json(parts, fallback=str)
    except (PydanticSerializationError, UnicodeError):
        parts[2] = message.timestamp.isoformat()
        if message.user_context is not None:
            parts[5]["user_context"] = message.user_context.model_dump(mode="json")
        return json.dumps(parts, default=str).encode()


def decode(text: str, *, key: str, stream: str) -> ScheduleMessageItem:
    """The message of `encode`, with the key and lane of its delivery."""
    return decode_all([text], keys=[key], stream=stream)[0]


def decode_all(texts: Sequence[str], *, keys: Sequence[str], stream: str) -> list[ScheduleMessageItem]:
    """Messages of one lane."""
    whole = f"[{','.join(texts)}]"
    try:
        rows: list[list[Any]] = from_json(whole)
    except ValueError:  # nested deeper than pydantic reads
        rows = json.loads(whole)
    lane = lane_of(stream)
    of_lane = _EMPTY | {
        "stream_key": stream,
        "user_id": lane.user_id,
        "mem_cube_id": lane.mem_cube_id,
    }
    found = []
    for key, parts in zip(keys, rows, strict=True):
        fields = of_lane.copy()
        fields["redis_message_id"] = key
        fields["item_id"] = parts[0]
        fields["trace_id"] = parts[1]
        fields["timestamp"] = datetime.fromisoformat(parts[2])
        fields["content"] = parts[3]
        fields["label"] = parts[4]
        if len(parts) > 5:
            fields.update(parts[5])
            if fields["user_context"] is not None:
                fields["user_context"] = UserContext(**fields["user_context"])
        found.append(fields)
    return build_messages(found)


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
    row = to_json((number, message.item_id, message.task_id or "", message.label), fallback=str)
    return row.ljust(_ROW_BYTES_MIN)


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
