"""Prefixes that an OpenAI-compatible endpoint keeps by itself: any endpoint (level 0), vLLM and SGLang (level 1).

Level 0 prepares nothing: the text's stability is what its cache lives on. Where an endpoint takes a hint it
gets one (`prompt_cache_key`, or `cache_control` on the system message); one that refuses it is asked without.
Level 1 reads a prefix ahead of the chat by asking for one token, under a `cache_salt` of its own for every
namespace, so that no reader can tell by the time what another one's prompt holds. Such a cache dies with the
server, and nothing says so: whether it was there is told by `cached_tokens` alone. vLLM tells it only when
started with --enable-prompt-tokens-details and leaves it out when it is 0, SGLang with --enable-cache-report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

from memos import log
from memos.errors import ActivationUnsupported
from memos.memory.activation.base import (
    Capabilities,
    Generation,
    Handle,
    Layout,
    MissReason,
    Response,
    Reuse,
    Suffix,
)
from memos.models.base import ChatMessage
from memos.models.openai.chat import CacheHints, OpenAIChat
from memos.models.openai.reply import Told

Hint = Literal["auto", "none", "prompt_cache_key", "cache_control"]
Server = Literal["openai", "vllm", "sglang"]

# Hosted caches keep nothing shorter (OpenAI; Anthropic 1,024 to 4,096 by model).
HOSTED_TOKENS_MIN = 1_024
STUB = ChatMessage("user", ".")  # many templates take no system message alone

logger = log.get_logger(__name__)


class EndpointPrefixes:
    """Fulfils `ActivationBackend` over one chat model. Thread-safe."""

    def __init__(self, llm: OpenAIChat, *, server: Server = "openai", hint: Hint = "auto") -> None:
        self._llm = llm
        self._server: Server = server
        self._hint = _chosen(hint, llm)

    def capabilities(self) -> Capabilities:
        warmed = self._server != "openai"
        return Capabilities(
            level=1 if warmed else 0,
            name=self._server,
            builds=warmed,
            extends=warmed,
            survives_restart=False,
            token_ids=False,
            tells_reuse=True,
        )

    def fingerprint(self) -> str:
        """Of the endpoint and the model's name: the server's cache is keyed by what it really runs."""
        said = f"{self._server}\x1f{self._llm.base_url}\x1f{self._llm.name}"
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def tokenize(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        raise ActivationUnsupported(f"the endpoint {self._llm.base_url} gives no token ids")

    def prepare(self, layout: Layout) -> Handle:
        """Level 1: have the server read it. Level 0: nothing happens."""
        told = Told()
        if self._server != "openai":
            chat = (ChatMessage("system", layout.text), STUB)
            told = self._llm.warm(chat, hints=self._hints(layout.namespace))
        name = hashlib.sha256("\x1f".join((layout.namespace, *layout.parts)).encode()).hexdigest()[:32]
        return Handle(name, self.fingerprint(), layout, tokens=told.tokens_in)

    def extend(self, handle: Handle, keep: int, ids: Sequence[int], *, layout: Layout) -> Handle:
        """The server finds itself what it knows of the new text."""
        return self.prepare(layout)

    def generate(self, handle: Handle, suffix: Suffix) -> Generation:
        seen: list[Told] = []

        def pieces() -> Iterator[str]:
            yield from self._llm.stream(
                suffix.chat,
                max_tokens=suffix.max_tokens,
                timeout_s=suffix.timeout_s,
                temperature=suffix.temperature,
                top_p=suffix.top_p,
                hints=self._hints(suffix.layout.namespace),
                told=seen.append,
            )

        def response() -> Response:
            told = seen[-1] if seen else Told()
            return Response(told.tokens_in, told.tokens_out, told.tokens_cached)

        return Generation(pieces(), response)

    def reused_tokens(self, response: Response) -> Reuse:
        if response.tokens_cached is None:
            return Reuse(0, MissReason.UNTOLD)
        if response.tokens_cached > 0:
            return Reuse(response.tokens_cached)
        short = self._server == "openai" and 0 < response.tokens_in < HOSTED_TOKENS_MIN
        return Reuse(0, MissReason.TOO_SHORT if short else MissReason.NOT_REUSED)

    def drop(self, handle: Handle) -> int:
        """Nothing to remove: the server's own cache forgets by age, and no one else knows the salt."""
        return 0

    def drop_namespace(self, namespace: str) -> int:
        return 0

    def _hints(self, namespace: str) -> CacheHints:
        if self._server != "openai":
            if not self._llm.takes_hints:
                logger.warning("activation.salt_refused", server=self._server)
            return CacheHints({"cache_salt": namespace})
        if self._hint == "prompt_cache_key":
            return CacheHints({"prompt_cache_key": namespace})
        return CacheHints(mark_system=self._hint == "cache_control")


def _chosen(hint: Hint, llm: OpenAIChat) -> Hint:
    if hint != "auto":
        return hint
    model = llm.name.lower()
    if "claude" in model or model.startswith("anthropic/"):
        return "cache_control"
    return "prompt_cache_key"
