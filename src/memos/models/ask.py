"""One question to a language model whose answer has to be a JSON object: a prompt file, values, a schema.

`ask` never fails because of the model: an answer that cannot be had is an `Answer` with a `fault`, and
the caller's rules do the work. Two things come out as errors: RateLimited, because only the caller knows
whether it can wait, and ConfigError for a prompt that is not there. What is in the answer is still a
model's word: ids, numbers and texts are for the caller to check.

A prompt file holds what is asked, a line `---`, and what it is asked about. Values that others wrote go
to the second part, line by line through `quoted`, so that none of them can look like another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memos import prompts
from memos.errors import BadCompletion, ModelError, RateLimited
from memos.models.base import LLM, ChatMessage
from memos.models.extractive import is_chinese
from memos.models.structured import fitted, mismatch

LINE_CHARS_MAX = 1_200
FAULT_CHARS_MAX = 400


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question. Without a `fault`, `fields` fits the schema."""

    step: str  # the prompt that was asked
    model: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""  # why there is no answer; "" when there is one
    raw: str = ""  # the reply that could not be used, as it came
    calls: int = 0  # requests made, a mending one included
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def usable(self) -> bool:
        return not self.fault


def ask(
    llm: LLM,
    step: str,
    values: Mapping[str, str],
    schema: Mapping[str, Any],
    *,
    language: prompts.Language,
    max_tokens: int | None = None,
) -> Answer:
    """Ask the prompt `step`. Raises RateLimited; every other failure is the answer's `fault`."""
    about, question = prompts.parts(step, language)
    messages = [
        ChatMessage("system", about.substitute(values).strip()),
        ChatMessage("user", question.substitute(values).strip()),
    ]
    try:
        done = llm.complete(messages, schema=schema, max_tokens=max_tokens, temperature=0.0)
    except RateLimited:
        raise
    except BadCompletion as error:
        return Answer(step, llm.name, fault=_fault(error), raw=error.raw, calls=2)
    except ModelError as error:
        return Answer(step, llm.name, fault=_fault(error), calls=1)
    counts: dict[str, Any] = {
        "calls": int(done.extra.get("calls", 1)),
        "tokens_in": done.tokens_in,
        "tokens_out": done.tokens_out,
    }
    if done.parsed is None:
        return Answer(step, llm.name, fault="the reply holds no object", raw=done.text, **counts)
    fields = fitted(dict(done.parsed), schema)
    misfit = mismatch(fields, schema)  # an LLM of somebody else's may not have checked
    if misfit:
        return Answer(step, llm.name, fault=misfit[:FAULT_CHARS_MAX], raw=done.text, **counts)
    return Answer(step, llm.name, fields, **counts)


def language_of(*texts: str) -> prompts.Language:
    """The language in which to ask about the texts: that of the first one that says something."""
    first = next((text for text in texts if text.strip()), "")
    return "zh" if is_chinese(first) else "en"


def quoted(text: str, *, chars_max: int = LINE_CHARS_MAX) -> str:
    """`text` on one bounded line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= chars_max else flat[: chars_max - 1] + "…"


def numbered(lines: Sequence[str], language: prompts.Language) -> str:
    """The lines with their places, from 0, as the schema's numbers mean them."""
    if not lines:
        return "（无）" if language == "zh" else "(none)"
    return "\n".join(f"[{place}] {line}" for place, line in enumerate(lines))


def places(value: Any, count: int) -> tuple[list[int], int]:
    """The valid places of a list that a model gave, each once, and how many entries were dropped."""
    given = value if isinstance(value, list) else []
    kept: dict[int, None] = {}
    for one in given:
        whole = isinstance(one, int) or (isinstance(one, float) and one.is_integer())
        if whole and not isinstance(one, bool) and 0 <= one < count:
            kept[int(one)] = None
    return list(kept), len(given) - len(kept)


def _fault(error: ModelError) -> str:
    return f"{type(error).__name__}: {error}"[:FAULT_CHARS_MAX]
