"""Message shapes: everything legal is read, everything impossible is refused by its place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memos.errors import InvalidInput
from memos.memory.turns import MESSAGES_MAX, Skipped, Turn, parse_conversation


def test_a_string_is_one_turn_of_the_user() -> None:
    """A bare string is what the user said."""
    assert parse_conversation("I moved to Lisbon.").turns == (Turn(0, "user", "I moved to Lisbon."),)


def test_all_fields_of_a_message_are_read() -> None:
    """Role, name, id and time of a message all reach the turn."""
    [turn] = parse_conversation(
        [
            {
                "role": "assistant",
                "content": "Noted.",
                "name": "Ada",
                "message_id": "m:1",
                "chat_time": "2024-02-03T04:05:06Z",
            }
        ]
    ).turns
    assert turn == Turn(
        0, "assistant", "Noted.", name="Ada", message_id="m:1", at=datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
    )


def test_text_parts_are_joined_and_other_parts_are_reported() -> None:
    """Of multimodal content the text is kept and everything else is listed with its place and type."""
    conversation = parse_conversation(
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look at"},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                    "this garden.",
                    {"type": "text", "text": "  "},
                ],
            },
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"type": "text", "text": "A bare part."},
        ]
    )
    assert [(turn.index, turn.role, turn.text) for turn in conversation.turns] == [
        (0, "user", "Look at\nthis garden."),
        (3, "user", "A bare part."),
    ]
    assert [skip.index for skip in conversation.skipped] == [0, 0, 1, 1, 2]
    assert "image_url" in conversation.skipped[0].reason
    assert conversation.skipped[-1] == Skipped(2, "a tool call without text")


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (None, "NoneType"),
        (5, "int"),
        ({"role": "user", "content": "x"}, "put it in a list"),
        (b"bytes", "bytes"),
        ([], "empty list"),
        ("", "messages is empty"),
        ("  \n", "messages is empty"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
        (["ok", 7], r"messages\[1\] must be an object"),
        ([{"content": "x"}], r"messages\[0\]\.role is None"),
        ([{"role": "king", "content": "x"}], "role is 'king'; known roles are user"),
        ([{"role": "user"}], r"messages\[0\]\.content is empty"),
        ([{"role": "user", "content": ""}], r"messages\[0\]\.content is empty"),
        ([{"role": "user", "content": 3}], "must be text or a list of parts, not int"),
        ([{"role": "user", "content": [3]}], r"content\[0\] must be text or an object"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], "must be a string, not int"),
        ([{"role": "user", "content": "x", "name": "a\nb"}], r"messages\[0\]\.name holds a control"),
        ([{"role": "user", "content": "x", "message_id": 5}], r"message_id must be a string"),
        ([{"role": "user", "content": "x", "chat_time": "soon"}], r"messages\[0\]\.chat_time='soon'"),
        ([{"role": "user", "content": "x" * (4 * 1024 * 1024 + 1)}], "at most 4194304"),
        (["x"] * (MESSAGES_MAX + 1), "at most 10000"),
    ],
)
def test_an_impossible_conversation_is_refused_by_place_and_value(messages: object, says: str) -> None:
    """What can never be a conversation raises an error that names the place, the value and the way out."""
    with pytest.raises(InvalidInput, match=says):
        parse_conversation(messages)
