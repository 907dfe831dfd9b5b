"""Memories as the API shows them: `{id, memory, ref_id, metadata}`, in one place for every route."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memos.memory.item import MemoryItem
from memos.memory.textual import TextualMemoryItem
from memos.retrieval.request import Way


def memory_shape(
    item: MemoryItem, *, relativity: float | None = None, ways: Sequence[Way] = ()
) -> dict[str, Any]:
    """The documented form of one memory; `relativity` says how well it fits a query, 0..1.

    `ways`: by which stages of recall it was found, each with the memory and the name that led to it.

    The metadata repeat id, text and ref_id, because a `reference` frame shows nothing but metadata.
    """
    rounded = None if relativity is None else round(relativity, 6)
    shape = TextualMemoryItem.from_item(item, relativity=rounded).model_dump(mode="json")
    named = {"id": item.id, "memory": item.memory, "ref_id": f"[{item.id[:8]}]"}
    found_by = {"found_by": [way_shape(way) for way in ways]} if ways else {}
    return named | {"metadata": named | shape["metadata"] | found_by}


def way_shape(way: Way) -> dict[str, str]:
    """`{stage, from, by}`, without what is empty."""
    told = {"stage": way.stage, "from": way.from_id, "by": way.by}
    return {name: value for name, value in told.items() if value}


def buckets(**found: list[dict[str, Any]]) -> dict[str, Any]:
    """The documented buckets of an answer with memories; those not given are empty."""
    shape: dict[str, Any] = {
        name: [] for name in ("text_mem", "act_mem", "para_mem", "pref_mem", "tool_mem", "skill_mem")
    }
    return shape | {"pref_note": "", "pref_string": ""} | found


def reuse_shape(predicted: int, reused: int | None, prompt: int, reason: str) -> dict[str, Any]:
    """What of a prompt was reused. `reused_tokens` is null and `prompt_tokens` 0 where the server does not say."""
    return {
        "predicted_tokens": predicted,
        "reused_tokens": reused,
        "prompt_tokens": prompt,
        "reason": reason,
    }
