"""What rows of blocks and of kept prefixes say, the same in every database. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from memos.memory.activation.block import shown
from memos.memory.activation.index import Block, BlockCounts, KeptPrefix
from memos.memory.activation.layout import LayoutState, Resident, digest_of
from memos.memory.activation.lines import line_of
from memos.memory.item import MemoryItem
from memos.memory.relational.rows import moment


def block_of(
    row: Sequence[Any], residents: Sequence[tuple[int, str, int, int, str, int]], cube_ids: Iterable[str]
) -> Block:
    """row: no, namespace, user_id, language, header, version, next_mark, chats, chats_since_change, changes,
    changed_at, used_at, counts. residents: place, id, version, tokens, digest, mark, by place."""
    return Block(
        namespace=row[1],
        user_id=row[2],
        cube_ids=tuple(cube_ids),
        language=row[3],
        header=row[4],
        version=row[5],
        state=LayoutState(tuple(Resident(*one[1:]) for one in residents), row[6]),
        unbroken=next((number for number, one in enumerate(residents) if one[0] != number), len(residents)),
        chats=row[7],
        chats_since_change=row[8],
        changes=row[9],
        changed_at=moment(row[10]),
        used_at=moment(row[11]),
        counts=BlockCounts(**json.loads(row[12])),
    )


def block_written(block: Block, residents: Iterable[Resident], now: int) -> Block:
    """The block as it stands after `put`: with those of its residents that are live."""
    kept = tuple(residents)
    return replace(
        block,
        version=block.version + 1,
        state=LayoutState(kept, block.state.next_mark),
        unbroken=len(kept),
        chats_since_change=0,
        changes=block.changes + (block.version > 0),
        changed_at=moment(now),
    )


def still_says(resident: Resident, item: MemoryItem) -> bool:
    """Whether a live item's line is the one that the block was planned with.

    The version rises with each use as well, so a newer one has its line compared: an item that was edited or
    corrected since it was read does not enter, one that was only used does.
    """
    if item.version == resident.version:
        return True
    return shown(item) and digest_of(line_of(item)) == resident.digest


def prefix_of(row: Sequence[Any], items: Sequence[tuple[str, int]]) -> KeptPrefix:
    """row: no, id, namespace, user_id, backend, fingerprint, header, tokens, bytes, ends, extra, sound, doomed,
    built_at. items: id and version, by place."""
    return KeptPrefix(
        id=row[1],
        namespace=row[2],
        user_id=row[3],
        backend=row[4],
        fingerprint=row[5],
        header=row[6],
        tokens=row[7],
        bytes=row[8],
        ends=tuple(json.loads(row[9])),
        extra=json.loads(row[10]),
        item_ids=tuple(one[0] for one in items),
        versions=tuple(one[1] for one in items),
        sound=row[11],
        doomed=row[12],
        built_at=moment(row[13]),
    )
