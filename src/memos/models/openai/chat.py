"""A chat model behind an OpenAI-compatible endpoint.

Structured output goes down a ladder: `json_schema`, then `json_object`, then the schema in the prompt;
an endpoint that refuses a rung is asked on the next one, and what it took is remembered. A reply that is
not the JSON asked for is sent back once, with the reason; then BadCompletion keeps what was said. Nothing
is retried because it failed: that is the queue's. Reasoning that an endpoint sends apart comes out of
`stream` between <think> and </think>, as of models that think in their text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, cast

from memos import metrics, prompts, tracing
from memos.clock import Clock, SystemClock
from memos.errors import BadCompletion, ModelError, ModelRefused, ModelUnavailable, RateLimited
from memos.models.base import ChatMessage, Completion
from memos.models.extractive import is_chinese
from memos.models.openai.endpoint import OPENAI_URL, Endpoint, sendable
from memos.models.openai.reply import Reply, Told, delta_of, model_ids_of, reply_of, told_in
from memos.models.structured import fitted, is_strict, mismatch, read_object

TIMEOUT_S = 120.0
TOKENS_MAX = 4_096
RAW_CHARS_MAX = 64 * 1024  # of a reply sent back for mending, or kept of a broken stream
NAMED_MAX = 8

T = TypeVar("T")
_Form = Literal["json_schema", "json_object", "prompt"]
_SIMPLER: dict[_Form, _Form] = {"json_schema": "json_object", "json_object": "prompt"}


@dataclass(frozen=True, slots=True)
class _Dialect:
    """What the endpoint takes, as far as it has shown."""

    form: _Form = "json_schema"
    tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sampling: bool = True
    counts: bool = True  # a stream is asked for its token counts
    hints: bool = True  # fields that are about caches

    def after(self, refused: ModelRefused, *, structured: bool) -> _Dialect | None:
        """What to try next after this was refused; None when the fault lies elsewhere."""
        said = str(refused)
        if refused.status not in (400, 422):
            return None
        if self.tokens == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, tokens="max_completion_tokens")
        if self.sampling and ("temperature" in said or "top_p" in said):
            return replace(self, sampling=False)
        folded = said.lower()
        vague = any(word in folded for word in _UNKNOWN_FIELD)
        if self.hints and (vague or any(name in folded for name in _HINT_FIELDS)):
            return replace(self, hints=False)
        if self.counts and (vague or "stream_options" in folded):
            return replace(self, counts=False)
        if structured and self.form in _SIMPLER:
            return replace(self, form=_SIMPLER[self.form])
        return None


_DIALECTS_MAX = 7  # every step of `after` can be taken once
_HINT_FIELDS = ("prompt_cache_key", "cache_control", "cache_salt", "id_slot", "cache_prompt")
_UNKNOWN_FIELD = (
    "extra inputs",
    "extra fields",
    "unrecognized",
    "unknown field",
    "unknown param",
    "unexpected keyword",
)


@dataclass(frozen=True, slots=True)
class CacheHints:
    """What a request says about caches. fields: of the body; mark_system: the system message is marked by
    `cache_control` as the end of what is worth keeping. An endpoint that refuses them is asked without."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    mark_system: bool = False


