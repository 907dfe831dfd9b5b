"""What a comment on an answer changes in the memories, where rules are not certain. The prompt is `feedback_reading`.

The model names memories by their places and says what is true now. A place that does not exist, a text
that is not made of the comment and the memories, an order, a correction of nothing: each is dropped. What
remains is carried out by the same code as the corrections that rules find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from memos.mem_scheduler.model_steps.lines import gives_orders, is_grounded, lines_of
from memos.memory.extract import Derived, derive
from memos.memory.feedback import CONTRADICTED, CORRECTIONS_MAX, Correction, CorrectionKind
from memos.memory.item import MemoryItem
from memos.models.ask import Answer, ask, language_of, numbered, places, quoted
from memos.models.base import LLM

STEP = "feedback_reading"
MEMORIES_MAX = 40
TEXT_CHARS_MAX = 600

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "changes": {
            "type": "array",
            "maxItems": CORRECTIONS_MAX,
            "items": {
                "type": "object",
                "properties": {
                    "action": {"type": "string", "enum": ["correct", "retract", "supplement", "reinforce"]},
                    "targets": {"type": "array", "items": {"type": "integer"}, "maxItems": MEMORIES_MAX},
                    "text": {"type": "string"},
                },
                "required": ["action", "targets", "text"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["changes"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class CorrectionsRead:
    """What the model found, and how much of it was dropped."""

    answer: Answer
    corrections: tuple[Correction, ...] = ()
    dropped: int = 0


def is_certain(corrections: Sequence[Correction]) -> bool:
    """Whether rules understood the comment: each change names its memories, or is a fact of its own.

    A sentence that contradicts a memory without being read as a fact is in doubt: rules could only quote it.
    """
    return bool(corrections) and all(
        one.derived is not None or (one.target_ids and one.reason != CONTRADICTED) for one in corrections
    )


def read_corrections(
    llm: LLM,
    feedback: str,
    items: Sequence[MemoryItem],
    *,
    last_answer: str,
    today: datetime,
) -> CorrectionsRead:
    """Ask about the comment. Raises RateLimited."""
    shown = list(items[:MEMORIES_MAX])
    language = language_of(feedback)
    answer = ask(
        llm,
        STEP,
        {
            "today": f"{today.astimezone():%Y-%m-%d (%A)}",
            "memories": numbered(lines_of(shown), language),
            "answer": quoted(last_answer) or "-",
            "feedback": quoted(feedback),
        },
        SCHEMA,
        language=language,
    )
    if not answer.usable:
        return CorrectionsRead(answer)
    found: list[Correction] = []
    dropped = 0
    for row in answer.fields["changes"]:
        one, lost = _correction(row, shown, feedback, last_answer, today)
        dropped += lost
        if one is not None and len(found) < CORRECTIONS_MAX:
            found.append(one)
    return CorrectionsRead(answer, tuple(found), dropped)


def _correction(
    row: Mapping[str, Any], items: Sequence[MemoryItem], feedback: str, last_answer: str, when: datetime
) -> tuple[Correction | None, int]:
    """The change, and how many parts of it were dropped."""
    kind = CorrectionKind(row["action"])
    named, lost = places(row["targets"], len(items))
    targets = tuple(items[place].id for place in named)
    text = " ".join(str(row["text"]).split())[:TEXT_CHARS_MAX]
    if kind in (CorrectionKind.RETRACT, CorrectionKind.REINFORCE):
        if not targets:
            return None, lost + 1
        return Correction(kind, targets, "", f"the model reads it as: {kind.value}"), lost
    said = [feedback, last_answer, *(items[place].memory for place in named)]
    said += [name for place in named for name in items[place].participants] + ["The user", "用户"]
    if not text or gives_orders(text) or not is_grounded(text, said):
        return None, lost + 1
    if kind is CorrectionKind.CORRECT and not targets:
        return None, lost + 1
    if kind is CorrectionKind.SUPPLEMENT:
        targets = ()
    derived = _as_fact(text, items, named, when)
    return Correction(kind, targets, text, f"the model reads it as: {kind.value}", text, derived), lost


def _as_fact(text: str, items: Sequence[MemoryItem], named: Sequence[int], when: datetime) -> Derived | None:
    """The text as a fact of a slot, where rules read it as one: then it displaces other values too."""
    speakers = [name for place in named for name in items[place].participants]
    turn = MemoryItem(
        "feedback", "", "", text, role="user", participants=tuple(speakers[:1]), happened_at=when
    )
    found = [one for one in derive([turn]).derived if one.fact is not None and one.text == text]
    return found[0] if len(found) == 1 else None
