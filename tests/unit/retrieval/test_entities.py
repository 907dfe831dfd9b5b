"""Names in texts: found by rules, in one form, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memos.retrieval.entities import ENTITIES_MAX, NAME_CHARACTERS_MAX, canonical, entities


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("we walked over the Golden Gate Bridge with Melanie", ("golden gate bridge", "melanie")),
        ("Yesterday was fun. Nothing else happened. Wow!", ()),
        ("Toby barked. I like Toby.", ("toby",)),
        ("Toby barked.", ()),
        ("Caroline Smith called", ("caroline smith", "smith")),
        ("Visited Lisbon today", ("visited lisbon", "lisbon")),
        ("I read Lord of the Rings and The Lord of the Rings", ("lord of the rings",)),
        ("books by J. K. Rowling and Ludwig van Beethoven", ("j. k. rowling", "ludwig van beethoven")),
        ("iPhone 15 and NASA, in the US", ("iphone 15", "nasa", "us")),
        ("at Max's Cafe", ("max", "cafe")),
        ("In May and on Monday I'm off, I've said", ()),
        ("THIS IS ALL SHOUTED IN PARIS", ()),
        ('I saw "Becoming Nicole" and she said "I do not know".', ("becoming nicole",)),
        ("she whispered “call me later” and left", ()),
        ("我在看《三体》和「流浪地球」", ("三体", "流浪地球")),
        ("ask @Anna_B about #PyCon2024", ("@anna_b", "#pycon2024")),
        ("see https://www.Example.com:8080/a?b=C and www.test.org.", ("example.com", "test.org")),
        ("mail Bob.Lee@acme.example now", ("bob.lee@acme.example", "acme.example")),
        ("heute mit Frau Anna Schmidt und dem Hund im Park", ("frau anna schmidt",)),
        ("", ()),
    ],
)
def test_names_of_a_text(text: str, wanted: tuple[str, ...]) -> None:
    """Capitals that no sentence start explains, titles, signs and addresses; no dates, speech or shouting."""
    assert entities(text) == wanted


def test_participants_are_recognised_in_any_case_under_their_full_name() -> None:
    """A first name stands for the participant, also in lower case and at a sentence start."""
    people = ("Caroline Smith", "Melanie")
    assert entities("Hey caroline! Melanie is here.", people) == ("caroline smith", "melanie")
    assert entities("Bye Melanie", people) == ("melanie",)
    assert entities("carolines and melaniesque things", people) == ()
    assert entities("我和小明去了", ("小明",)) == ("小明",)


def test_a_shared_first_name_names_nobody() -> None:
    """Where two participants have the first name, only full names are links."""
    people = ("Anna Lee", "Anna Berg")
    assert entities("anna came", people) == ()
    assert entities("anna lee came", people) == ("anna lee",)


@given(
    st.text(st.characters(), max_size=80)
    | st.lists(
        st.sampled_from(
            [
                "Anna",
                "of",
                "the",
                '"',
                "《",
                "》",
                "@x",
                "#",
                "https://",
                "a@b.c",
                ". ",
                " ",
                "'s",
                "\x00",
                "\ud800",
                "İ",
            ]
        ),
        max_size=20,
    ).map("".join),
    st.lists(st.text(max_size=10), max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_any_text_gives_bounded_canonical_names(text: str, people: list[str]) -> None:
    """Whatever the text: few names, each once, none empty or over-long, all in canonical form."""
    found = entities(text, people)
    assert len(found) == len(set(found)) <= ENTITIES_MAX
    assert all(0 < len(name) <= NAME_CHARACTERS_MAX for name in found)
    assert entities(text, people) == found


def test_long_texts_are_cut_and_names_counted() -> None:
    """A text with thousands of names gives the first sixteen."""
    text = " and ".join(f"City{number}x" for number in range(5_000))
    assert entities(f"from {text}") == tuple(f"city{number}x" for number in range(ENTITIES_MAX))


def test_the_canonical_form_joins_spellings() -> None:
    """Case, width, spaces, apostrophes and a leading article do not make another name."""
    assert {canonical(name) for name in ("The  Blue House", "blue house’s", "ＢＬＵＥ House.")} == {
        "blue house"
    }
