"""The answerer without a model quotes what fits and admits what it does not know."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memos.models.extractive import Evidence, ExtractiveAnswerer, is_chinese, sentences
from memos.retrieval.keywords import analyse

TALK = (
    ("user", "We bought a small sailing boat called Petrel last spring."),
    ("assistant", "A boat! Petrel is a fine name."),
    ("user", "She is moored in Harwich. I cannot stand the smell of diesel, it makes me sick."),
    ("user", "My brother Tomas repairs the engine on Sundays."),
    ("user", "What is the name of the boat?"),
    ("user", "我们住在杭州。我对芒果过敏。"),
)


def evidence(fit: float = 0.3) -> list[Evidence]:
    return [
        Evidence(str(n), text, role=role, said_at=datetime(2025, 3, n + 1, 12, tzinfo=UTC), fit=fit)
        for n, (role, text) in enumerate(TALK)
    ]


@pytest.mark.parametrize(
    ("question", "quoted", "used"),
    [
        ("What is our boat called?", "boat called Petrel", "0"),
        ("When does my brother repair the engine?", "on Sundays", "3"),
        ("Who repairs the engine?", "Tomas", "3"),
        ("Where is the boat moored?", "Harwich", "2"),
        ("What smell makes me sick?", "smell of diesel", "2"),
        ("我对什么过敏？", "我对芒果过敏", "5"),
        ("我们住在哪里？", "杭州", "5"),
    ],
)
def test_the_best_sentence_is_quoted_first(question: str, quoted: str, used: str) -> None:
    """The first line quotes the sentence that answers, and names its memory as used."""
    answer = ExtractiveAnswerer(analyse).answer(question, evidence())
    assert quoted in answer.lines[0]
    assert answer.used[0] == used


def test_a_quote_says_who_and_when() -> None:
    """Each line tells the speaker and the day, in the language of the question."""
    answerer = ExtractiveAnswerer(analyse)
    english = answerer.answer("Who repairs the engine?", evidence())
    assert english.lines[0].endswith("(you said on 4 March 2025)")
    named = Evidence("n", "The keys hang behind the door.", speaker="Ines", fit=0.5)
    assert answerer.answer("Where are the keys?", [named]).text.endswith("(Ines said)")
    chinese = answerer.answer("我对什么过敏？", evidence())
    assert chinese.lines[0].endswith("（你于2025年3月6日说过）")


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("What is the capital of Peru?", "I have no memory about that."),
        ("今天股票涨了吗？", "我没有关于这件事的记忆。"),
    ],
)
def test_nothing_fitting_is_admitted(question: str, says: str) -> None:
    """Where no memory fits, the answer says so and uses nothing."""
    answer = ExtractiveAnswerer(analyse).answer(question, evidence())
    assert (answer.text, answer.used, answer.found) == (says, (), False)


@pytest.mark.parametrize(
    ("question", "says"),
    [("What is the name of our neighbour's horse?", "the closest is"), ("我们的猫叫芒果吗？", "最接近")],
)
def test_a_partial_fit_is_called_the_closest(question: str, says: str) -> None:
    """A sentence that has little of the question is quoted as the closest, never as the answer."""
    answer = ExtractiveAnswerer(analyse).answer(question, evidence())
    assert says in answer.lines[0] and answer.found
    sure = ExtractiveAnswerer(analyse).answer(question, evidence(fit=0.9))
    assert says not in sure.text


def test_words_that_only_ask_do_not_count() -> None:
    """'Tell me about X' is sure of a sentence about X."""
    answer = ExtractiveAnswerer(analyse).answer("Tell me again about Tomas", evidence())
    assert answer.used[0] == "3" and answer.lines[0].startswith("“My brother Tomas")


def test_no_evidence_at_all_is_admitted() -> None:
    """An empty memory is an honest answer too."""
    assert not ExtractiveAnswerer(analyse).answer("Who am I?", []).found


def test_questions_are_never_quoted() -> None:
    """A stored question is no answer, even when it is the very same one."""
    answer = ExtractiveAnswerer(analyse).answer("What is the name of the boat?", evidence())
    assert "4" not in answer.used
    assert "?" not in answer.text


def test_a_memory_that_recall_is_sure_of_needs_no_shared_word() -> None:
    """A well recalled memory is quoted although it says it in other words; a badly recalled one is not."""
    answerer = ExtractiveAnswerer(analyse)
    said = "Rex chews every slipper in the house."
    assert answerer.answer("Tell me about our dog", [Evidence("1", said, fit=0.8)]).used == ("1",)
    assert answerer.answer("Tell me about our dog", [Evidence("1", said, fit=0.2)]).used == ()


def test_quotes_are_few_and_different() -> None:
    """At most three lines, and no line repeats another."""
    many = [Evidence(str(n), f"The red kite number {n} flew over the lake.", fit=0.5) for n in range(20)]
    many += [Evidence("same", "The red kite number 1 flew over the lake!", fit=0.5)]
    answer = ExtractiveAnswerer(analyse).answer("What flew over the lake?", many)
    assert 1 <= len(answer.lines) <= 3
    assert len(set(answer.lines)) == len(answer.lines)


def test_sentences_keep_titles_and_decimals_together() -> None:
    """A title, a decimal and a closing quote do not end a sentence; an over-long one is shortened."""
    assert sentences("Dr. Ode paid 3.50 for it. “Fine!” he said.\n完了。好") == [
        "Dr. Ode paid 3.50 for it.",
        "“Fine!”",
        "he said.",
        "完了。",
        "好",
    ]
    [long] = sentences("word " * 200)
    assert len(long) <= 401 and long.endswith("…")


def test_language_is_told_by_its_letters() -> None:
    """A few Latin words inside Chinese do not make it English, nor the other way round."""
    assert is_chinese("我的 MacBook 在哪里？")
    assert not is_chinese("What does 好 mean?")
    assert not is_chinese("123")
