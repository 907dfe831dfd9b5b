"""Which segments make room: the last of a prefix first, garbage before what is held, the longest unused
before what was used just now. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """One segment file. held: some prefix needs it; pinned: it may not go now."""

    folder: str
    chain: str
    parent: str
    bytes: int
    used_at: float
    held: bool
    pinned: bool = False


def evicted(kept: Sequence[Kept], *, bytes_max: int) -> list[Kept]:
    """What has to go, in order, until the rest is within `bytes_max`; less where all the rest is pinned."""
    over = sum(one.bytes for one in kept) - bytes_max
    by_name = {(one.folder, one.chain): one for one in kept}
    children = Counter((one.folder, one.parent) for one in kept if one.parent)
    leaves = [_rank(one) for one in kept if not children[(one.folder, one.chain)] and not one.pinned]
    heapq.heapify(leaves)
    victims: list[Kept] = []
    while over > 0 and leaves:
        _, _, folder, chain = heapq.heappop(leaves)
        victim = by_name[(folder, chain)]
        victims.append(victim)
        over -= victim.bytes
        above = (folder, victim.parent)
        if victim.parent and above in by_name:
            children[above] -= 1
            if not children[above] and not by_name[above].pinned:
                heapq.heappush(leaves, _rank(by_name[above]))
    return victims


def _rank(one: Kept) -> tuple[bool, float, str, str]:
    return (one.held, one.used_at, one.folder, one.chain)
