"""Memories as the API shows them: `{id, memory, ref_id, metadata}`, in one place for every route."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from memos.memory.item import MemoryItem, Source


def memory_shape(item: MemoryItem, *, relativity: float | None = None) -> dict[str, Any]:
    """The documented form of one memory; `relativity` says how well it fits a query, 0..1."""
    ref_id = f"[{item.id[:8]}]"
    metadata: dict[str, Any] = {
        "id": item.id,
        "memory": item.memory,
        "ref_id": ref_id,
        "user_id": item.user_id,
        "cube_id": item.cube_id,
        "session_id": item.session_id,
        "memory_type": item.kind.value,
        "status": item.status.value,
        "version": item.version,
        "key": item.key,
        "tags": list(item.tags),
        "entities": list(item.links),
        "participants": list(item.participants),
        "role": item.role,
        "background": item.background,
        "confidence": item.confidence,
        "sources": [_source(source) for source in item.sources],
        "usage": item.use_count,
        "created_at": _moment(item.created_at),
        "updated_at": _moment(item.updated_at),
        "memory_time": _moment(item.happened_at or item.created_at),
        "happened_at": _moment(item.happened_at),
        "valid_until": _moment(item.valid_until),
        "info": dict(item.extra),
    }
    if relativity is not None:
        metadata["relativity"] = round(relativity, 6)
    return {"id": item.id, "memory": item.memory, "ref_id": ref_id, "metadata": metadata}


def buckets(**found: list[dict[str, Any]]) -> dict[str, Any]:
    """The documented buckets of an answer with memories; those not given are empty."""
    shape: dict[str, Any] = {
        name: [] for name in ("text_mem", "act_mem", "para_mem", "pref_mem", "tool_mem", "skill_mem")
    }
    return shape | {"pref_note": "", "pref_string": ""} | found


def _source(source: Source) -> dict[str, Any]:
    shape = {
        "type": source.type,
        "role": source.role,
        "message_id": source.message_id,
        "item_id": source.item_id,
        "content": source.content,
        "name": source.name,
        "chat_time": _moment(source.at),
    }
    return {name: value for name, value in shape.items() if value}


def _moment(when: datetime | None) -> str | None:
    return when.isoformat() if when else None
