"""Blocks in this process's memory, for a store that keeps none: stable until the process ends, for it alone.

What a restart or another process needs is lost with it, and no prefix can be kept: nothing here would learn
that a memory in it changed. Each chat still writes its lines from live items. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from memos.clock import Clock, utc
from memos.errors import VersionConflict
from memos.memory.activation.index import Block, BlockIndex, ChatReuse
from memos.memory.store import MemoryStore

BLOCKS_MAX = 1_000


class VolatileBlocks:
    """Fulfils `BlockIndex`. Keeps the `BLOCKS_MAX` that were used last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._blocks: OrderedDict[str, Block] = OrderedDict()

    def block(self, namespace: str) -> Block | None:
        with self._lock:
            return self._blocks.get(namespace)

    def put_block(self, block: Block) -> Block:
        now = utc(self._clock.now())
        with self._lock:
            known = self._blocks.get(block.namespace)
            if (known.version if known else 0) != block.version:
                raise VersionConflict(f"the block has changed since version {block.version}; read it again")
            stored = replace(
                block,
                version=block.version + 1,
                unbroken=len(block.state.residents),
                chats_since_change=0,
                changes=block.changes + (block.version > 0),
                changed_at=now,
                used_at=block.used_at or now,
            )
            self._keep(stored)
            return stored

    def note_chat(self, namespace: str, outcome: ChatReuse) -> None:
        with self._lock:
            block = self._blocks.get(namespace)
            if block is None:
                return
            now = self._clock.now()
            self._keep(
                replace(
                    block,
                    chats=block.chats + 1,
                    chats_since_change=block.chats_since_change + 1,
                    used_at=utc(now),
                    counts=block.counts.after(outcome, now),
                )
            )

    def blocks(self, *, cube_id: str | None = None, user_id: str | None = None) -> list[Block]:
        with self._lock:
            newest = list(reversed(self._blocks.values()))
        return [
            one
            for one in newest
            if (cube_id is None or cube_id in one.cube_ids) and (user_id is None or user_id == one.user_id)
        ]

    def forget_user(self, user_id: str) -> int:
        """Forget the user's blocks; returns how many there were."""
        with self._lock:
            theirs = [name for name, one in self._blocks.items() if one.user_id == user_id]
            for name in theirs:
                del self._blocks[name]
        return len(theirs)

    def _keep(self, block: Block) -> None:
        self._blocks[block.namespace] = block
        self._blocks.move_to_end(block.namespace)
        while len(self._blocks) > BLOCKS_MAX:
            self._blocks.popitem(last=False)


def index_of(store: MemoryStore, clock: Clock) -> BlockIndex:
    """Where blocks of this store are kept: in it, if it can."""
    return store if isinstance(store, BlockIndex) else VolatileBlocks(clock)
