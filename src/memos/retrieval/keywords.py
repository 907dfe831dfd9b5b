"""The one analysis of text: what the lexical index stores, what a query asks for, what a text is about.

Index and queries must agree, so everything that turns text into terms goes through here. Steps: NFKC and
case folding; words, numbers kept whole ("9:45", "3.5", "zq0x1"), possessives and contractions undone;
stop words left out; Snowball stemming (Porter 2001) in the language of the script or, for Latin script,
in the language whose function words prevail in the text (English unless another clearly wins); accents
dropped from the stem. Scripts without spaces (Chinese, Japanese, Thai …) and Korean become pairs of
neighbouring characters, Chinese characters also single terms.

Guarantees: pure (the caches inside change no result), thread-safe, total on any `str`, one term is at
most `TERM_CHARACTERS_MAX` long. What it does not do: no dictionary, no segmentation of Chinese words, no
spelling. `VERSION` changes whenever the same text gets other terms: stored terms are then stale.
"""

from __future__ import annotations

import importlib
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

from memos.retrieval import stopwords

VERSION = 1
TERM_CHARACTERS_MAX = 64
STEMS_CACHED_MAX = 65_536

# A single Chinese character says less than a pair, and a second guess at the language less than the first.
HAN_CHARACTER_WEIGHT = 0.35
OTHER_LANGUAGE_WEIGHT = 0.5

DEFAULT_LANGUAGE = "english"
_LANGUAGE_VOTES_MIN = 2  # function words of another language that English does not have

# Vowel signs and the like, which Python's \w leaves out although they are parts of words.
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06ed"
    "\u0730-\u074a\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963\u0981-\u0983\u09bc-\u09d7\u0a01-\u0a03\u0a3c-\u0a51"
    "\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03\u0b3c-\u0b57\u0b82\u0bbe-\u0bd7\u0c00-\u0c04\u0c3e-\u0c56\u0c81-\u0c83"
    "\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d4d\u0d57\u0dca-\u0ddf\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc"
    "\u0ec8-\u0ece\u0f71-\u0f84\u102b-\u103e\u1056-\u1059\u17b4-\u17d3"
)
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_HANGUL = "\u1100-\u11ff\uac00-\ud7a3"
_SOUTH_EAST_ASIA = "\u0e01-\u0e4e\u0e81-\u0ede\u1000-\u109f\u1780-\u17d3"

_UNSPACED = f"{_HAN}{_KANA}{_HANGUL}{_SOUTH_EAST_ASIA}"
_LETTER = f"(?:(?![{_UNSPACED}])[^\\W_]|[{_MARKS}])"
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|v?\d+(?:[.:]\d+)+"  # 1,000  9:45  3.5  v2.0.1
_UNSPACED_START = re.compile(f"[{_UNSPACED}]")
_HAN_START = re.compile(f"[{_HAN}]")
_WORD_PATTERN = re.compile(
    "|".join(
        [
            _NUMBER,
            r"(?<![^\W_])[a-z](?:\+\+|#)",  # c++ c#
            f"{_LETTER}+(?:'{_LETTER}+)*",  # max's, don't, o'brien
            f"[{_HAN}]+",
            f"[{_KANA}]+",
            f"[{_HANGUL}]+",
            f"[{_SOUTH_EAST_ASIA}]+",
        ]
    ),
    re.IGNORECASE,
)
_ASCII_PATTERN = re.compile(
    rf"{_NUMBER}|(?<![a-z0-9])[a-z](?:\+\+|#)|[a-z0-9]+(?:'[a-z0-9]+)*", re.IGNORECASE
)
_ENDINGS = frozenset({"s", "re", "ve", "ll", "d", "m"})
_ELISIONS = frozenset(
    [
        "l",
        "d",
        "j",
        "n",
        "s",
        "t",
        "m",
        "c",
        "qu",
        "jusqu",
        "lorsqu",
        "puisqu",
        "quoiqu",
        "un",
        "dell",
        "all",
        "nell",
        "sull",
        "dall",
        "quell",
        "coll",
    ]
)
_ELISIONS_MAX = 2  # "lorsqu'l'": more is no language
_APOSTROPHES = str.maketrans({"’": "'", "ʼ": "'", "‘": "'", "＇": "'"})
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]")

