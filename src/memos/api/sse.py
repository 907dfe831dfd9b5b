"""Server-sent events: one frame per event, `data: {json}` and an empty line, in the documented types.

A `playground` stream shows every event; a `plain` one only reasoning, text, error and end. An error
frame carries its text as `content` (the documented field) and as `data`, and a trace id, no traceback.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import AsyncIterator, Generator
from contextlib import closing
from typing import Any, Literal

from memos.api.shapes import memory_shape, reuse_shape
from memos.mem_chat.events import (
    ChatEvent,
    End,
    Failure,
    Preference,
    Reasoning,
    Reference,
    Reused,
    Status,
    Suggestion,
    Text,
    Time,
)
from memos.retrieval.request import Hit

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def frames(events: Generator[ChatEvent], *, kind: Literal["plain", "playground"]) -> Generator[str]:
    """The frames of a chat. Closing it closes `events`."""
    with closing(events):
        for event in events:
            if kind == "playground" or isinstance(event, Reasoning | Text | Failure | End):
                yield frame(_fields(event))


def frame(fields: dict[str, Any]) -> str:
    """One frame."""
    return f"data: {json.dumps(fields, ensure_ascii=False)}\n\n"


def _fields(event: ChatEvent) -> dict[str, Any]:
    match event:
        case Status(stage):
            return {"type": "status", "data": stage}
        case Reference(hits):
            return {"type": "reference", "data": [_reference(hit) for hit in hits]}
        case Preference(markdown):
            return {"type": "pref_md_string", "data": markdown}
        case Reasoning(text):
            return {"type": "reasoning", "data": text}
        case Text(text):
            return {"type": "text", "data": text}
        case Time(total_time, speed_improvement):
            seconds = round(total_time, 3)
            return {"type": "time", "data": {"total_time": seconds, "speed_improvement": speed_improvement}}
        case Reused(predicted, reused, prompt, reason):
            return {"type": "activation", "data": reuse_shape(predicted, reused, prompt, reason)}
        case Suggestion(questions):
            return {"type": "suggestion", "data": list(questions)}
        case Failure(message, trace_id):
            return {"type": "error", "content": message, "data": message, "trace_id": trace_id}
        case End():
            return {"type": "end"}


def _reference(hit: Hit) -> dict[str, Any]:
    return {"metadata": memory_shape(hit.item, relativity=hit.relativity)["metadata"]}


async def in_threads(steps: Generator[str]) -> AsyncIterator[str]:
    """`steps` advanced in worker threads, all of them under one context; closed when the reader goes."""
    import anyio.to_thread  # comes with FastAPI, which importing this module must not load

    one = contextvars.copy_context()

    def advance() -> str | None:
        return one.run(lambda: next(steps, None))

    try:
        while (step := await anyio.to_thread.run_sync(advance)) is not None:
            yield step
    finally:
        one.run(steps.close)
