"""Blocks in the memory of one process."""

from __future__ import annotations

import pytest

from memos.errors import VersionConflict
from memos.memory.activation.base import MissReason
from memos.memory.activation.index import Block, ChatReuse
from memos.memory.activation.volatile import VolatileBlocks
from memos.testing import ManualClock


def test_the_first_writer_of_a_version_wins() -> None:
    """A second change of the same version is refused, as a store refuses it."""
    blocks = VolatileBlocks(ManualClock())
    first = blocks.put_block(Block("n", "u", ("c",), "en"))
    assert first.version == 1
    blocks.put_block(first)
    with pytest.raises(VersionConflict):
        blocks.put_block(first)


def test_chats_are_counted_and_a_user_is_forgotten() -> None:
    """Hits, misses and what is untold are told apart; a forgotten user leaves nothing."""
    blocks = VolatileBlocks(ManualClock())
    blocks.put_block(Block("n", "u", ("c",), "en"))
    blocks.note_chat("n", ChatReuse(10, 8, 20))
    blocks.note_chat("n", ChatReuse(10, 0, 20, MissReason.NOT_REUSED))
    blocks.note_chat("n", ChatReuse(10, None, 0, MissReason.UNTOLD))
    [block] = blocks.blocks(cube_id="c")
    counts = block.counts
    assert (block.chats, counts.hits, counts.misses, counts.told, counts.reused) == (3, 1, 1, 2, 8)
    assert counts.last_miss == "not_reused"
    assert blocks.blocks(user_id="other") == []
    assert blocks.forget_user("u") == 1 and blocks.block("n") is None