_SENTENCE_ENDS = frozenset(".!?:;\n。！？：；…")
_HAN_CUTS = re.compile("|".join([*sorted(stopwords.HAN_PAIRS), f"[{stopwords.HAN_PARTICLES}]"]))
_RUN_CHARACTERS_MAX = 8  # of a keyword cut from a run without spaces

# The script of a word's first letter decides where one language is by far the likeliest.
_SCRIPT_LANGUAGES = (
    ("\u0400", "\u052f", "russian"),
    ("\u0370", "\u03ff", "greek"),
    ("\u1f00", "\u1fff", "greek"),
    ("\u0600", "\u06ff", "arabic"),
    ("\u0900", "\u097f", "hindi"),
    ("\u0530", "\u058f", "armenian"),
    ("\u0b80", "\u0bff", "tamil"),
)


def tokens(text: str) -> list[str]:
    """The folded words and numbers of a text in order, none left out; runs without spaces stay whole."""
    return list(_tokens(_fold(text)))


def analyse(text: str) -> dict[str, int]:
    """Term -> how often it occurs: what the lexical index stores of a text.

    A text of another language has its English stems as well: a short query of that language cannot be
    told from English. A text of nothing but stop words keeps them, to be found by its own words.
    """
    certain, second = _analysed(text)
    return {**second, **certain}


def query_terms(text: str) -> dict[str, float]:
    """Term -> weight: what a query asks the lexical index for. The terms are those of `analyse`."""
    certain, second = _analysed(text)
    weights = {term: OTHER_LANGUAGE_WEIGHT * _weight(term) for term in second}
    weights.update((term, _weight(term)) for term in certain)
    return weights


def keywords(text: str, limit: int) -> list[str]:
    """The at most `limit` words that a text is most about, as they are written there, best first.

    Ranked by how often they occur and by signs of weight inside the text alone (names, numbers, long
    words); of equals the first comes first. Chinese runs are cut at function words.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)
    language = _language(tokens(text))
    scores: dict[str, float] = {}
    surfaces: dict[str, str] = {}
    for surface, named in _surfaces(plain):
        word = _cut(surface.casefold())
        terms = _terms(word, language)
        if not terms:
            continue
        key = word if _is_unspaced(word) else terms[0]
        surfaces.setdefault(key, surface)
        scores[key] = scores.get(key, 0.0) + _salience(surface, named=named)
    best = sorted(scores, key=lambda key: -scores[key])
    return [surfaces[key] for key in best[: max(0, limit)]]


def language_of(text: str) -> str:
    """The Snowball name of the language by which the Latin-script words of a text are stemmed."""
    return _language(tokens(text))


# -- from text to words -----------------------------------------------------------------------------


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    # Case folding can undo the composed form (U+0130), so compose once more.
    folded = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).casefold()
    return unicodedata.normalize("NFKC", folded)


def _tokens(folded: str) -> Iterator[str]:
    pattern = _ASCII_PATTERN if folded.isascii() else _WORD_PATTERN
    for word in pattern.findall(folded):
        if "'" in word or "," in word or len(word) > TERM_CHARACTERS_MAX:
            yield from map(_cut, _parts(word))
        else:
            yield word


def _parts(word: str) -> list[str]:
    """`Max's` -> `Max`, `we'll` -> `we`, `l'amour` -> `l`, `amour`; `o'brien` and `don't` stay one word."""
    elided: list[str] = []
    while len(elided) < _ELISIONS_MAX:
        first, _, rest = word.partition("'")
        if len(rest) < 2 or first.casefold() not in _ELISIONS:
            break
        elided.append(first)
        word = rest
    stem, _, ending = word.rpartition("'")
    return [*elided, stem if stem and ending.casefold() in _ENDINGS else word]


def _cut(word: str) -> str:
    """Without apostrophes and the commas of thousands, and not over-long."""
    word = word.replace("'", "").replace(",", "")
    return word if _is_unspaced(word) else word[:TERM_CHARACTERS_MAX]


def _surfaces(plain: str) -> Iterator[tuple[str, bool]]:
    """Each word as written, and whether it has a capital that no sentence start explains."""
    for match in _WORD_PATTERN.finditer(plain):
        written = match.group()
        if _is_unspaced(written):
            for piece in _HAN_CUTS.split(written):
                if piece:
                    yield piece[:_RUN_CHARACTERS_MAX], False
            continue
        before = plain[max(0, match.start() - 4) : match.start()].rstrip(" \"'“”‘(\t")
        starts = not before.strip() or before[-1] in _SENTENCE_ENDS
        for part in _parts(written):
            yield part, part[0].isupper() and not starts


def _salience(surface: str, *, named: bool) -> float:
    digits = any(character.isdigit() for character in surface)
    return 1.0 + 0.6 * named + 0.3 * digits + 0.2 * (len(surface) >= 7)


# -- from words to terms ----------------------------------------------------------------------------


def _analysed(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """Terms in the text's language, and those that it would have in English if that is another one."""
    words = tokens(text)
    language = _language(words)
    certain = _counted(words, language)
    second: dict[str, int] = {}
    if language != DEFAULT_LANGUAGE:
        stops = _stop_list(language)
        second = _counted((word for word in words if _without_accents(word) not in stops), DEFAULT_LANGUAGE)
    if not certain:
        certain = dict(Counter(word[:TERM_CHARACTERS_MAX] for word in words))
    return certain, second


