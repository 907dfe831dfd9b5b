"""Sentences, moods and clauses in English and Chinese."""

from __future__ import annotations

import pytest

from memos.memory.sentences import (
    SENTENCE_CHARS_MAX,
    SENTENCES_MAX,
    Mood,
    clauses,
    is_chinese,
    opened,
    sentences,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("I met Dr. Lee. She is nice!", ["I met Dr. Lee", "She is nice"]),
        ("It costs 9.50 today. Yes", ["It costs 9.50 today", "Yes"]),
        ("我叫小明。我住在上海！", ["我叫小明", "我住在上海"]),
        ("你好！我住在上海；你呢？我喜欢", ["你好", "我住在上海", "你呢", "我喜欢"]),
        ("one\ntwo\n\nthree", ["one", "two", "three"]),
        ("", []),
        ("?!…", []),
        ("So am I. And you", ["So am I", "And you"]),
        ("I\u2019m  here", ["I'm here"]),
    ],
)
def test_sentence_borders(text: str, parts: list[str]) -> None:
    """Full stops of abbreviations and numbers do not end a sentence; line ends and Chinese marks do."""
    assert [sentence.text for sentence in sentences(text)] == parts


@pytest.mark.parametrize(
    ("text", "mood"),
    [
        ("I like tea.", Mood.STATEMENT),
        ("My birthday is on May 8", Mood.STATEMENT),
        ("I like tea?", Mood.QUESTION),
        ("Do you like tea", Mood.QUESTION),
        ("what is my name", Mood.QUESTION),
        ("你喜欢茶吗", Mood.QUESTION),
        ("我是不是对坚果过敏", Mood.QUESTION),
        ("我喜欢茶", Mood.STATEMENT),
        ("If I lived in Paris, I would like it", Mood.SUPPOSITION),
        ("I'd like a coffee", Mood.SUPPOSITION),
        ("Maybe I am allergic to nuts", Mood.SUPPOSITION),
        ("I may move to Rome", Mood.SUPPOSITION),
        ("I think I like her", Mood.SUPPOSITION),
        ("如果我住在北京", Mood.SUPPOSITION),
        ("也许我会搬到上海", Mood.SUPPOSITION),
        ("Bob said I like jazz", Mood.REPORT),
        ("my wife thinks I hate jazz", Mood.REPORT),
        ("他说我喜欢爵士", Mood.REPORT),
        ("Whatever I do, I like tea", Mood.STATEMENT),
    ],
)
def test_moods(text: str, mood: Mood) -> None:
    """Questions, suppositions and reports are told from statements in both languages."""
    (sentence,) = sentences(text)
    assert sentence.mood is mood


def test_quoted_speech_is_nobodys_statement_and_a_title_stays() -> None:
    """First-person words in quotation marks are taken out; a quoted title is kept without its marks."""
    assert [s.text for s in sentences('She wrote "I live in Rome. I love it" there.')] == [
        "She wrote ~ there"
    ]
    assert sentences('My favourite book is "Dune".')[0].text == "My favourite book is Dune"


def test_clauses_and_openers() -> None:
    """A sentence falls apart at commas and joining words, and opening words are taken off."""
    (sentence,) = sentences("Well, he loves treats but I am allergic to nuts, and my cat is old")
    assert clauses(sentence) == ["Well", "he loves treats", "I am allergic to nuts", "my cat is old"]
    assert opened("well actually I like tea") == "I like tea"
    assert opened("其实，我喜欢茶") == "我喜欢茶"
    assert opened("不对，我住在上海") == "我住在上海"
    assert opened("Nora lives here") == "Nora lives here"


def test_language_is_told_by_its_letters() -> None:
    """A Latin name in a Chinese sentence does not make it English, nor the other way round."""
    assert is_chinese("我住在Lyon") and not is_chinese("I live in 上海 these days") and not is_chinese("123")


def test_everything_is_bounded() -> None:
    """A text of many or endless sentences gives a bounded number of bounded sentences."""
    assert len(sentences("I go. " * 5000)) == SENTENCES_MAX
    assert len(sentences("a" * 100_000)[0].text) == SENTENCE_CHARS_MAX


@pytest.mark.parametrize("unit", [";", "; ", "!", ".", "“", "从小就", "刚刚", "I "])
def test_long_hostile_texts_end(unit: str) -> None:
    """A text made to cost the square of its length, or more, is read all the same."""
    assert all(len(one.text) <= SENTENCE_CHARS_MAX for one in sentences(unit * (200_000 // len(unit))))
