"""What the language model is told: rules, today's date, memories with their dates, preferences, history.

Everything stands within a token budget (estimated, see `memory.token_count`): the rules, the caller's
system text and the question always; then preferences, then memories from the best on (at least what
history leaves), then history from the newest turn back. `Prompt` says what is in it and what was left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from memos.memory.token_count import count_tokens
from memos.models.base import ChatMessage
from memos.models.extractive import is_chinese
from memos.prompts import load
from memos.retrieval.request import Hit

if TYPE_CHECKING:
    from memos.mem_chat.chat import ChatQuery

T = TypeVar("T")

HISTORY_MESSAGES_MAX = 20
TOKENS_MAX = 6_000
PREFERENCE_SHARE = 0.15  # of what rules and question leave
HISTORY_SHARE = 0.4  # what history may take from memories
SUGGESTIONS_MAX = 3


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages, oldest first, the memories that stand in them, and in words what did not fit."""

    messages: tuple[ChatMessage, ...]
    memories: tuple[Hit, ...]
    left_out: tuple[str, ...] = ()


def prompt_of(
    query: ChatQuery,
    hits: Sequence[Hit],
    preferences: Sequence[Hit],
    *,
    today: datetime,
    tokens_max: int = TOKENS_MAX,
) -> Prompt:
    """The prompt. `hits` are best first; in the prompt they stand in the order they were said."""
    chinese = is_chinese(query.query)

    def system(memories: Sequence[Hit], liked: Sequence[Hit]) -> str:
        lines = [memory_line(hit) for hit in sorted(memories, key=lambda hit: _when(hit))]
        text = load("chat_answer", "zh" if chinese else "en").substitute(
            today=f"{today.astimezone():%Y-%m-%d (%A)}",
            memories="\n".join(lines) or ("（无）" if chinese else "(none)"),
            preferences=preference_markdown(liked, query.query),
        )
        return (f"{query.system_prompt}\n\n{text}" if query.system_prompt else text).strip()

    history = query.history[-HISTORY_MESSAGES_MAX:]
    left = max(0, tokens_max - count_tokens(system((), ())) - count_tokens(query.query))
    liked, spent = _fitting(preferences, lambda hit: hit.item.memory, int(left * PREFERENCE_SHARE))
    left -= spent
    wanted = sum(count_tokens(turn.content) for turn in history)
    memories, spent = _fitting(hits, memory_line, left - min(wanted, int(left * HISTORY_SHARE)))
    left -= spent
    newest, _ = _fitting(history[::-1], lambda turn: turn.content, left, gaps=False)
    left_out = [
        f"{len(given) - len(kept)} of {len(given)} {what} did not fit into the prompt"
        for given, kept, what in (
            (preferences, liked, "preferences"),
            (hits, memories, "memories"),
            (history, newest, "turns of history"),
        )
        if len(kept) < len(given)
    ]
    messages = (
        ChatMessage("system", system(memories, liked)),
        *reversed(newest),
        ChatMessage("user", query.query),
    )
    return Prompt(messages, tuple(memories), tuple(left_out))


def _fitting(
    given: Sequence[T], text_of: Callable[[T], str], tokens_max: int, *, gaps: bool = True
) -> tuple[list[T], int]:
    """The first of `given` that fit into `tokens_max` together, and their tokens; without `gaps` it ends
    at the first that does not fit."""
    kept: list[T] = []
    spent = 0
    for one in given:
        tokens = count_tokens(text_of(one)) + 1  # the line break, or the frame of a message
        if spent + tokens <= tokens_max:
            kept.append(one)
            spent += tokens
        elif not gaps:
            break
    return kept, spent


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
