"""What the language model is told, so that the beginning of one turn's prompt is that of the next.

First the system message: the caller's system text, the rules, and the memory block (`memos.memory.activation.block`),
which stay the same bytes as long as what they hold does. Then history. What changes with each question comes
last, in the user's message: today's date, which memories of the block are most relevant now, the memories
recalled for this question that do not stand in the block, preferences, and the question. No memory twice.

Everything stands within a token budget (estimated, see `memory.token_count`): the rules, the caller's
system text and the question always; then the block, cut at its end where it must be; then preferences, then
memories from the best on (at least what history leaves), then history from the newest turn back. `Prompt`
says what is in it and what was left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from memos.memory.activation.base import Layout
from memos.memory.activation.block import header_of
from memos.memory.activation.lines import LINE, line_of, quoted, said_at
from memos.memory.item import MemoryItem
from memos.memory.token_count import count_tokens
from memos.models.base import ChatMessage
from memos.models.extractive import is_chinese
from memos.prompts import Language, load
from memos.retrieval.request import Hit

if TYPE_CHECKING:
    from memos.mem_chat.chat import ChatQuery
    from memos.memory.activation.block import Prepared

T = TypeVar("T")

HISTORY_MESSAGES_MAX = 20
TOKENS_MAX = 6_000
BLOCK_SHARE = 0.5  # of the budget that the lines of a block may take, slack included
PREFERENCE_SHARE = 0.15  # of what rules, block and question leave
HISTORY_SHARE = 0.4  # what history may take from memories
SUGGESTIONS_MAX = 3
NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages, oldest first, the memories that stand in them, and in words what did not fit.

    layout: the system message as a prefix that can be kept; `messages[1:]` is what follows it.
    """

    messages: tuple[ChatMessage, ...]
    memories: tuple[MemoryItem, ...]
    layout: Layout
    left_out: tuple[str, ...] = ()


def language_of(question: str) -> Language:
    """The language of what is set around a question."""
    return "zh" if is_chinese(question) else "en"


def prompt_of(
    query: ChatQuery,
    hits: Sequence[Hit],
    preferences: Sequence[Hit],
    *,
    today: datetime,
    tokens_max: int = TOKENS_MAX,
    block: Prepared | None = None,
) -> Prompt:
    """The prompt. `hits` are best first; beside the question they stand in the order they were said."""
    language = language_of(query.query)
    history = query.history[-HISTORY_MESSAGES_MAX:]
    layout = block.layout if block is not None else Layout(NOBODY, header_of(query.system_prompt, language))
    bare = _context(query, (), (), (), today=today)
    left = max(0, tokens_max - count_tokens(layout.header) - count_tokens(bare))
    standing, layout, spent = _standing(block, layout, left)
    left -= spent
    marks = {} if block is None else block.marks
    known = {item.id for item in standing}
    rank = () if block is None else tuple(m for m in block.rank if m in {marks[one] for one in known})
    rank = _raised(rank, [marks[hit.item.id] for hit in hits if hit.item.id in known])
    left -= count_tokens(_relevant(rank, language))
    outside = [hit for hit in hits if hit.item.id not in known]
    liked, spent = _fitting(preferences, lambda hit: hit.item.memory, int(left * PREFERENCE_SHARE))
    left -= spent
    wanted = sum(count_tokens(turn.content) for turn in history)
    found, spent = _fitting(outside, memory_line, left - min(wanted, int(left * HISTORY_SHARE)))
    left -= spent
    newest, _ = _fitting(history[::-1], lambda turn: turn.content, left, gaps=False)
    given = len(outside) + (len(block.items) if block is not None else 0)
    left_out = [
        f"{all_of - kept} of {all_of} {what} did not fit into the prompt"
        for all_of, kept, what in (
            (len(preferences), len(liked), "preferences"),
            (given, len(found) + len(standing), "memories"),
            (len(history), len(newest), "turns of history"),
        )
        if kept < all_of
    ]
    messages = (
        ChatMessage("system", layout.text),
        *reversed(newest),
        ChatMessage("user", _context(query, rank, found, liked, today=today)),
    )
    memories = (*(hit.item for hit in found), *standing)
    return Prompt(messages, memories, layout, tuple(left_out))


def _standing(
    block: Prepared | None, layout: Layout, tokens_max: int
) -> tuple[tuple[MemoryItem, ...], Layout, int]:
    """As much of the beginning of the block as fits: what is kept ready of it stays usable."""
    if block is None:
        return (), layout, 0
    spent = count = 0
    for resident in block.block.state.residents[: len(block.items)]:
        if spent + resident.tokens > tokens_max:
            break
        spent += resident.tokens
        count += 1
    return block.items[:count], replace(layout, entries=layout.entries[:count]), spent


def _raised(rank: tuple[int, ...], first: Sequence[int]) -> tuple[int, ...]:
    """The marks with those of what was recalled for this question in front."""
    return tuple(dict.fromkeys([*first, *rank]))


RELEVANT_MAX = 5  # marks named as most relevant


def _relevant(rank: Sequence[int], language: Language) -> str:
    if not rank:
        return ""
    named = ", ".join(f"m{mark}" for mark in rank[:RELEVANT_MAX])
    return f"目前最相关：{named}。" if language == "zh" else f"Most relevant now: {named}."


def _context(
    query: ChatQuery, rank: Sequence[int], found: Sequence[Hit], liked: Sequence[Hit], *, today: datetime
) -> str:
    """The user's message: what bears on this question alone, then the question."""
    language = language_of(query.query)
    lines = [memory_line(hit) for hit in sorted(found, key=lambda hit: said_at(hit.item))]
    heading = "与此问题有关的其他记忆" if language == "zh" else "More memories, found for this question"
    text = load("chat_context", language).substitute(
        today=f"{today.astimezone():%Y-%m-%d (%A)}",
        relevant=_relevant(rank, language),
        memories="\n".join([f"\n{heading}", *lines]) if lines else "",
        preferences="\n" + preference_markdown(liked, query.query) if liked else "",
    )
    about = re.sub(r"\n{3,}", "\n\n", text).strip()
    return f"{about}\n\n{'问题' if language == 'zh' else 'Question'}\n{query.query}"


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
    return LINE + line_of(hit.item)


def preference_markdown(preferences: Sequence[Hit], question: str) -> str:
    """The preferences as a Markdown list under a heading; empty when there are none."""
    if not preferences:
        return ""
    heading = "## 用户偏好" if is_chinese(question) else "## What the user prefers"
    return "\n".join([heading, *(LINE + quoted(hit.item.memory) for hit in preferences)])


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
