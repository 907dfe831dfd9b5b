"""What happens while a question is answered, as typed events in the order they are to be shown.

A stream is: Status("0"), Status("1"), Reference (the first few), Preference, Reference (all), then
optionally Status("reasoning"), Reasoning…, Status("2"), then Text…, Reused (when a model answered), Time,
Suggestion and always End.
Failure may stand anywhere before End; it carries no traceback but the trace id that finds one in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memos.retrieval.request import Hit


@dataclass(frozen=True, slots=True)
class Status:
    """Where the turn is: "0" understood, "1" searching, "reasoning" and "2" around the reasoning."""

    stage: Literal["0", "1", "reasoning", "2"]


@dataclass(frozen=True, slots=True)
class Reference:
    """Memories that were recalled, best first."""

    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Preference:
    """What is known of the user's preferences, as Markdown; empty when nothing is."""

    markdown: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How the answer comes about: the model's own reasoning, or how memory was quoted."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds for the whole turn. `speed_improvement` stays None until something measures it."""

    total_time: float
    speed_improvement: str | None = None


@dataclass(frozen=True, slots=True)
class Reused:
    """What of the prompt the model need not have read again (see docs/activation.md).

    predicted: tokens by our estimate. reused, prompt: as the server tells; None, 0 where it does not.
    """

    predicted: int
    reused: int | None
    prompt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Questions that memory could answer next."""

    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """The turn could not be finished."""

    message: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class End:
    """Nothing follows."""


ChatEvent = Status | Reference | Preference | Reasoning | Text | Reused | Time | Suggestion | Failure | End
