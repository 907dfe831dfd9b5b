"""Text analysis: terms of texts and queries agree, in every script, whatever the input."""

from __future__ import annotations

import threading
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snowballstemmer import english_stemmer

from memos.retrieval import keywords as analysis
from memos.retrieval import stopwords
from memos.retrieval.keywords import analyse, keywords, language_of, query_terms, tokens

ANY_TEXT = st.text(st.characters(), max_size=60) | st.lists(
    st.sampled_from(
        [
            "Max's",
            "don't",
            "l'amour",
            "9:45",
            "1,000",
            "狗",
            "名字",
            "カナ",
            "고양이",
            "Straße",
            "İ",
            "c++",
            "\ud800",
            "the",
            " ",
            ". ",
        ]
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The dogs are running", {"dog": 1, "run": 1}),
        ("Max's dog is Max’s friend", {"max": 2, "dog": 1, "friend": 1}),
        ("the flight at 9:45, not 9:40", {"flight": 1, "9:45": 1, "9:40": 1}),
        ("code word zq0x1", {"code": 1, "word": 1, "zq0x1": 1}),
        ("3.5 km for $1,000 or 10.30am", {"3.5": 1, "km": 1, "1000": 1, "10.30": 1}),
        ("v2.0.1 on 2023-05-07", {"v2.0.1": 1, "2023": 1, "05": 1, "07": 1}),
        ("I know C++ and c#", {"know": 1, "c++": 1, "c#": 1}),
        ("O'Brien and O’Brien", {"obrien": 2}),
        ("café CAFÉ cafe\u0301 cafe", {"cafe": 4}),
        ("snake_case well-known a@b.example", {"snake": 1, "case": 1, "known": 1, "b": 1, "exampl": 1}),
        ("ＦＵＬＬ width １２", {"full": 1, "width": 1, "12": 1}),
        ("我的狗", {"狗": 1, "的狗": 1}),
        ("狗", {"狗": 1}),
        ("カナ", {"カナ": 1}),
        ("고양이", {"고양": 1, "양이": 1}),
        ("мои собаки", {"собак": 1}),
        ("", {}),
        ("?! …", {}),
    ],
)
def test_terms_of_a_text(text: str, wanted: dict[str, int]) -> None:
    """Words are stemmed, numbers stay whole, stop words go, scripts without spaces become pairs."""
    assert analyse(text) == wanted


@pytest.mark.parametrize(
    ("memory", "query"),
    [
        ("My dog Max likes swimming", "What does Max like to do? Does he swim?"),
        ("我的狗叫麦克斯", "狗的名字是什么"),
        ("明天九点四十五分的航班", "航班几点"),
        ("Mi perro se llama Toby y vive en la casa", "perros"),
        ("Unser Hund mag lange Spaziergänge und die Häuser am See", "Wo sind die Häuser?"),
        ("Il aime l'équitation", "équitation"),
        ("У меня есть собака", "собаки"),
        ("ラーメンを食べる", "ラーメン"),
        ("나는 고양이를 좋아해요", "고양이"),
        ("She moved to Straßburg", "STRASSBURG"),
    ],
)
def test_a_question_shares_terms_with_the_memory_that_answers_it(memory: str, query: str) -> None:
    """Inflection, script, accents and case do not part a question from its memory."""
    assert set(query_terms(query)) & set(analyse(memory))


@given(ANY_TEXT)
@settings(max_examples=300, deadline=None)
def test_any_text_has_an_analysis(text: str) -> None:
    """No string fails; terms are short, folded, counted, and asked for by the same text as a query."""
    terms = analyse(text)
    assert all(
        term and len(term) <= analysis.TERM_CHARACTERS_MAX and count > 0 for term, count in terms.items()
    )
    assert bool(terms) == bool(tokens(text))
    weights = query_terms(text)
    assert set(terms) == set(weights)
    assert all(0.0 < weight <= 1.0 for weight in weights.values())
    assert analyse(text) == terms


@given(ANY_TEXT)
@settings(deadline=None)
def test_case_and_width_change_nothing(text: str) -> None:
    """A text and its compatibility form have the same terms."""
    assert analyse(unicodedata.normalize("NFKC", text)) == analyse(text)


