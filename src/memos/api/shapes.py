"""Memories as the API shows them: `{id, memory, ref_id, metadata}`, in one place for every route."""

from __future__ import annotations

from typing import Any

from memos.memory.item import MemoryItem
from memos.memory.textual import TextualMemoryItem


def memory_shape(item: MemoryItem, *, relativity: float | None = None) -> dict[str, Any]:
    """The documented form of one memory; `relativity` says how well it fits a query, 0..1.

    The metadata repeat id, text and ref_id, because a `reference` frame shows nothing but metadata.
    """
    rounded = None if relativity is None else round(relativity, 6)
    shape = TextualMemoryItem.from_item(item, relativity=rounded).model_dump(mode="json")
    named = {"id": item.id, "memory": item.memory, "ref_id": f"[{item.id[:8]}]"}
    return named | {"metadata": named | shape["metadata"]}


def buckets(**found: list[dict[str, Any]]) -> dict[str, Any]:
    """The documented buckets of an answer with memories; those not given are empty."""
    shape: dict[str, Any] = {
        name: [] for name in ("text_mem", "act_mem", "para_mem", "pref_mem", "tool_mem", "skill_mem")
    }
    return shape | {"pref_note": "", "pref_string": ""} | found