class OpenAIChat:
    """Fulfils `memos.models.base.LLM`. Thread-safe.

    Without a `model` the endpoint is asked, at first use, which one it serves; it must be exactly one.
    """

    def __init__(
        self,
        model: str = "",
        *,
        base_url: str = OPENAI_URL,
        api_key: str = "",
        timeout_s: float = TIMEOUT_S,
        tokens_max: int = TOKENS_MAX,
        temperature: float | None = None,
        top_p: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._endpoint = Endpoint(base_url, api_key=api_key, timeout_s=timeout_s, clock=clock)
        self._model = model
        self._clock = clock or SystemClock()
        self._tokens_max = tokens_max
        self._sampling = _given(temperature, top_p)
        self._dialect = _Dialect()

    @property
    def name(self) -> str:
        return self._model or f"the model of {self._endpoint.host}"

    @property
    def base_url(self) -> str:
        """Where it is asked."""
        return self._endpoint.base_url

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Completion:
        """One reply. With a schema at most one more call, to mend the first; both share `timeout_s`.

        `extra` tells `calls`, `finish_reason` and `form` (how the schema was put). Raises what
        `Endpoint` raises, and BadCompletion for an empty reply or a schema that was not met.
        """
        deadline = self._endpoint.deadline(timeout_s)
        sampling = self._sampled(temperature, top_p)
        first = self._ask(messages, schema, max_tokens, deadline, sampling)
        if schema is None:
            if not first.text.strip():
                raise BadCompletion("the model gave an empty reply", first.raw)
            return first.completion(calls=1)
        form = self._dialect.form
        try:
            return first.completion(parsed=_parsed(first, schema), calls=1, form=form)
        except ValueError as error:
            fault = str(error)
        again = [*messages, *_mending(first, fault, messages)]
        try:
            second = self._ask(again, schema, max_tokens, deadline, sampling)
        except ModelError as error:
            reason = f"the reply is not what was asked for: {fault}; asking again failed: {error}"
            raise BadCompletion(reason, first.raw) from error
        try:
            parsed = _parsed(second, schema)
        except ValueError as error:
            raws = f"{first.raw}\n\n{second.raw}"
            raise BadCompletion(f"asked twice, the reply is not what was asked for: {error}", raws) from error
        return replace(second, usage=first.usage + second.usage).completion(
            parsed=parsed, calls=2, form=form, mended=fault
        )

    def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        hints: CacheHints | None = None,
        told: Callable[[Told], None] | None = None,
    ) -> Iterator[str]:
        """The reply in pieces. One that ends before the model had finished raises ModelUnavailable after
        the pieces that came.

        told: called at the end with the counts; the endpoint is then asked for them.
        """
        deadline = self._endpoint.deadline(timeout_s)
        sampling = self._sampled(temperature, top_p)

        def opened(dialect: _Dialect) -> tuple[str, Iterator[str]]:
            request = self._request(messages, None, max_tokens, dialect, deadline, sampling, hints)
            request["stream"] = True
            if told is not None and dialect.counts:
                request["stream_options"] = {"include_usage": True}
            lines = self._endpoint.lines(self._open(request), deadline=deadline)
            return next(lines, ""), lines  # the first line: a refusal shows here, before any piece

        first, rest = self._negotiated(opened, structured=False)
        with closing(cast(Any, rest)):
            yield from self._pieces(first, rest, told)

    def warm(
        self, messages: Sequence[ChatMessage], *, hints: CacheHints, timeout_s: float | None = None
    ) -> Told:
        """Have the endpoint read the messages and say one token, for what it keeps of them. Raises ModelError."""
        deadline = self._endpoint.deadline(timeout_s)

        def sent(dialect: _Dialect) -> str:
            request = self._request(messages, None, 1, dialect, deadline, {}, hints)
            return self._endpoint.body(self._open(request), deadline=deadline)

        return told_in(self._negotiated(sent, structured=False))

    @property
    def endpoint(self) -> Endpoint:
        """Where it is asked, for interfaces beside the chat's."""
        return self._endpoint

    @property
    def takes_hints(self) -> bool:
        """False once the endpoint has refused them."""
        return self._dialect.hints

    def _sampled(self, temperature: float | None, top_p: float | None) -> dict[str, float]:
        """How this call samples: as it asks, else as configured."""
        return self._sampling | _given(temperature, top_p)

    # -- asking -----------------------------------------------------------------------------------------

    def _ask(
        self,
        messages: Sequence[ChatMessage],
        schema: Mapping[str, Any] | None,
        max_tokens: int | None,
        deadline: float,
        sampling: Mapping[str, float],
    ) -> Reply:
        def sent(dialect: _Dialect) -> Reply:
            request = self._request(messages, schema, max_tokens, dialect, deadline, sampling)
            reply = reply_of(self._endpoint.body(self._open(request), deadline=deadline))
            _count_tokens(self.name, reply)
            return reply

        return self._negotiated(sent, structured=schema is not None)

    def _negotiated(self, send: Callable[[_Dialect], T], *, structured: bool) -> T:
        """`send` in a dialect that the endpoint takes."""
        dialect = self._dialect
        for _ in range(_DIALECTS_MAX):
            try:
                done = self._timed(send, dialect)
            except ModelRefused as refused:
                simpler = dialect.after(refused, structured=structured)
                if simpler is None:
                    raise
                dialect = simpler
            else:
                self._dialect = dialect
                return done
        raise ModelUnavailable(f"{self._endpoint.host} refuses every form of the request")

    def _timed(self, send: Callable[[_Dialect], T], dialect: _Dialect) -> T:
        """`send`, counted; of a stream up to its first line."""
        started = self._clock.monotonic()
        outcome = "failed"
        try:
            with tracing.span("model call", "client", gen__ai_request_model=self.name):
                done = send(dialect)
            outcome = "ok"
        except ModelRefused:
            outcome = "refused"
            raise
        except RateLimited:
            outcome = "rate_limited"
            raise
        except ModelUnavailable:
            outcome = "unavailable"
            raise
        finally:
            metrics.MODEL_CALLS.add(model=self.name, outcome=outcome)
            metrics.MODEL_CALL_SECONDS.observe(self._clock.monotonic() - started, model=self.name)
        return done

    def _request(
        self,
        messages: Sequence[ChatMessage],
        schema: Mapping[str, Any] | None,
        max_tokens: int | None,
        dialect: _Dialect,
        deadline: float,
        sampling: Mapping[str, float],
        hints: CacheHints | None = None,
    ) -> dict[str, Any]:
        if not self._model:
            self._model = self._only_model(deadline)
        sent: list[dict[str, Any]] = [
            {"role": message.role, "content": _content(message)} for message in messages
        ]
        request: dict[str, Any] = {
            "model": self._model,
            "messages": sent,
            dialect.tokens: min(max_tokens or self._tokens_max, self._tokens_max),
            "timeout": self._endpoint.timeout(deadline),
        }
        if dialect.sampling:
            request |= sampling
        if hints is not None and dialect.hints:
            request["extra_body"] = dict(hints.fields)
            if hints.mark_system and sent and sent[0]["role"] == "system":
                part = {"type": "text", "text": sent[0]["content"], "cache_control": {"type": "ephemeral"}}
                sent[0]["content"] = [part]
        if schema is None:
            return request
        if dialect.form == "json_schema":
            described = {"name": "reply", "schema": dict(schema), "strict": is_strict(schema)}
            request["response_format"] = {"type": "json_schema", "json_schema": described}
            return request
        if dialect.form == "json_object":
            request["response_format"] = {"type": "json_object"}
        told = prompts.load("json_reply", _language(messages))
        text = told.substitute(schema=json.dumps(schema, ensure_ascii=False)).strip()
        if sent and sent[0]["role"] == "system":  # many chat templates take one system message, the first
            sent[0]["content"] += "\n\n" + text
        else:
            sent.insert(0, {"role": "system", "content": text})
        return request

    def _open(self, request: dict[str, Any]) -> AbstractContextManager[Any]:
        create = cast(Any, self._endpoint.client.chat.completions.with_streaming_response.create)
        return cast("AbstractContextManager[Any]", create(**request))

    def _only_model(self, deadline: float) -> str:
        listing = self._endpoint.client.models.with_streaming_response.list(
            timeout=self._endpoint.timeout(deadline)
        )
        ids = model_ids_of(self._endpoint.body(listing, deadline=deadline))
        if len(ids) != 1:
            named = f" ({', '.join(ids[:NAMED_MAX])}{', …' if len(ids) > NAMED_MAX else ''})" if ids else ""
            raise ModelRefused(
                f"{self._endpoint.base_url} serves {len(ids)} models{named}: name the one to use", status=0
            )
        return ids[0]

    # -- a stream ---------------------------------------------------------------------------------------

    def _pieces(
        self, first: str, rest: Iterator[str], told: Callable[[Told], None] | None = None
    ) -> Iterator[str]:
        finished = thinking = False
        counts = Told()
        beside: list[str] = []  # what is no event: the body of an endpoint that does not stream
        for line in _after(first, rest):
            if not line.startswith("data:"):
                if line.strip() and not line.startswith((":", "event:", "id:", "retry:")):
                    beside.append(line)
                continue
            event = line[5:].strip()
            if event == "[DONE]":
                finished = True
                break
            delta = delta_of(event)
            counts = delta.told.over(counts)
            if delta.reasoning:
                yield delta.reasoning if thinking else "<think>" + delta.reasoning
                thinking = True
            if delta.text:
                yield "</think>" + delta.text if thinking else delta.text
                thinking = False
            finished = finished or delta.finished
        if thinking:
            yield "</think>"
        if finished:
            if told is not None:
                _count_told(self.name, counts)
                told(counts)
            return
        if beside:
            reply = reply_of("\n".join(beside))
            if told is not None:
                told(told_in("\n".join(beside)))
            yield f"<think>{reply.reasoning}</think>{reply.text}" if reply.reasoning else reply.text
            return
        raise ModelUnavailable(f"the reply of {self.name!r} broke off before its end")


