"""What two texts must share to say the same: numbers, names, negation, time and every rare word, in order.

Sentence vectors hardly see these: "allergic to nuts" and "not allergic to nuts" are 0.96 alike, two flight
times 0.99. So a near-duplicate is decided here and the vector only says who is worth comparing. Words that
carry no fact (articles, "is", "really") are left out, a short table of synonyms is folded, the rest is
stemmed; a past form stays apart from a present one. Every other difference is a difference: a wrong merge
destroys a fact, a missed one costs a row. Pure, English and Chinese; other languages compare literally.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from memos.memory.sentences import HAN, plain
from memos.retrieval.date_rules import NUMBER_NAMES
from memos.retrieval.keywords import analyse, tokens

CHARACTERS_MAX = 4_000
SIGNATURES_CACHED_MAX = 4_096
NOT = "<not>"
PAST = "<past>"


@dataclass(frozen=True, slots=True)
class Signature:
    """`sequence` is every token that counts, in order; the others are its parts, for comparing by reason."""

    sequence: tuple[str, ...]
    numbers: tuple[str, ...]
    names: tuple[str, ...]
    denials: tuple[str, ...]


_LIGHT = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "are",
        "am",
        "be",
        "been",
        "being",
        "do",
        "does",
        "has",
        "have",
        "of",
        "really",
        "very",
        "so",
        "just",
        "also",
        "truly",
        "absolutely",
        "quite",
        "totally",
        "definitely",
        "currently",
        "now",
        "named",
        "called",
        "name",
        "names",
        "as",
        "well",
        "too",
        "s",
        "their",
        "his",
        "her",
        "its",
        "got",
        "that",
    ]
)
_DENIALS = {
    **dict.fromkeys(["not", "dont", "doesnt", "isnt", "arent", "aint", "cannot", "cant"], (NOT,)),
    **dict.fromkeys(["didnt", "wasnt", "werent"], (NOT, PAST)),
    **dict.fromkeys(["hasnt", "havent"], (NOT, PAST)),
    "wont": ("will", NOT),
    "wouldnt": ("would", NOT),
    "couldnt": ("could", NOT),
    "shouldnt": ("should", NOT),
    **dict.fromkeys(
        [
            "no",
            "never",
            "none",
            "nobody",
            "nothing",
            "neither",
            "nor",
            "without",
            "hardly",
            "barely",
            "stopped",
            "quit",
        ],
        None,
    ),
    **dict.fromkeys(
        ["dislike", "dislikes", "hate", "hates", "detest", "detests", "loathe", "loathes"], (NOT, "like")
    ),
    **dict.fromkeys(["was", "were", "had", "did"], (PAST,)),
}
_SAME = {
    **dict.fromkeys(
        ["love", "loves", "enjoy", "enjoys", "adore", "adores", "likes", "loving", "enjoying", "liking"],
        "like",
    ),
    **dict.fromkeys(["reside", "resides", "residing", "dwells"], "live"),
    **dict.fromkeys(["begin", "begins"], "start"),
    **dict.fromkeys(["purchased"], "bought"),
    **dict.fromkeys(["mom", "mum", "mother"], "mother"),
    **dict.fromkeys(["dad", "father"], "father"),
    **dict.fromkeys(["movie", "movies", "film", "films"], "film"),
    **dict.fromkeys(["kid", "kids", "child", "children"], "child"),
    **dict.fromkeys(["bike", "bikes", "bicycle", "bicycles"], "bicycle"),
    **dict.fromkeys(["tv", "television"], "television"),
    **dict.fromkeys(["photo", "photos", "picture", "pictures"], "photo"),
    **dict.fromkeys(["big", "large"], "big"),
    **dict.fromkeys(["favourite", "favorite"], "favourite"),
    **dict.fromkeys(["colour", "color"], "colour"),
    **{word: str(n) for n, word in enumerate(NUMBER_NAMES)},
}
_HAN_SAME = (
    ("讨厌", "不喜欢"), ("厌恶", "不喜欢"), ("热爱", "喜欢"), ("喜爱", "喜欢"), ("狗狗", "狗"), ("猫咪", "猫"), ("居住", "住"),
    ("母亲", "妈妈"), ("父亲", "爸爸"), ("目前", ""), ("现在", ""), ("非常", ""), ("特别", ""), ("十分", ""),
)  # fmt: skip
_HAN_LIGHT = frozenset("的啊呢吧呀哦嘛很是在")
_HAN_DENIALS = frozenset("不没无非未别")
_RUN = re.compile(f"[{HAN}]")
_NUMBER = re.compile(r"\d")
_CAPITAL = re.compile(r"\b[A-Z][\w'-]*")
_HAN_DIGITS = str.maketrans("一二三四五六七八九两", "1234567892")


@lru_cache(maxsize=SIGNATURES_CACHED_MAX)
def signature(text: str) -> Signature:
    """The signature of the first `CHARACTERS_MAX` characters of a text."""
    bare = plain(text[:CHARACTERS_MAX])
    capitals = {token for word in _CAPITAL.findall(bare) for token in tokens(word)}
    sequence: list[str] = []
    names: list[str] = []
    for token in tokens(bare):
        if _RUN.match(token):
            sequence.extend(_han(token))
            continue
        parts = _latin(token)
        sequence.extend(parts)
        if token in capitals and parts and not _NUMBER.search(token):
            names.extend(parts)
    return Signature(
        tuple(sequence),
        tuple(token for token in sequence if _NUMBER.search(token)),
        # The first word has a capital whatever it is; the two texts then agree on it or differ anyway.
        tuple(names),
        tuple(
            token
            for token in sequence
            if token == NOT or _DENIALS.get(token, ()) is None or token in _HAN_DENIALS
        ),
    )


def _latin(token: str) -> tuple[str, ...]:
    if token in _LIGHT:
        return ()
    if token in _DENIALS:
        return _DENIALS[token] or (token,)
    if token in _SAME:
        return (_SAME[token],)
    if _NUMBER.search(token):
        return (token,)
    stem = next(iter(analyse(token)), token)
    return (stem, PAST) if token.endswith("ed") and stem != token else (stem,)


def _han(run: str) -> list[str]:
    for word, same in _HAN_SAME:
        run = run.replace(word, same)
    return [character for character in run.translate(_HAN_DIGITS) if character not in _HAN_LIGHT]


def difference(a: str, b: str) -> str:
    """Why two texts do not say the same; "" when they do."""
    one, other = signature(a), signature(b)
    if one.numbers != other.numbers:
        return f"numbers differ: {_shown(one.numbers)} / {_shown(other.numbers)}"
    if one.denials != other.denials:
        return f"negation differs: {_shown(one.denials)} / {_shown(other.denials)}"
    if one.names != other.names:
        return f"names differ: {_shown(one.names)} / {_shown(other.names)}"
    if one.sequence != other.sequence:
        only = [token for token in one.sequence if token not in other.sequence]
        theirs = [token for token in other.sequence if token not in one.sequence]
        return (
            f"words differ: {_shown(only)} / {_shown(theirs)}"
            if only or theirs
            else "the order of words differs"
        )
    return "" if one.sequence else "neither says anything"


def _shown(words: tuple[str, ...] | list[str]) -> str:
    return " ".join(words[:5]) or "none"
