"""Blocks and kept prefixes: what changes an item takes it out of both, in the same transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from memos.errors import VersionConflict
from memos.memory.activation.block import MemoryBlocks, Prepared
from memos.memory.activation.index import Block, BlockCounts, ChatReuse, DoomPrefixes, KeptPrefix, PutPrefix
from memos.memory.activation.layout import LayoutState, Resident, digest_of
from memos.memory.activation.lines import line_of
from memos.memory.item import ItemStatus
from memos.memory.store import SetStatus, TouchItems, UpdateItem

AT = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


def block(*item_ids: str, version: int = 0, namespace: str = "ns") -> Block:
    residents = tuple(Resident(one, 1, 10, f"digest {one}", mark) for mark, one in enumerate(item_ids))
    return Block(
        namespace=namespace,
        user_id="ann",
        cube_ids=("cube", "other"),
        language="en",
        header="header",
        version=version,
        state=LayoutState(residents, len(residents)),
        unbroken=len(residents),
        chats=0,
        chats_since_change=0,
        changes=0,
        changed_at=AT,
        used_at=AT,
        counts=BlockCounts(),
    )


def prefix(*item_ids: str, name: str = "p1") -> KeptPrefix:
    return KeptPrefix(
        id=name,
        namespace="ns",
        user_id="ann",
        backend="hf",
        fingerprint="f",
        header="header",
        tokens=30,
        bytes=1_000,
        ends=tuple(10 * (n + 1) for n in range(len(item_ids))),
        extra={"folder": "x"},
        item_ids=item_ids,
        versions=(1,) * len(item_ids),
        sound=len(item_ids),
        doomed="",
        built_at=AT,
    )


def residents(store: Any) -> list[str]:
    found = store.block("ns")
    return [one.item_id for one in found.state.residents]


def test_a_block_comes_back_as_it_was_put(store: Any, make: Any) -> None:
    """Order, marks, cubes and header are kept; only who read the newest version replaces it."""
    store.apply([make.add("a", "b"), make.add("x", cube_id="other")])
    assert store.block("ns") is None
    first = store.put_block(block("b", "x", "a", "nobody"))
    assert (first.version, first.cube_ids) == (1, ("cube", "other"))
    found = store.block("ns")
    assert residents(store) == ["b", "x", "a"]
    assert (found.header, found.unbroken, found.state.next_mark) == ("header", 3, 4)
    with pytest.raises(VersionConflict):
        store.put_block(block("a"))
    assert store.put_block(replace(first, state=LayoutState(first.state.residents[:1], 4))).version == 2
    with pytest.raises(VersionConflict):
        store.put_block(first)
    assert residents(store) == ["b"]
    assert [one.namespace for one in store.blocks(cube_id="other")] == ["ns"]
    assert store.blocks(cube_id="nowhere") == store.blocks(user_id="bob") == []


def test_what_changes_an_item_takes_it_out(store: Any, make: Any) -> None:
    """Archived or edited it leaves block and prefix at once; a use of it changes nothing."""
    store.apply([make.add("a", "b", "c")])
    store.put_block(block("a", "b", "c"))
    store.apply([PutPrefix(prefix("a", "b", "c"), "built")])
    (kept,) = store.prefixes()
    assert (kept.item_ids, kept.sound, dict(kept.extra)) == (("a", "b", "c"), 3, {"folder": "x"})
    store.apply([TouchItems(("a",), "used")])
    assert residents(store) == ["a", "b", "c"]
    (item,) = store.get(["b"])
    store.apply([UpdateItem(make.with_terms(replace(item, memory="another")), None, "corrected")])
    found = store.block("ns")
    assert (residents(store), found.unbroken) == (["a", "c"], 1)
    assert store.prefixes()[0].sound == 1
    store.apply([SetStatus(("a",), ItemStatus.ARCHIVED, "old")])
    assert residents(store) == ["c"]
    assert store.prefixes()[0].sound == 0


@pytest.mark.parametrize("how", ["edited", "corrected", "used"])
def test_what_changed_since_it_was_read_does_not_enter(store: Any, make: Any, how: str) -> None:
    """A block that was planned before an edit or a correction is stored without that memory; a use of it
    between the two costs nothing."""
    store.apply([make.add("a", "b")])
    planned = block("a", "b")
    lines = {one.id: digest_of(line_of(one)) for one in store.get(["a", "b"])}
    held = tuple(replace(one, digest=lines[one.item_id]) for one in planned.state.residents)
    planned = replace(planned, state=replace(planned.state, residents=held))
    (item,) = store.get(["b"])
    if how == "used":
        store.apply([TouchItems(("b",), "used")])
    elif how == "edited":
        store.apply([UpdateItem(make.with_terms(replace(item, memory="another")), None, "edited")])
    else:
        corrected = replace(item, extra={"corrected_by": ["a"]})
        store.apply([UpdateItem(make.with_terms(corrected), None, "corrected")])
    stored = store.put_block(planned)
    wanted = ["a", "b"] if how == "used" else ["a"]
    assert [one.item_id for one in stored.state.residents] == residents(store) == wanted


class EditsBeforeStoring:
    """A store in which somebody edits a memory between the planning of a block and its storing, once."""

    def __init__(self, store: Any, edit: Callable[[], None]) -> None:
        self._store = store
        self._edit: Callable[[], None] | None = edit

    def block(self, namespace: str) -> Block | None:
        found: Block | None = self._store.block(namespace)
        return found

    def put_block(self, planned: Block) -> Block:
        edit, self._edit = self._edit, None
        if edit is not None:
            edit()
        stored: Block = self._store.put_block(planned)
        return stored

    def note_chat(self, namespace: str, outcome: ChatReuse) -> None:
        self._store.note_chat(namespace, outcome)

    def blocks(self, **of: Any) -> list[Block]:
        found: list[Block] = self._store.blocks(**of)
        return found


@pytest.mark.parametrize("deleted", [False, True], ids=["edited", "deleted"])
@pytest.mark.parametrize("stood", [True, False], ids=["stood there", "new"])
def test_no_block_holds_the_text_from_before_a_change(
    store: Any, make: Any, stood: bool, deleted: bool
) -> None:
    """A change between planning and storing: neither the block nor the chat has the old text, and a prefix
    that was made of it is not sound."""
    store.apply([make.add("a", "b", "c")])
    plain = MemoryBlocks(store, store, tokens_max=1_000)

    def prepared(blocks: MemoryBlocks, *ids: str) -> Prepared:
        return blocks.prepare("ann", ["cube"], store.get(ids), language="en", system_prompt="")

    if stood:
        prepared(plain, "a", "b")
    old = store.get(["b"])[0]

    def change() -> None:
        changed = UpdateItem(make.with_terms(replace(old, memory="new text")), None, "edited")
        store.apply([SetStatus(("b",), ItemStatus.DELETED, "asked for") if deleted else changed])

    shown = prepared(MemoryBlocks(EditsBeforeStoring(store, change), store, tokens_max=1_000), "a", "b", "c")
    left = ["a", "c"] if deleted else ["a", "c", "b"]
    assert [one.item_id for one in shown.layout.entries] == left
    assert ("new text" in shown.layout.text) is not deleted
    found = store.block(shown.layout.namespace)
    lines = {one.id: digest_of(line_of(one)) for one in store.get(left)}
    assert {one.item_id: one.digest for one in found.state.residents} == lines
    made = replace(prefix("a", "b", "c"), namespace=shown.layout.namespace)
    store.apply([PutPrefix(made, "built")])
    assert store.prefixes()[0].sound == 1


def test_prefixes_are_doomed_and_forgotten(store: Any, make: Any) -> None:
    """A newer prefix dooms the one before; doomed ones are listed until they are forgotten."""
    store.apply([make.add("a")])
    store.put_block(block("a"))
    store.apply([PutPrefix(prefix("a"), "built")])
    store.apply([PutPrefix(prefix("a", name="p2"), "rebuilt")])
    assert [one.id for one in store.prefixes()] == ["p2"]
    assert [(one.id, one.doomed) for one in store.prefixes(doomed=True)] == [("p1", "rebuilt")]
    store.apply([DoomPrefixes("hf", ("p2",), "gone")])
    assert store.prefixes() == []
    assert store.forget_prefixes("hf", ["p1", "p2", "unknown"]) == 2
    assert store.prefixes(doomed=True) == []


def test_erasing_a_user_takes_their_blocks(store: Any, make: Any) -> None:
    """The user's blocks are gone, and a prefix with a memory of theirs is doomed without their name."""
    store.apply([make.add("a")])
    store.put_block(block("a"))
    store.apply([PutPrefix(prefix("a"), "built")])
    counts = store.erase("ann")
    assert (counts["activation_blocks"], counts["activation_prefixes"]) == (1, 1)
    assert store.block("ns") is None
    assert [(one.user_id, one.doomed) for one in store.prefixes(doomed=True)] == [("", "erased")]
