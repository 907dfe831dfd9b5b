"""MemReader in fast mode: one item a turn, nothing lost, nothing invented."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos.errors import ConfigError, InvalidInput
from memos.memory.item import MemoryKind, ReadState
from memos.memory.reader import MemReader, split_text
from memos.testing import EPOCH_S, ManualClock


def reader(text_chars_max: int = 2_000) -> MemReader:
    ids = (f"id-{n}" for n in itertools.count())
    return MemReader(clock=ManualClock(), new_id=lambda: next(ids), text_chars_max=text_chars_max)


def test_every_turn_becomes_one_item_with_its_bare_text() -> None:
    """Text, speaker, role, time, session, place, tags and info of each turn stand in fields of one item."""
    reading = reader().read_messages(
        [
            {"role": "user", "content": "  I moved to Lisbon. ", "chat_time": "2024-02-03T04:05:06Z"},
            {"role": "assistant", "content": "How is it there?", "name": "Ada", "message_id": "m9"},
        ],
        user_id="u",
        cube_id="c",
        session_id="s",
        turn_id="t",
        user_name="Rui",
        first_position=7,
        info={"app": "phone"},
        tags=("travel",),
    )
    first, second = reading.items
    assert (first.memory, first.role, first.participants) == ("I moved to Lisbon.", "user", ("Rui",))
    assert (second.memory, second.role, second.participants) == ("How is it there?", "assistant", ("Ada",))
    assert first.happened_at == datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert second.happened_at is None
    assert [item.position for item in reading.items] == [7, 8]
    assert second.sources[0].message_id == "m9"
    for item in reading.items:
        assert (item.user_id, item.cube_id, item.session_id, item.turn_id) == ("u", "c", "s", "t")
        assert item.raw and item.kind is MemoryKind.LONG_TERM and item.read is ReadState.NONE
        assert item.tags == ("travel",) and item.extra == {"app": "phone"}
        assert item.created_at == datetime.fromtimestamp(EPOCH_S, UTC)
        assert item.sources[0].type == "chat" and item.sources[0].role == item.role
    assert len({item.id for item in reading.items}) == 2


def test_a_role_is_no_name() -> None:
    """Without a name nobody is a participant: the word 'assistant' in a text is not a person."""
    reading = reader().read_messages(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], user_id="u", cube_id="c"
    )
    assert [item.participants for item in reading.items] == [(), ()]


def test_a_long_turn_is_split_at_sentences_into_items_of_one_message() -> None:
    """An over-long turn becomes consecutive items that share the message id and number their parts."""
    text = "First things first. Then the second matter! Is there a third? 最后一句。"
    reading = reader(30).read_messages(text, user_id="u", cube_id="c", info={"k": 1})
    assert [item.memory for item in reading.items] == [
        "First things first.",
        "Then the second matter!",
        "Is there a third? 最后一句。",
    ]
    assert [item.position for item in reading.items] == [0, 1, 2]
    assert len({item.sources[0].message_id for item in reading.items}) == 1
    assert [item.extra for item in reading.items] == [{"k": 1, "part": n, "parts": 3} for n in (1, 2, 3)]


@given(st.text(min_size=1, max_size=400), st.integers(1, 60))
def test_splitting_keeps_every_visible_character_in_order(text: str, chars_max: int) -> None:
    """Whatever the text, no piece is too long or empty and only white space is left out between pieces."""
    pieces = list(split_text(text, chars_max))
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) <= chars_max for piece in pieces)
    assert all(piece.strip() for piece in pieces) or not text.strip()


def test_what_holds_no_text_is_reported_and_the_rest_is_read() -> None:
    """A message without text is in `skipped`, and its neighbours are stored."""
    reading = reader().read_messages(
        [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            {"role": "user", "content": "A picture of my garden."},
        ],
        user_id="u",
        cube_id="c",
    )
    assert [item.memory for item in reading.items] == ["A picture of my garden."]
    assert {skip.index for skip in reading.skipped} == {0}


def test_a_conversation_without_any_text_is_an_error_that_says_why() -> None:
    """When nothing at all would be stored, the caller is told, with the reason of each message."""
    with pytest.raises(InvalidInput, match=r"nothing to remember.*a tool call without text"):
        reader().read_messages(
            [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}], user_id="u", cube_id="c"
        )


def test_a_limit_below_one_is_a_config_error() -> None:
    """A reader that could store no character is refused when it is built."""
    with pytest.raises(ConfigError, match="text_chars_max"):
        MemReader(text_chars_max=0)
