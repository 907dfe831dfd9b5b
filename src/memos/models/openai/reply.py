"""What an OpenAI-compatible endpoint answers, read with distrust: any field may be missing or of any type.

Pure. An answer that cannot be read raises BadCompletion with what came; one that carries an error instead
of a choice raises ModelUnavailable. The names of token counts differ between servers; all known are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memos.errors import BadCompletion, ModelUnavailable
from memos.models.base import Completion
from memos.models.structured import split_thought

RAW_CHARS_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the endpoint counts them."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.tokens_cached + other.tokens_cached,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer tells of its prompt. tokens_cached: read from a cache; None where it does not say."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int | None = None

    def over(self, earlier: Told) -> Told:
        """This, and what only an earlier event told."""
        cached = self.tokens_cached
        return Told(
            self.tokens_in or earlier.tokens_in,
            self.tokens_out or earlier.tokens_out,
            earlier.tokens_cached if cached is None else cached,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """One choice of a chat completion. `raw` is what is kept of it when it cannot be used."""

    text: str
    reasoning: str
    finish_reason: str
    usage: Usage
    raw: str

    def completion(self, *, parsed: Mapping[str, Any] | None = None, **extra: Any) -> Completion:
        """The same as a value of the port; `extra` is added to what the reply tells."""
        return Completion(
            self.text,
            parsed=parsed,
            reasoning=self.reasoning,
            tokens_in=self.usage.tokens_in,
            tokens_out=self.usage.tokens_out,
            tokens_cached=self.usage.tokens_cached,
            extra={"finish_reason": self.finish_reason, **extra},
        )


@dataclass(frozen=True, slots=True)
class Delta:
    """One event of a streamed completion."""

    text: str = ""
    reasoning: str = ""
    finished: bool = False
    told: Told = Told()


def told_of(tree: Mapping[str, Any]) -> Told:
    """Counts of a whole answer or an event. llama.cpp's own count of its slot comes first."""
    usage, timings = _mapping(tree.get("usage")), _mapping(tree.get("timings"))
    details = _mapping(usage.get("prompt_tokens_details"))
    cached = next(
        (
            one
            for one in (
                timings.get("cache_n"),
                details.get("cached_tokens"),
                usage.get("prompt_cache_hit_tokens"),  # DeepSeek
                usage.get("cache_read_input_tokens"),  # Anthropic, behind proxies
            )
            if isinstance(one, int) and not isinstance(one, bool) and one >= 0
        ),
        None,
    )
    read = _count(timings.get("prompt_n")) + (cached or 0) if timings else 0
    return Told(_count(usage.get("prompt_tokens")) or read, _count(usage.get("completion_tokens")), cached)


def told_in(body: str) -> Told:
    """The counts of a whole answer. Raises BadCompletion for one that is none."""
    tree = _tree(body)
    if _choice(tree) is None:
        raise BadCompletion("the endpoint's answer holds no choice", body[:RAW_CHARS_MAX])
    return told_of(tree)


def reply_of(body: str) -> Reply:
    """The first choice of a whole answer."""
    tree = _tree(body)
    choice = _choice(tree)
    if choice is None:
        raise BadCompletion("the endpoint's answer holds no choice", body[:RAW_CHARS_MAX])
    message = _mapping(choice.get("message"))
    thought, text = split_thought(_content(message.get("content")))
    finish_reason = choice.get("finish_reason")
    return Reply(
        text=text or _text(message.get("refusal")),
        reasoning=_reasoning(message) or thought,
        finish_reason=_text(finish_reason),
        usage=_usage(tree),
        raw=(text or body)[:RAW_CHARS_MAX],
    )


def delta_of(event: str) -> Delta:
    """What one event of a stream adds."""
    tree = _tree(event)
    choice, told = _choice(tree), told_of(tree)
    if choice is None:  # the last event may carry counts alone
        return Delta(told=told)
    delta = _mapping(choice.get("delta"))
    return Delta(_content(delta.get("content")), _reasoning(delta), bool(choice.get("finish_reason")), told)


def model_ids_of(body: str) -> list[str]:
    """The ids of a listing of models, in its order."""
    listed = _tree(body).get("data")
    ids = [_text(_mapping(one).get("id")) for one in listed] if isinstance(listed, list) else []
    return [one for one in ids if one]


def vectors_of(body: str, count: int) -> list[list[Any]]:
    """The `count` embeddings of an answer in the order of the texts; their numbers are not checked yet."""
    listed = _tree(body).get("data")
    if not isinstance(listed, list) or len(listed) != count:
        got = len(listed) if isinstance(listed, list) else "no"
        raise BadCompletion(f"{got} embeddings came for {count} texts", body[:RAW_CHARS_MAX])
    found: dict[int, list[Any]] = {}
    for place, one in enumerate(map(_mapping, listed)):
        index, vector = one.get("index", place), one.get("embedding")
        if isinstance(index, int) and isinstance(vector, list) and 0 <= index < count:
            found[index] = vector
    if len(found) != count:
        raise BadCompletion("an embedding is missing, twice there or no list", body[:RAW_CHARS_MAX])
    return [found[place] for place in range(count)]


def _tree(body: str) -> Mapping[str, Any]:
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadCompletion("the endpoint's answer is not JSON", body[:RAW_CHARS_MAX]) from error
    if not isinstance(tree, dict):
        raise BadCompletion("the endpoint's answer is no JSON object", body[:RAW_CHARS_MAX])
    fault = tree.get("error")
    if fault:
        said = _text(_mapping(fault).get("message")) or str(fault)
        raise ModelUnavailable(f"the endpoint answers with an error: {said[:300]}")
    return tree


def _choice(tree: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = tree.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    return choices[0] if isinstance(choices[0], dict) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """A text that can be stored and sent on: UTF-8, without NUL, which the store refuses."""
    return value.encode("utf-8", "replace").decode().replace("\0", "") if isinstance(value, str) else ""


def _content(value: Any) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(value, list):
        return "".join(_text(_mapping(part).get("text")) for part in value)
    return _text(value)


def _reasoning(message: Mapping[str, Any]) -> str:
    """DeepSeek, llama.cpp and older vLLM say reasoning_content, Ollama, OpenRouter and newer vLLM reasoning."""
    return _text(message.get("reasoning_content")) or _text(message.get("reasoning"))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _usage(tree: Mapping[str, Any]) -> Usage:
    usage = _mapping(tree.get("usage"))
    cached = (
        _count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens"))
        or _count(usage.get("prompt_cache_hit_tokens"))  # DeepSeek
        or _count(_mapping(tree.get("timings")).get("cache_n"))  # llama.cpp
    )
    return Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), cached)
