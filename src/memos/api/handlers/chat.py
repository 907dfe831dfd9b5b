"""ChatHandler: the chat requests of the API, translated for MemChat and back."""

from __future__ import annotations

import hmac
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Literal

from memos.api import access
from memos.api.handlers.base_handler import BaseHandler, HandlerDependencies, cubes_of
from memos.api.product_models import (
    APIChatCompleteRequest,
    ChatBusinessRequest,
    ChatCompleteResponse,
    ChatRequest,
    ReusedTokens,
)
from memos.api.sse import frames
from memos.api.without_effect import warnings_of
from memos.errors import AccessDenied
from memos.mem_chat.chat import ChatAnswer, ChatQuery, MemChat
from memos.memory.store import ItemFilter
from memos.models.base import ChatMessage
from memos.retrieval.filters import ParsedFilter, parse_filter


class ChatHandler(BaseHandler):
    """Complete and streamed answers."""

    def __init__(self, dependencies: HandlerDependencies, chat: MemChat) -> None:
        super().__init__(dependencies)
        self._validate_dependencies("mem_scheduler", "searcher")
        self._chat = chat

    def answer(self, chat_req: ChatRequest) -> ChatAnswer:
        """The answer as a value. Raises what goes wrong."""
        return self._chat.answer(query_of(chat_req))

    def handle_chat_complete(self, chat_req: APIChatCompleteRequest) -> ChatCompleteResponse:
        """The answer in the envelope. Raises what goes wrong."""
        answer = self.answer(chat_req)
        return ChatCompleteResponse(
            message="Chat completed successfully",
            data={
                "response": answer.response,
                "reasoning": answer.reasoning,
                "activation": _reused(answer),
            },
            warnings=warnings_of(chat_req),
        )

    def handle_chat_stream(
        self, chat_req: ChatRequest, *, kind: Literal["plain", "playground"] = "plain"
    ) -> Generator[str]:
        """The frames of the answer. Bad requests raise InvalidInput here, before the first frame."""
        query = query_of(chat_req)
        return frames(self._chat.stream(query), kind=kind)

    def handle_chat_stream_for_business_user(
        self, chat_req: ChatBusinessRequest, *, keys: Sequence[str]
    ) -> Generator[str]:
        """The plain stream, for who carries one of `keys`; no key configured: for nobody.

        Raises AccessDenied, InvalidInput before the first frame.
        """
        given = chat_req.business_key.encode(errors="surrogatepass")
        if not any(hmac.compare_digest(given, key.encode()) for key in keys):
            raise AccessDenied("this business_key does not open the business chat")
        query = query_of(chat_req)
        if not chat_req.need_search:
            nothing = ParsedFilter(ItemFilter(ids=("",)))
            query = replace(query, filter=nothing, include_preference=False)
        return frames(self._chat.stream(query), kind="plain")


def query_of(asked: ChatRequest) -> ChatQuery:
    """The question of a request. Raises AccessDenied (a chat also writes), InvalidInput."""
    readable = cubes_of(asked.readable_cube_ids, asked.mem_cube_id, asked.user_id)
    writable = cubes_of(asked.writable_cube_ids, asked.mem_cube_id, asked.user_id)
    access.may_write(users=[asked.user_id], cubes=[*readable, *writable])
    return ChatQuery(
        user_id=asked.user_id,
        query=asked.query,
        readable_cube_ids=readable,
        writable_cube_ids=writable,
        session_id=asked.session_id or "",
        history=tuple(_message(message) for message in asked.history or ()),
        system_prompt=asked.system_prompt or "",
        top_k=asked.top_k,
        relativity=asked.relativity,
        filter=parse_filter(asked.filter) if asked.filter else None,
        include_preference=asked.include_preference,
        pref_top_k=asked.pref_top_k,
        model=asked.model_name_or_path,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        remarks=tuple(warnings_of(asked)),
        add_message_on_answer=asked.add_message_on_answer,
    )


def _reused(answer: ChatAnswer) -> ReusedTokens | None:
    found = answer.reused
    if found is None:
        return None
    return {
        "predicted_tokens": found.predicted,
        "reused_tokens": found.reused,
        "prompt_tokens": found.prompt,
        "reason": found.reason,
    }


def _message(message: dict[str, Any]) -> ChatMessage:
    return ChatMessage(message["role"], message["content"])
