"""The HTTP side of a chat: the 503 of a server without chat, and frames as a streaming response."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from fastapi import HTTPException
from fastapi.responses import StreamingResponse

from memos.api.handlers import Handlers
from memos.api.handlers.chat import ChatHandler
from memos.api.sse import HEADERS, MEDIA_TYPE, in_threads

# What the description of the API says about a route that streams.
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `data: {json}` and an empty line each",
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "description": "one event",
                    "properties": {"data": {"type": "string", "description": "an object as JSON"}},
                    "required": ["data"],
                },
                "example": {"data": '{"type": "end"}'},
            }
        },
    }
}


def chat_of(handlers: Handlers) -> ChatHandler:
    """The chat handler; HTTP 503 while the chat API is off."""
    if handlers.chat is None:
        raise HTTPException(503, "the chat API is off: set ENABLE_CHAT_API=true and start again")
    return handlers.chat


def streamed(frames: Generator[str]) -> StreamingResponse:
    """A response whose `body_iterator` gives the frames as `str`, one at a time."""
    return StreamingResponse(in_threads(frames), media_type=MEDIA_TYPE, headers=HEADERS)