def test_a_text_of_stop_words_can_be_found_by_them() -> None:
    """Where nothing else is left the function words are the terms, in text and query alike."""
    assert analyse("Who are you?") == {"who": 1, "are": 1, "you": 1}
    assert set(query_terms("you are who")) == {"who", "are", "you"}
    assert "who" not in analyse("Who are you, Max?")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("My dog is called Max and he likes the beach", "english"),
        ("", "english"),
        ("Bonjour", "english"),
        ("per se a bad idea", "english"),
        ("We saw Die Hard in the cinema", "english"),
        ("Mein Hund heißt Max und ich mag ihn sehr", "german"),
        ("J'aime les chats et les chiens de ma sœur", "french"),
        ("Mi perro se llama Max y le gusta la playa", "spanish"),
        ("Il mio cane si chiama Max e gli piace il mare", "italian"),
        ("O meu cão gosta muito de nadar, mas não no mar", "portuguese"),
        ("Mijn hond heet Max en hij houdt van het strand", "dutch"),
        ("Min hund heter Max och han är mycket snäll", "swedish"),
    ],
)
def test_function_words_tell_the_language(text: str, language: str) -> None:
    """The language whose function words clearly prevail, else English."""
    assert language_of(text) == language


def test_a_foreign_query_asks_for_english_stems_too() -> None:
    """A short memory that was taken for English is found by a longer query in its own language."""
    short_memory = analyse("perros")
    weights = query_terms("¿Dónde están los perros que viven con nosotros?")
    shared = set(short_memory) & set(weights)
    assert shared
    assert all(weights[term] == analysis.OTHER_LANGUAGE_WEIGHT for term in shared)


def test_single_chinese_characters_weigh_less_than_pairs() -> None:
    """In a query a pair asks louder than its parts."""
    weights = query_terms("名字")
    assert weights["名字"] == 1.0
    assert weights["名"] == weights["字"] == analysis.HAN_CHARACTER_WEIGHT


def test_endless_apostrophes_are_one_word() -> None:
    """Thousands of elisions in a row neither fail nor become thousands of words."""
    assert len(tokens("l'" * 9_000 + "amour")) == 3
    assert tokens("l'amour qu'il") == ["l", "amour", "qu", "il"]


def test_over_long_words_are_cut_alike_in_text_and_query() -> None:
    """A word of 10,000 letters is one short term, the same on both sides."""
    terms = analyse("x" * 10_000)
    assert len(terms) == 1
    assert set(query_terms("x" * 10_000)) == set(terms)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("What is the name of my dog?", ["name", "dog"]),
        ("I flew to Lisbon. Lisbon's trams were old.", ["Lisbon", "flew", "trams", "old"]),
        ("Dogs like dogs", ["Dogs", "like"]),
        ("meet at 9:45", ["9:45", "meet"]),
        ("我的狗叫什么名字", ["狗", "名字"]),
        ("the and of", []),
    ],
)
def test_keywords_are_surface_forms_best_first(text: str, wanted: list[str]) -> None:
    """Frequent words, names and numbers come first, each once, as written."""
    assert keywords(text, 5) == wanted


@given(ANY_TEXT, st.integers(-1, 4))
@settings(deadline=None)
def test_keywords_are_bounded_and_from_the_text(text: str, limit: int) -> None:
    """Never more than asked for, each of them part of the text."""
    found = keywords(text, limit)
    plain = unicodedata.normalize("NFKC", text).translate(analysis._APOSTROPHES)
    assert len(found) <= max(0, limit)
    assert all(word in plain for word in found)


def test_threads_get_the_stems_of_one_thread() -> None:
    """Stemmer objects hold state; many threads at once still get right stems."""
    words = [
        f"{start}{ending}"
        for start in ("walk", "jump", "play", "start")
        for ending in ("ing", "ed", "s", "er")
    ]
    stemmer = english_stemmer.EnglishStemmer()
    wanted = {word: stemmer.stemWord(word) for word in words}
    wrong: list[str] = []

    def work() -> None:
        for _ in range(30):
            wrong.extend(word for word in words if analysis._stem(word, "english") != wanted[word])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_every_language_has_its_stemmer() -> None:
    """Each language that the vote or a script can choose is one that the library knows."""
    scripts = {language for _, _, language in analysis._SCRIPT_LANGUAGES}
    for language in {analysis.DEFAULT_LANGUAGE, *stopwords.LATIN_LANGUAGES, *scripts}:
        assert analysis._stem("abc", language)


def test_stop_lists_are_in_folded_form() -> None:
    """A stop word that the analysis could never produce would be dead."""
    latin = [stopwords.ENGLISH, *stopwords.LATIN_LANGUAGES.values()]
    for listed in latin:
        assert all(tokens(word) == [word] and word.isascii() for word in listed)
    assert all(tokens(word) == [word] for word in stopwords.RUSSIAN | stopwords.HAN_PAIRS)
