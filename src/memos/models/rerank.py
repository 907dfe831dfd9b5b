"""A reranker behind HTTP, in the shape that Cohere, Jina, vLLM and llama.cpp share, or that of TEI.

Which of the two an endpoint speaks shows at the first call and is remembered. Sends a request once;
every failure is a `ModelError`, after which the caller keeps its own order. Off unless it is configured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from memos import tracing
from memos.errors import BadCompletion, InvalidInput, ModelRefused, ModelUnavailable, RateLimited

TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
TEXTS_MAX = 1_000
TEXT_CHARS_MAX = 8_000
RETRY_AFTER_S = 20.0
RETRY_AFTER_MAX_S = 3_600.0
RAW_CHARS_MAX = 64 * 1024


class HttpReranker:
    """Fulfils `memos.models.base.Reranker`. Thread-safe. `url` is the whole address, with `/rerank`."""

    def __init__(self, url: str, *, model: str = "", api_key: str = "", timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"reranker URL {url!r}: give the whole URL, as http://localhost:8080/rerank")
        if not (api_key.isascii() and api_key.isprintable()):
            raise InvalidInput("the reranker's key holds characters that no key has; copy it again")
        self._url = url
        self._host = parts.hostname
        self._model = model
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        )
        self._texts_field = "documents"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """One score per text, in input order, on the endpoint's own scale."""
        if not texts:
            return []
        if len(texts) > TEXTS_MAX:
            raise InvalidInput(f"{len(texts)} texts; at most {TEXTS_MAX} are reranked in one call")
        try:
            answer = self._ask(self._texts_field, query, texts)
        except ModelRefused as error:
            if error.status not in (400, 422) or self._texts_field == "texts":
                raise
            answer = self._ask("texts", query, texts)
            self._texts_field = "texts"
        return _scores(answer, len(texts))

    def _ask(self, texts_field: str, query: str, texts: Sequence[str]) -> str:
        request: dict[str, Any] = {"query": _sendable(query), texts_field: [_sendable(t) for t in texts]}
        if self._model:
            request["model"] = self._model
        try:
            with tracing.span("model call", "client", gen__ai_operation_name="rerank"):
                response = self._client.post(self._url, json=request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelUnavailable(f"the reranker {self._host} cannot be reached: {error}") from error
        said = f"the reranker {self._host} answers {response.status_code}: {response.text[:300]}"
        if response.status_code == 429:
            raise RateLimited(_seconds(response.headers.get("retry-after", "")), said)
        if response.status_code >= 500:
            raise ModelUnavailable(said)
        if not response.is_success:
            raise ModelRefused(said, status=response.status_code)
        return response.text


def _sendable(text: str) -> str:
    return text[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode("utf-8")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return RETRY_AFTER_S
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S) if seconds == seconds else RETRY_AFTER_S


def _scores(body: str, count: int) -> list[float]:
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadCompletion("the reranker's answer is not JSON", body[:RAW_CHARS_MAX]) from error
    results = tree.get("results", tree.get("data")) if isinstance(tree, dict) else tree
    scores: dict[int, float] = {}
    for one in results if isinstance(results, list) else ():
        if isinstance(one, Mapping):
            index, score = one.get("index"), one.get("relevance_score", one.get("score"))
            if isinstance(index, int) and isinstance(score, int | float) and math.isfinite(score):
                scores[index] = float(score)
    if set(scores) != set(range(count)):
        raise BadCompletion(f"the reranker scored {len(scores)} of {count} texts", body[:RAW_CHARS_MAX])
    return [scores[index] for index in range(count)]
