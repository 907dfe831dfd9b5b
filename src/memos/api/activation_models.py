"""Activation memory over HTTP."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic refuses the one of `typing` before Python 3.12

from memos.api.model_base import BaseResponse


class PrefixRow(TypedDict):
    """A prefix that is kept ready. `usable_memories` at its beginning did not change since."""

    backend: str
    tokens: int
    bytes: int
    memories: int
    usable_memories: int
    built_at: str | None


class BlockRow(TypedDict):
    """The block of one reader; `prefix` is null when none is kept. Token counts of chats are sums."""

    user_id: str
    mem_cube_ids: list[str]
    memories: int
    tokens: int
    chats: int
    changes: int
    hits: int
    misses: int
    hit_rate: float | None
    last_miss: str | None
    last_miss_at: str | None
    predicted_tokens: int
    reused_tokens: int
    prompt_tokens: int
    update_reuse: float | None
    changed_at: str | None
    used_at: str | None
    prefix: PrefixRow | None


class ActivationState(TypedDict):
    """Of one cube. `backend` is null when nothing keeps prefixes; `builds`: whether any are prepared.
    `tokens` and `bytes` are those of all kept prefixes."""

    mem_cube_id: str
    backend: str | None
    builds: bool
    tokens: int
    bytes: int
    blocks: list[BlockRow]


class ActivationResponse(BaseResponse[ActivationState]):
    """`{mem_cube_id, backend, builds, tokens, bytes, blocks}`."""
