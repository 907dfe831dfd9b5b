"""A chat model in this process, behind the port that every language model fulfils.

A schema is put into the prompt; a reply that is not the JSON asked for is sent back once, with the reason.
Nothing is retried because it failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memos import metrics, prompts
from memos.errors import BadCompletion, ModelError
from memos.models.base import ChatMessage, Completion
from memos.models.extractive import is_chinese
from memos.models.hf.model import Answer, HFModel
from memos.models.hf.sampling import Sampling
from memos.models.structured import fitted, mismatch, read_object, split_thought

TIMEOUT_S = 120.0
TOKENS_MAX = 4_096
RAW_CHARS_MAX = 64 * 1024


class HFChat:
    """Fulfils `memos.models.base.LLM`. Thread-safe. `seed`: of the first draw; None draws anew each time."""

    def __init__(
        self,
        model: HFModel,
        *,
        timeout_s: float = TIMEOUT_S,
        tokens_max: int = TOKENS_MAX,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        self.model = model
        self._timeout_s = timeout_s
        self._tokens_max = tokens_max
        self._sampling = Sampling(temperature, top_p, seed)
        self._stop = tuple(stop)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def base_url(self) -> str:
        """Where it runs."""
        return f"{self.model.device} of this process"

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
        """One reply; with a schema at most one more call, to mend the first. Raises ModelUnavailable (it took
        too long, or failed), ModelRefused (too long a chat), BadCompletion."""
        until = self.model.now() + (timeout_s or self._timeout_s)

        def asked(chat: Sequence[ChatMessage]) -> tuple[str, Answer]:
            left_s = max(0.0, until - self.model.now())
            answer = self._answer(chat, max_tokens, left_s, temperature, top_p)
            return "".join(self._counted(answer)), answer

        if schema is None:
            text, answer = asked(messages)
            if not text.strip():
                raise BadCompletion("the model gave an empty reply", text)
            return _completion(text, answer, calls=1)
        first = _with_schema(messages, schema)
        text, answer = asked(first)
        try:
            return _completion(text, answer, calls=1, parsed=_parsed(text, answer, schema))
        except ValueError as error:
            fault = str(error)
        again, said = asked([*first, *_mending(text, fault, messages)])
        try:
            return _completion(again, said, calls=2, parsed=_parsed(again, said, schema))
        except ValueError as error:
            raise BadCompletion(
                f"asked twice, the reply is not what was asked for: {error}", f"{text}\n\n{again}"
            ) from error

    def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Iterator[str]:
        """The reply in pieces."""
        answer = self._answer(messages, max_tokens, timeout_s or self._timeout_s, temperature, top_p)
        yield from self._counted(answer)

    def _answer(
        self,
        messages: Sequence[ChatMessage],
        max_tokens: int | None,
        timeout_s: float,
        temperature: float | None,
        top_p: float | None,
    ) -> Answer:
        usual = self._sampling
        return self.model.answer(
            self.model.text.ids(messages, opening=True),
            max_tokens=min(max_tokens or self._tokens_max, self._tokens_max),
            sampling=Sampling(
                usual.temperature if temperature is None else temperature,
                usual.top_p if top_p is None else top_p,
                usual.seed,
            ),
            timeout_s=timeout_s,
            stop=self._stop,
        )

    def _counted(self, answer: Answer) -> Iterator[str]:
        """The pieces; the call is counted when it ends, however it ends."""
        started, outcome = self.model.now(), "ok"
        try:
            yield from answer
        except ModelError:
            outcome = "failed"
            raise
        finally:
            metrics.MODEL_CALLS.add(model=self.name, outcome=outcome)
            metrics.MODEL_CALL_SECONDS.observe(self.model.now() - started, model=self.name)
            metrics.MODEL_TOKENS.add(answer.tokens_in, model=self.name, direction="in")
            metrics.MODEL_TOKENS.add(answer.tokens_out, model=self.name, direction="out")


def _completion(text: str, answer: Answer, *, calls: int, parsed: dict[str, Any] | None = None) -> Completion:
    reasoning, said = split_thought(text)
    return Completion(
        said,
        parsed,
        reasoning,
        answer.tokens_in,
        answer.tokens_out,
        answer.tokens_cached,
        {"calls": calls, "finish_reason": answer.finish_reason},
    )


def _with_schema(messages: Sequence[ChatMessage], schema: Mapping[str, Any]) -> list[ChatMessage]:
    told = prompts.load("json_reply", _language(messages))
    text = told.substitute(schema=json.dumps(schema, ensure_ascii=False)).strip()
    if messages and messages[0].role == "system":  # many chat templates take one system message, the first
        first = ChatMessage("system", f"{messages[0].content}\n\n{text}", messages[0].images)
        return [first, *messages[1:]]
    return [ChatMessage("system", text), *messages]


def _mending(said: str, fault: str, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    asked = prompts.load("json_mend", _language(messages)).substitute(fault=fault).strip()
    return [
        ChatMessage("assistant", said.strip()[:RAW_CHARS_MAX] or "(empty)"),
        ChatMessage("user", asked),
    ]


def _parsed(text: str, answer: Answer, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The object of a reply. ValueError says what is wrong with it."""
    try:
        found = read_object(split_thought(text)[1])
    except ValueError as error:
        if answer.finish_reason == "length":
            raise ValueError("it was cut off at the limit of its length") from error
        raise
    kept: dict[str, Any] = fitted(found, schema)
    fault = mismatch(kept, schema)
    if fault:
        raise ValueError(fault)
    return kept


def _language(messages: Sequence[ChatMessage]) -> prompts.Language:
    return "zh" if any(is_chinese(message.content) for message in messages[-1:]) else "en"
