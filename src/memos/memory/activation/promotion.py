"""Whether a prefix is worth preparing, and how. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memos.memory.activation.base import Layout
from memos.memory.activation.index import Block, KeptPrefix

PREFIX_TOKENS_MIN = 256
QUERIES_MIN = 2.0
TTL_S = 30 * 86_400.0
EXTEND_REUSE_MIN = 0.3  # below it extending costs more than building: attention is masked over the kept part


@dataclass(frozen=True, slots=True)
class PromotionRules:
    """prefix_tokens_min: shorter ones are not prepared. queries_min: expected before the block changes again.
    extend_reuse_min: share of the tokens that must still hold for the old prefix to be extended. ttl_s: a prefix
    that nobody used for so long is removed; 0: none is."""

    prefix_tokens_min: int = PREFIX_TOKENS_MIN
    queries_min: float = QUERIES_MIN
    extend_reuse_min: float = EXTEND_REUSE_MIN
    ttl_s: float = TTL_S


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do. common: memories at the beginning that the kept prefix holds as well; reuse: their share
    of the tokens, header included. settled: nothing is left to do until working memory changes again."""

    how: Literal["skip", "build", "extend"]
    reason: str
    common: int = 0
    reuse: float = 0.0
    settled: bool = True


def expected_queries(block: Block) -> float:
    """Chats before the block changes again: as many as came between changes so far, at least those since."""
    return max(float(block.chats_since_change), block.chats / (block.changes + 1))


def is_expired(kept: KeptPrefix, block: Block | None, *, at: float, ttl_s: float) -> bool:
    """Whether nobody chatted over the block for `ttl_s` seconds, nor was the prefix made since."""
    times = [kept.built_at, block.used_at if block is not None else None]
    used_at = max((moment.timestamp() for moment in times if moment is not None), default=at)
    return 0 < ttl_s < at - used_at


def common_entries(kept: KeptPrefix, layout: Layout) -> int:
    """How many memories the layout begins with that the prefix begins with, unchanged; -1: another header."""
    if kept.header != layout.header:
        return -1
    count = 0
    for entry, item_id, version in zip(
        layout.entries[: kept.sound], kept.item_ids, kept.versions, strict=False
    ):
        if (entry.item_id, entry.version) != (item_id, version):
            break
        count += 1
    return count


def decide(
    block: Block,
    layout: Layout,
    kept: KeptPrefix | None,
    *,
    tokens: tuple[int, ...],
    fingerprint: str,
    extends: bool,
    rules: PromotionRules,
    forced: bool = False,
) -> Decision:
    """tokens: of each part of the layout, the header first. forced: somebody asked for it by name."""
    total = sum(tokens)
    if not layout.entries:
        return Decision("skip", "no_memories")
    usable = kept if kept is not None and not kept.doomed and kept.fingerprint == fingerprint else None
    common = -1 if usable is None else common_entries(usable, layout)
    if usable is not None and common == len(layout.entries) == len(usable.item_ids):
        return Decision("skip", "unchanged", common, 1.0)
    if total < rules.prefix_tokens_min:
        return Decision("skip", "too_short")
    if not forced and expected_queries(block) < rules.queries_min:
        return Decision("skip", "rarely_asked", settled=False)
    if usable is None or common < 0:
        why = "first" if kept is None else "other_header" if usable is not None else "other_model"
        return Decision("build", why)
    reuse = sum(tokens[: common + 1]) / total
    if extends and reuse >= rules.extend_reuse_min:
        return Decision("extend", "changed", common, reuse)
    return Decision("build", "changed", common, reuse)
