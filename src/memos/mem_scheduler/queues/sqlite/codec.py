"""A message as columns of a row, and back.

What is looked for or changed has a column (item, task, user, cube, label, content); the other fields are
one JSON list. Values that JSON does not know come back as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from memos.mem_scheduler.queues.entries import build_message
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, UserContext

_encode: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=str
).encode
_decode: Callable[[str], Any] = json.JSONDecoder().decode


def rest_of(message: ScheduleMessageItem) -> str:
    """The fields that have no column."""
    context = message.user_context
    return _encode(
        (
            message.trace_id,
            message.session_id,
            message.timestamp.isoformat(),
            message.user_name,
            message.api_path,
            message.info,
            message.chat_history,
            None if context is None else context.model_dump(mode="json"),
        )
    )


def message_of(
    *,
    key: str,
    stream: str,
    item_id: str,
    task_id: str | None,
    user_id: str,
    mem_cube_id: str,
    label: str,
    content: str,
    rest: str,
) -> ScheduleMessageItem:
    trace_id, session_id, timestamp, user_name, api_path, info, history, context = _decode(rest)
    return build_message(
        (  # in the order of the message's fields
            item_id,
            key,
            stream,
            user_id,
            trace_id,
            mem_cube_id,
            session_id,
            label,
            content,
            datetime.fromisoformat(timestamp),
            user_name,
            info,
            api_path,
            task_id,
            history,
            None if context is None else UserContext(**context),
        ),
        key=key,
        stream=stream,
    )