def _counted(words: Iterable[str], language: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        for term in _terms(word, language):
            counts[term] = counts.get(term, 0) + 1
    return counts


def _terms(word: str, language: str) -> tuple[str, ...]:
    """The terms of one folded word or run; none for a stop word."""
    return tuple(_pairs(word)) if _is_unspaced(word) else _stemmed(word, language)


def _is_unspaced(word: str) -> bool:
    return word[0] > "\u0dff" and _UNSPACED_START.match(word) is not None


def _pairs(run: str) -> Iterator[str]:
    """Neighbouring characters of a run of one script; of Chinese also the characters that mean something."""
    chinese = _HAN_START.match(run) is not None
    if chinese or len(run) == 1:
        yield from (character for character in run if character not in stopwords.HAN_CHARACTERS)
    for first, second in pairwise(run):
        function = first in stopwords.HAN_CHARACTERS and second in stopwords.HAN_CHARACTERS
        if not function and first + second not in stopwords.HAN_PAIRS:
            yield first + second


def _weight(term: str) -> float:
    return HAN_CHARACTER_WEIGHT if len(term) == 1 and _HAN_START.match(term) else 1.0


@lru_cache(maxsize=STEMS_CACHED_MAX)
def _stemmed(word: str, language: str) -> tuple[str, ...]:
    """The stem of a word of a script with spaces. Cached: few words make most of any text."""
    if any(character.isdigit() for character in word) or not word[-1].isalpha():
        return (word,)
    script = _script_language(word)
    if script is not None:
        return () if word in stopwords.RUSSIAN else (_stem(word, script),)
    if _without_accents(word) in _stop_list(language):
        return ()
    return (_stem(word, language),)


def _script_language(word: str) -> str | None:
    return next((language for low, high, language in _SCRIPT_LANGUAGES if low <= word[0] <= high), None)


def _stop_list(language: str) -> frozenset[str]:
    return stopwords.LATIN_LANGUAGES.get(language, stopwords.ENGLISH)


def _language(words: list[str]) -> str:
    """English, unless another language's function words clearly prevail."""
    distinct = {_without_accents(word) for word in words}
    english = distinct & stopwords.ENGLISH
    best, best_votes = DEFAULT_LANGUAGE, _LANGUAGE_VOTES_MIN - 1
    for language, listed in stopwords.LATIN_LANGUAGES.items():
        found = distinct & listed
        own = len(found - english)
        if own > max(best_votes, len(english - found)):
            best, best_votes = language, own
    return best


def _without_accents(word: str) -> str:
    if word.isascii():
        return word
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", word)))


# Snowball's stemmers keep the word they work on in themselves: one at a time.
_stemmer_lock = threading.Lock()


def _stem(word: str, language: str) -> str:
    with _stemmer_lock:
        stem: str = _stemmer(language).stemWord(word)
    return _without_accents(stem) or word


@cache
def _stemmer(language: str) -> Any:
    """The pure Python stemmer: `snowballstemmer.stemmer` would take PyStemmer's, of another version, if there."""
    module = importlib.import_module(f"snowballstemmer.{language}_stemmer")
    return getattr(module, f"{language.capitalize()}Stemmer")()
