"""How a text is worded."""

from __future__ import annotations

import pytest

from memos.retrieval.wording import asks, asks_several, substance


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What do you do on Sundays?", True),
        ("I like tea. And you? ", True),
        ('He said "why?"', True),
        ("你呢？", True),
        ("Look at this! Nice, right? [shares a dog on a beach]", True),
        ("Why not? I like tea.", False),
        ("I like tea.", False),
        ("", False),
    ],
)
def test_a_text_asks_when_it_ends_by_asking(text: str, expected: bool) -> None:
    """Only the end counts; a remark in brackets after the question does not hide it."""
    assert asks(text) is expected


def test_substance_grows_with_length_within_bounds() -> None:
    """Nothing is -1, a common sentence about 0, a long text 1, in scripts with and without spaces."""
    words = [substance("word " * count) for count in (0, 4, 15, 40, 200)]
    assert words == sorted(words)
    assert words[0] == -1.0
    assert abs(words[2]) < 0.1
    assert words[-1] == 1.0
    assert substance("我" * 200) > substance("我" * 20)


@pytest.mark.parametrize(
    "text",
    [
        "Which books has Tim read?",
        "How many pets does James have?",
        "What kind of games has he tried?",
        "In what ways is she active?",
        "What are her hobbies?",
        "What does she do to relax? What do they like to do?",
        "Which city have both of them visited?",
        "我去过哪些城市？",
        "我有几只猫？",
    ],
)
def test_a_query_for_several_things_is_known(text: str) -> None:
    """Plurals after the question word, counts, kinds and "both" ask for several things."""
    assert asks_several(text)


@pytest.mark.parametrize(
    "text",
    [
        "When did she go to the museum?",
        "How many days did the trip take?",
        "What is the name of his dog?",
        "Where does James live?",
        "我住在哪个城市？",
        "",
    ],
)
def test_a_query_for_one_thing_is_known(text: str) -> None:
    """A name, a place, a length of time are one thing."""
    assert not asks_several(text)