def _given(temperature: float | None, top_p: float | None) -> dict[str, float]:
    sampling = {"temperature": temperature, "top_p": top_p}
    return {name: value for name, value in sampling.items() if value is not None}


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    """The text; with images the list of parts that endpoints with vision take."""
    text = sendable(message.content)
    if not message.images:
        return text
    images = [{"type": "image_url", "image_url": {"url": url}} for url in message.images]
    return [{"type": "text", "text": text}, *images]


def _after(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _count_tokens(model: str, reply: Reply) -> None:
    counted = (
        ("in", reply.usage.tokens_in),
        ("out", reply.usage.tokens_out),
        ("cached", reply.usage.tokens_cached),
    )
    for direction, tokens in counted:
        metrics.MODEL_TOKENS.add(max(0, tokens), model=model, direction=direction)


def _count_told(model: str, told: Told) -> None:
    counted = (("in", told.tokens_in), ("out", told.tokens_out), ("cached", told.tokens_cached or 0))
    for direction, tokens in counted:
        metrics.MODEL_TOKENS.add(tokens, model=model, direction=direction)


def _parsed(reply: Reply, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The object of a reply. ValueError says what is wrong with it."""
    try:
        found = read_object(reply.text)
    except ValueError as error:
        if reply.finish_reason == "length":
            raise ValueError("it was cut off at the limit of its length") from error
        raise
    kept: dict[str, Any] = fitted(found, schema)
    fault = mismatch(kept, schema)
    if fault:
        raise ValueError(fault)
    return kept


def _mending(reply: Reply, fault: str, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The turns that send a reply back."""
    said = reply.text.strip() or "(empty)"
    asked = prompts.load("json_mend", _language(messages)).substitute(fault=fault).strip()
    return [ChatMessage("assistant", said[:RAW_CHARS_MAX]), ChatMessage("user", asked)]


def _language(messages: Sequence[ChatMessage]) -> prompts.Language:
    return "zh" if any(is_chinese(message.content) for message in messages[-1:]) else "en"
