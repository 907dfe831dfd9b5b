"""Kept prefixes and caches as callers see them: what each is made of and how large it is, never its tensors."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from pydantic import BaseModel, Field

from memos.memory.activation.index import KeptPrefix, PrefixIndex


class ActivationMemoryMetadata(BaseModel):
    """Of one cache. `memory_ids` and `versions` go together, in order; times are ISO 8601 in UTC, "" for none."""

    memory_type: str = "ActivationMemory"
    mem_cube_id: str = ""
    user_id: str = Field("", description="the reader it is kept for; none: whoever holds the cube object")
    backend: str = Field("", description="what keeps it: vllm, sglang, llama_cpp, transformers, kv_cache")
    tokens: int = 0
    bytes: int = 0
    memory_ids: list[str] = Field(default_factory=list, description="the memories it was made of")
    versions: list[int] = Field(default_factory=list, description="of each, then")
    usable_memories: int = Field(0, description="at its beginning, unchanged since")
    created_at: str = ""


class ActivationMemoryItem(BaseModel):
    """One cache as callers see it. `memory` says in words what it is."""

    id: str
    memory: str
    metadata: ActivationMemoryMetadata = Field(default_factory=ActivationMemoryMetadata)


class CubeCaches:
    """What runtimes keep ready over one cube, as `act_mem` of a cube object. Reads only; thread-safe."""

    def __init__(self, cube_id: str, index: PrefixIndex) -> None:
        self.cube_id = cube_id
        self._index = index

    def get_all(
        self, *, user_id: str | None = None, within: Collection[str] | None = None
    ) -> list[ActivationMemoryItem]:
        """Newest first. user_id: of this reader alone; within: of blocks over these cubes alone."""
        blocks = {
            one.namespace: one
            for one in self._index.blocks(cube_id=self.cube_id, user_id=user_id)
            if within is None or set(one.cube_ids) <= set(within)
        }
        if not blocks:
            return []
        return [_described(one, self.cube_id) for one in self._index.prefixes(namespaces=list(blocks))]

    def get(self, cache_id: str) -> ActivationMemoryItem | None:
        """One of them."""
        return next((one for one in self.get_all() if one.id == cache_id), None)


def _described(prefix: KeptPrefix, cube_id: str) -> ActivationMemoryItem:
    count = len(prefix.item_ids)
    return ActivationMemoryItem(
        id=prefix.id,
        memory=f"{count} memories as a prefix of {prefix.tokens} tokens ({prefix.backend})",
        metadata=ActivationMemoryMetadata(
            mem_cube_id=cube_id,
            user_id=prefix.user_id,
            backend=prefix.backend,
            tokens=prefix.tokens,
            bytes=prefix.bytes,
            memory_ids=list(prefix.item_ids),
            versions=list(prefix.versions),
            usable_memories=prefix.sound,
            created_at=iso(prefix.built_at),
        ),
    )


def iso(moment: datetime | None) -> str:
    """As metadata show it."""
    return "" if moment is None else moment.isoformat()
