"""Telegrams: which words go, which never do."""

from __future__ import annotations

import re

import pytest

from memos.memory.terse import Brevity, terse
from memos.retrieval.keywords import analyse


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("I have been to the shop, and it was closed.", "shop closed."),
        ("What are you going to do about the roof?", "going roof?"),
        ("I'm not allergic to nuts, I don't eat meat.", "not allergic nuts don't eat meat."),
        ("She will never go there without him.", "will never go without."),
        ("We met before the exam and after lunch.", "met before exam after lunch."),
        ("It leaves at 9:45 on 14 March for $1,200.", "leaves 9:45 14 March $1,200."),
        ("I watched The Lord of the Rings with Will.", "watched The Lord of the Rings Will."),
        ('Have you read "The Old Man and the Sea" yet?', 'read "The Old Man and the Sea"?'),
        ("Melanie's dog is in the US.", "Melanie dog US."),
        ("See https://example.com/a/b?c=1 or ask @anna.", "See https://example.com/a/b?c=1 ask @anna."),
        ("我订了去奥斯陆的机票吗？", "我订去奥斯陆机票？"),
        ("为了目的，我了解了他的房子。", "为了目的我了解他房子。"),
        ("我对坚果不过敏，他没有来。", "我对坚果不过敏他没有来。"),
    ],
)
def test_what_carries_no_subject_goes_and_what_changes_the_sense_stays(text: str, short: str) -> None:
    """Articles, pronouns and auxiliaries go; negation, time, numbers, names, titles and addresses stay."""
    assert terse(text) == short


@pytest.mark.parametrize(
    "text", ["Ich habe das Haus nicht gekauft, weil es zu teuer war.", "Я не люблю это."]
)
def test_other_languages_come_back_as_they_are(text: str) -> None:
    """Where the function words are not known nothing is taken out."""
    assert terse(text) == text


@pytest.mark.parametrize("text", ["", "   ", "...", "I have been there.", "你好吗？的了"])
def test_a_text_of_which_nothing_carries_anything(text: str) -> None:
    """Nothing is raised, and nothing longer comes back."""
    assert len(terse(text)) <= len(text)


def test_what_shades_the_sense_stays_until_every_token_counts() -> None:
    """A supposition, a direction and a limit are kept, but for the barest form."""
    text = "I might only move from Oslo if they turn me down."
    assert terse(text) == "might only move from Oslo if turn down."
    assert terse(text, Brevity.RUN_ON) == "might only move from Oslo if turn down"
    assert terse(text, Brevity.BARE) == "move Oslo turn"


def test_without_stops_only_questions_are_marked() -> None:
    """The ends of sentences can be left out as well; that somebody asked cannot."""
    text = "The roof leaks. Can you fix it? The ladder is in the barn."
    assert terse(text, Brevity.RUN_ON) == "roof leaks fix? ladder barn"
    assert terse(text) == "roof leaks. fix? ladder barn."


@pytest.mark.parametrize(
    "text",
    [
        "Yesterday I took the kids to the museum in Oslo, and they really loved the dinosaurs!",
        "The flight that we booked last week is going to leave at 9:40, so we should not be late.",
    ],
)
def test_the_index_asks_for_the_same_words(text: str) -> None:
    """No term of the lexical index is lost or added in plain prose."""
    assert set(analyse(text)) <= set(analyse(terse(text)))


def test_every_word_stands_in_the_text_and_in_order() -> None:
    """Nothing is rephrased."""
    text = (
        "Well, I've always thought that Clara's cabin near Holmenkollen was the best of them all, haven't I?"
    )
    rest = iter(re.findall(r"\w+", text))
    assert all(word in rest for word in re.findall(r"\w+", terse(text)))


def test_hostile_texts_take_linear_time() -> None:
    """Long runs of quotes, stops, capitals and marks come back; the work is bounded by the length."""
    for sign in ('"A', ". ", "A ", "of ", "?", "[", "'s", "的", "A.", "-a", "http://"):
        assert len(terse(sign * 20_000)) <= 3 * len(sign) * 20_000
