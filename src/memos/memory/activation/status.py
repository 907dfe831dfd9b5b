"""What activation memory of a cube is at: for people, the command line and the dashboard. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from memos.memory.activation.index import Block, BlockIndex, KeptPrefix, PrefixIndex
from memos.memory.token_count import count_tokens


@dataclass(frozen=True, slots=True)
class PrefixStatus:
    """A kept prefix. usable: memories at its beginning that did not change; of `memories`."""

    backend: str
    tokens: int
    bytes: int
    memories: int
    usable: int
    built_at: datetime | None


@dataclass(frozen=True, slots=True)
class BlockStatus:
    """One reader's block. Times are UTC; None: never.

    tokens: of the block, estimated. hit_rate: hits by hits and misses, None before the first. Chats whose
    server does not tell are in `chats` alone. reused_tokens of prompt_tokens: over the chats that were told.
    update_reuse: the share of the block's tokens that its last change left as they were.
    """

    user_id: str
    cube_ids: tuple[str, ...]
    memories: int
    tokens: int
    chats: int
    changes: int
    hits: int
    misses: int
    hit_rate: float | None
    last_miss: str | None
    last_miss_at: float | None
    predicted_tokens: int
    reused_tokens: int
    prompt_tokens: int
    update_reuse: float | None
    changed_at: datetime | None
    used_at: datetime | None
    prefix: PrefixStatus | None


def status_of(
    index: BlockIndex, *, cube_id: str | None = None, user_id: str | None = None
) -> list[BlockStatus]:
    """Of all blocks, or those of a cube or reader; used last first."""
    blocks = index.blocks(cube_id=cube_id, user_id=user_id)
    prefixes: dict[str, KeptPrefix] = {}
    if blocks and isinstance(index, PrefixIndex):
        for one in index.prefixes(namespaces=[block.namespace for block in blocks]):
            prefixes.setdefault(one.namespace, one)
    return [_status(block, prefixes.get(block.namespace)) for block in blocks]


def _status(block: Block, prefix: KeptPrefix | None) -> BlockStatus:
    counts = block.counts
    looked = counts.hits + counts.misses
    residents = block.state.residents
    return BlockStatus(
        user_id=block.user_id,
        cube_ids=block.cube_ids,
        memories=len(residents),
        tokens=count_tokens(block.header) + sum(one.tokens for one in residents),
        chats=block.chats,
        changes=block.changes,
        hits=counts.hits,
        misses=counts.misses,
        hit_rate=counts.hits / looked if looked else None,
        last_miss=counts.last_miss or None,
        last_miss_at=counts.last_miss_at,
        predicted_tokens=counts.predicted,
        reused_tokens=counts.reused,
        prompt_tokens=counts.read,
        update_reuse=counts.update_reuse,
        changed_at=block.changed_at,
        used_at=block.used_at,
        prefix=None
        if prefix is None
        else PrefixStatus(
            prefix.backend,
            prefix.tokens,
            prefix.bytes,
            len(prefix.item_ids),
            prefix.sound,
            prefix.built_at,
        ),
    )
