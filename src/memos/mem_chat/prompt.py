"""What the language model is told: rules, today's date, memories with their dates, preferences, history."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from memos.models.base import ChatMessage
from memos.models.extractive import is_chinese
from memos.prompts import load
from memos.retrieval.request import Hit

if TYPE_CHECKING:
    from memos.mem_chat.chat import ChatQuery

HISTORY_MESSAGES_MAX = 20
SUGGESTIONS_MAX = 3


def prompt_of(
    query: ChatQuery, hits: Sequence[Hit], preferences: Sequence[Hit], *, today: datetime
) -> list[ChatMessage]:
    """The messages for the model, oldest first; memories in the order they were said."""
    chinese = is_chinese(query.query)
    lines = [memory_line(hit) for hit in sorted(hits, key=lambda hit: _when(hit))]
    system = load("chat_answer", "zh" if chinese else "en").substitute(
        today=f"{today.astimezone():%Y-%m-%d (%A)}",
        memories="\n".join(lines) or ("（无）" if chinese else "(none)"),
        preferences=preference_markdown(preferences, query.query),
    )
    if query.system_prompt:
        system = f"{query.system_prompt}\n\n{system}"
    return [
        ChatMessage("system", system.strip()),
        *query.history[-HISTORY_MESSAGES_MAX:],
        ChatMessage("user", query.query),
    ]


def memory_line(hit: Hit) -> str:
    """One memory with its date and speaker, on one line."""
    item = hit.item
    who = ", ".join(item.participants) or item.role
    text = " ".join(item.memory.split())
    return f"- [{_when(hit).astimezone():%Y-%m-%d}]{f' {who}:' if who else ''} {text}"


def preference_markdown(preferences: Sequence[Hit], question: str) -> str:
    """The preferences as a Markdown list under a heading; empty when there are none."""
    if not preferences:
        return ""
    heading = "## 用户偏好" if is_chinese(question) else "## What the user prefers"
    return "\n".join([heading, *(f"- {' '.join(hit.item.memory.split())}" for hit in preferences)])


def suggestions(question: str, hits: Sequence[Hit]) -> tuple[str, ...]:
    """Questions about entities that the recalled memories name and the question does not."""
    chinese = is_chinese(question)
    folded = question.casefold()
    links = dict.fromkeys(
        as_written(link, hit.item.memory)
        for hit in hits
        for link in hit.item.links
        if link.casefold() not in folded
    )
    return tuple(
        f"关于{link}，你还记得什么？" if chinese else f"What do you remember about {link}?"
        for link in list(links)[:SUGGESTIONS_MAX]
    )


def as_written(link: str, text: str) -> str:
    """The link as the text spells it: links are stored folded."""
    found = re.search(re.escape(link), text, re.IGNORECASE)
    return found[0] if found else link


def _when(hit: Hit) -> datetime:
    return hit.item.happened_at or hit.item.created_at
