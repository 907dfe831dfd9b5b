"""Summaries of groups of memories, several in one question. The prompt is `memory_summary`.

A summary is kept only if it is made of its group: all its numbers and names and most of its words stand
there, it is shorter than the group, and it gives no orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from memos.mem_scheduler.model_steps.lines import gives_orders, is_grounded, lines_of
from memos.memory.signature import signature
from memos.memory.summary import Group
from memos.memory.token_count import count_tokens
from memos.models.ask import Answer, ask, language_of
from memos.models.base import LLM

STEP = "memory_summary"
GROUPS_MAX = 4  # of one question
TOKENS_MAX = 200
GROUNDED_MIN = 0.6

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "summaries": {
            "type": "array",
            "maxItems": 2 * GROUPS_MAX,
            "items": {
                "type": "object",
                "properties": {"group": {"type": "integer"}, "text": {"type": "string"}},
                "required": ["group", "text"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["summaries"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class SummariesRead:
    """The texts by the group's place, and how many were dropped."""

    answer: Answer
    texts: Mapping[int, str] = field(default_factory=dict)
    dropped: int = 0


def summarise(llm: LLM, groups: Sequence[Group], *, today: datetime) -> SummariesRead:
    """Ask about at most `GROUPS_MAX` groups. Raises RateLimited."""
    asked = list(groups[:GROUPS_MAX])
    language = language_of(*(item.memory for group in asked for item in group.parts))
    user = "用户" if language == "zh" else "the user"
    blocks = [
        "\n".join([f"[{place}] {group.subject or user}", *(f"- {line}" for line in lines_of(group.parts))])
        for place, group in enumerate(asked)
    ]
    answer = ask(
        llm,
        STEP,
        {"today": f"{today.astimezone():%Y-%m-%d (%A)}", "groups": "\n\n".join(blocks)},
        SCHEMA,
        language=language,
    )
    if not answer.usable:
        return SummariesRead(answer)
    texts: dict[int, str] = {}
    rows = answer.fields["summaries"]
    for row in rows:
        place, text = int(row["group"]), " ".join(str(row["text"]).split())
        if 0 <= place < len(asked) and place not in texts and _is_made_of(text, asked[place]):
            texts[place] = text
    return SummariesRead(answer, texts, len(rows) - len(texts))


def _is_made_of(text: str, group: Group) -> bool:
    said = [*(item.memory for item in group.parts), group.subject, "The user", "用户"]
    said += [name for item in group.parts for name in item.participants]
    said += [f"{item.happened_at or item.created_at:%Y %B %d %Y-%m-%d}" for item in group.parts]
    tokens = count_tokens(text)
    if not text or tokens > min(TOKENS_MAX, sum(count_tokens(item.memory) for item in group.parts)):
        return False
    names = set(signature(text).names)
    return (
        not gives_orders(text)
        and is_grounded(text, said, share_min=GROUNDED_MIN)
        and names <= set(signature("\n".join(said)).names)
    )
