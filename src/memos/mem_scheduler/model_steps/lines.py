"""Memories as the numbered lines of a prompt, and what of a model's words may be kept. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memos.memory.item import MemoryItem
from memos.memory.quarantine import inspect
from memos.memory.signature import signature
from memos.models.ask import quoted
from memos.retrieval.keywords import analyse

MEMORY_CHARS_MAX = 400
GROUNDED_MIN = 0.7  # of a text's words that stand in what it is made of


def line_of(item: MemoryItem) -> str:
    """One memory with its date and who said it, on one bounded line."""
    when = (item.happened_at or item.created_at).astimezone()
    who = ", ".join(item.participants) or item.role
    return f"{when:%Y-%m-%d} {f'{who}: ' if who else ''}{quoted(item.memory, chars_max=MEMORY_CHARS_MAX)}"


def lines_of(items: Iterable[MemoryItem]) -> list[str]:
    return [line_of(item) for item in items]


def gives_orders(text: str) -> bool:
    """Whether a text that a model wrote must not be kept: it holds an order or a secret."""
    return bool(inspect(text, role="assistant"))


def is_grounded(text: str, said: Sequence[str], *, share_min: float = GROUNDED_MIN) -> bool:
    """Whether a text that a model wrote is made of what was said: all its numbers, most of its words."""
    together = "\n".join(said)
    if not set(signature(text).numbers) <= set(signature(together).numbers) | _digits(together):
        return False
    words = frozenset(analyse(text))
    if not words:
        return False
    return len(words & frozenset(analyse(together))) >= share_min * len(words)


def _digits(text: str) -> set[str]:
    return {"".join(ch for ch in word if ch.isdigit()) for word in text.split()} - {""}
