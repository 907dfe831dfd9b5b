"""Cube objects: a view of one cube, never of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memos import context
from memos.errors import InvalidInput, ItemGone, ItemNotFound
from memos.memory.cube import NaiveMemCube
from memos.memory.indexer import Indexer
from memos.memory.sqlite import SqliteStore
from memos.memory.textual import TextualMemoryItem
from memos.retrieval.hybrid import HybridRetriever
from memos.testing import ManualClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "memory.db", clock=ManualClock())
    yield opened
    opened.close()


def cube(store: SqliteStore, cube_id: str) -> NaiveMemCube:
    retriever = HybridRetriever(store, None, clock=ManualClock())
    return NaiveMemCube(cube_id, store=store, indexer=Indexer(None), retriever=retriever, clock=ManualClock())


def test_texts_mappings_and_items_can_be_added_and_found(store: SqliteStore) -> None:
    """Whatever form a memory is given in, it is stored in this cube and recalled by its words."""
    text_mem = cube(store, "c").text_mem
    item = TextualMemoryItem(id="ignored", memory="The barn is red.")
    item.metadata.tags, item.metadata.session_id = ["farm"], "s"
    ids = text_mem.add(["The lamp is green.", {"memory": "The boat is blue."}, item], user_id="u")
    assert text_mem.search("what is green", user_id="u")[0].memory == "The lamp is green."
    stored = text_mem.get(ids[2])
    assert (stored.memory, stored.metadata.tags, stored.metadata.session_id) == (
        "The barn is red.",
        ["farm"],
        "s",
    )
    assert stored.metadata.mem_cube_id == "c" and stored.metadata.user_id == "u"
    assert {one.id for one in text_mem.get_all()} == set(ids)
    assert text_mem.add([]) == []


def test_a_cube_shows_nothing_of_another(store: SqliteStore) -> None:
    """Reading, searching and deleting stop at the border of the cube."""
    mine, theirs = cube(store, "mine").text_mem, cube(store, "theirs").text_mem
    [item_id] = theirs.add(["The code is 4711."], user_id="v")
    assert mine.get_all() == [] and mine.search("code 4711") == []
    with pytest.raises(ItemNotFound, match="mine"):
        mine.get(item_id)
    with pytest.raises(ItemNotFound):
        mine.delete([item_id])
    assert theirs.get(item_id).memory == "The code is 4711."


def test_working_memory_is_replaced_as_a_whole(store: SqliteStore) -> None:
    """The given memories, best first and without repeats, are the working memory afterwards; others go."""
    text_mem = cube(store, "c").text_mem
    a, b, c = text_mem.add(["first", "second", "third"], user_id="u")
    text_mem.replace_working_memory([a, b])
    text_mem.replace_working_memory([text_mem.get(c), a, c, "not-an-id"])
    assert [one.id for one in text_mem.get_working_memory()] == [c, a]
    text_mem.replace_working_memory([])
    assert text_mem.get_working_memory() == []


def test_a_deleted_memory_is_gone(store: SqliteStore) -> None:
    """Deleting takes a memory out of listing, search and working memory."""
    text_mem = cube(store, "c").text_mem
    [item_id] = text_mem.add(["The gate is open."], user_id="u")
    text_mem.replace_working_memory([item_id])
    text_mem.delete([item_id])
    assert text_mem.get_all() == text_mem.search("gate") == text_mem.get_working_memory() == []
    with pytest.raises(ItemGone):
        text_mem.get(item_id)
    text_mem.delete([])


def test_an_added_memory_belongs_to_the_user_of_the_task(store: SqliteStore) -> None:
    """Without a user of its own, a memory is the current task's user's."""
    text_mem = cube(store, "c").text_mem
    with context.bound(user="ann"):
        [item_id] = text_mem.add(["A note."])
    assert text_mem.get(item_id).metadata.user_id == "ann"


@pytest.mark.parametrize("bad", ["a text", ["  "], [{"text": "x"}], [5]])
def test_what_is_no_list_of_memories_is_refused(store: SqliteStore, bad: object) -> None:
    """A bare text, an empty memory or another type is refused, and nothing of the call is stored."""
    text_mem = cube(store, "c").text_mem
    with pytest.raises(InvalidInput):
        text_mem.add(["good", *bad] if isinstance(bad, list) else bad)  # type: ignore[arg-type]
    assert text_mem.get_all() == []


def test_a_cube_has_an_id_and_no_other_areas(store: SqliteStore) -> None:
    """What this cube does not have is None, and an impossible id is refused."""
    one = cube(store, "c:/🐶")
    assert one.cube_id == one.text_mem.cube_id == "c:/🐶"
    assert (one.para_mem, one.pref_mem) == (None, None)
    assert one.act_mem is not None and one.act_mem.get_all() == [] and one.act_mem.get("none") is None
    assert "c:/🐶" in repr(one)
    with pytest.raises(InvalidInput):
        cube(store, "")
    with pytest.raises(InvalidInput):
        one.text_mem.delete("not a list")
