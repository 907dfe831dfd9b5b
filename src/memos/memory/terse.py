"""A text in fewer tokens: its words without those that carry no subject, in order, as in a telegram.

Function words are what every index leaves out anyway, and in talk they are half of the tokens; a reader,
human or model, restores them (compression by dropping the least informative tokens: Li et al. 2023,
"Selective Context"; Jiang et al. 2023, "LLMLingua"). What would change the sense stays: negation, numbers,
names and titles with the small words inside them, words of time, and the mark of a question; unless every
token counts (`Brevity.BARE`), also "might", "if", "from", "only" and their like.

English and Chinese; a text that is clearly of another language comes back as it is. No word is changed
but for a possessive ending that goes. Pure, linear in the text.
"""

from __future__ import annotations

import re
from enum import IntEnum

from memos.retrieval import stopwords
from memos.retrieval.keywords import language_of

_NEGATION = frozenset(
    ["no", "not", "nor", "none", "never", "nobody", "nothing", "neither", "without", "cannot"]
)
_NEGATED = re.compile(r"n['’]?t\Z")
_TIME = frozenset(["before", "after", "since", "until", "during", "while", "now", "once"])
_SUPPOSING = frozenset(["will", "would", "could", "should", "might", "must", "if", "unless", "whether"])
_DIRECTION = frozenset(["from", "against", "up", "down", "out", "off", "over", "under"])  # "turned down"
_AMOUNT = frozenset(["only", "more", "less", "most", "least", "all", "few", "both", "another", "than"])
_DROPPED_BARE = stopwords.ENGLISH - _NEGATION - _TIME
_DROPPED = _DROPPED_BARE - _SUPPOSING - _DIRECTION - _AMOUNT
_ENDINGS = re.compile(r"['’](?:s|re|ve|ll|d|m)\Z", re.I)

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_WORD = rf"(?:(?![{_HAN}])[^\W_])+(?:[-'’.,:/&_+](?:(?![{_HAN}])[^\W_])+)*(?:\+\+|#|%)?"
_TITLE = r"[\"“][A-Z0-9][^\"“”\n]{0,58}[\"”]|《[^《》\n]{1,60}》"
_ADDRESS = r"https?://\S+|[@#]\w[\w-]*|[$€£¥]\d[\d.,]*"
_PIECE = re.compile(rf"(?P<title>{_TITLE})|(?P<word>{_ADDRESS}|{_WORD})|(?P<han>[{_HAN}]+)|(?P<mark>[^\w\s])")
_HAN_LIGHT = re.compile(
    "[吗呢吧啊呀嘛哦嗯]|(?<!目)的(?![士确])|(?<![为除])了(?![解结不])"
)  # 目的, 了解 … are words
_ENDS = frozenset(".!…。！;；\n")
_ASKS = frozenset("?？")
_CLOSED = frozenset(".。?？")
_NAME_GAP_MAX = 3
_JOINING = frozenset(["of", "the", "for", "in", "on", "at", "to", "and", "with"])


class Brevity(IntEnum):
    """How much goes: each level is shorter than the one before."""

    PLAIN = 0  # sentences keep their ends
    RUN_ON = 1  # only questions are marked
    BARE = 2  # small words that shade the sense go too


def terse(text: str, brevity: Brevity = Brevity.PLAIN) -> str:
    """The telegram of `text`; "" when no word of it carries anything."""
    if language_of(text) != "english":
        return text
    telegram = _Telegram(brevity)
    for found in _PIECE.finditer(text):
        if found["mark"]:
            telegram.mark(found[0])
        elif found["han"]:
            telegram.chinese(found[0])
        elif found["title"]:
            telegram.word(found[0], named=True)
        elif _light(found[0], starts=telegram.ended, dropped=telegram.dropped):
            telegram.small_word(found[0])
        else:
            telegram.word(_ENDINGS.sub("", found[0]), named=_is_name(found[0]))
    return " ".join(telegram.kept)


class _Telegram:
    """What is kept so far, and what the next piece has to know of it."""

    def __init__(self, brevity: Brevity) -> None:
        self.kept: list[str] = []
        self.dropped = _DROPPED_BARE if brevity is Brevity.BARE else _DROPPED
        self.ended = True  # a sentence begins: a capital says nothing
        self._stops = brevity is Brevity.PLAIN
        self._after_name = False
        self._held: list[str] = []  # small words after a name, which stay if they join it to another
        self._chinese = False  # Chinese runs stand without a space between

    def mark(self, mark: str) -> None:
        """Punctuation: only the ends of sentences are told."""
        self._held, self._after_name = [], False
        if mark not in _ENDS and mark not in _ASKS and mark not in "()[]:：":
            return
        self.ended, self._chinese = True, False
        if not self.kept:
            return
        last = self.kept[-1]
        if mark in _ASKS:  # that somebody asks is told whatever stands before
            self.kept[-1] = last.rstrip(".。") + ("" if last[-1] in _ASKS else mark)
        elif self._stops and last[-1] not in _CLOSED and mark in _ENDS:
            self.kept[-1] = last + ("。" if mark in "。！；" else ".")

    def chinese(self, run: str) -> None:
        """A run of Chinese characters, without its particles."""
        bare = _HAN_LIGHT.sub("", run)
        self._held, self._after_name, self.ended = [], False, False
        if not bare:
            return
        if self._chinese and self.kept[-1][-1] not in _CLOSED:
            self.kept[-1] += bare
        else:
            self.kept.append(bare)
        self._chinese = True

    def small_word(self, word: str) -> None:
        """A word that goes, unless it stands inside a name: "Lord of the Rings"."""
        self.ended = self._chinese = False
        if self._after_name and len(self._held) < _NAME_GAP_MAX and word.isalpha() and word.islower():
            self._held.append(word)
        else:
            self._held, self._after_name = [], False

    def word(self, word: str, *, named: bool) -> None:
        """A word or a title that stays."""
        if named and self._held and self._held[0] in _JOINING:
            self.kept.extend(self._held)
        self.kept.append(word)
        self._held, self._after_name = [], named
        self.ended = self._chinese = False


def _is_name(word: str) -> bool:
    return word[0].isupper() and word.casefold() not in stopwords.ENGLISH


def _light(word: str, *, starts: bool, dropped: frozenset[str]) -> bool:
    """Whether a word goes. A capital inside a sentence makes a name of any word: "Will", "US"."""
    folded = word.casefold()
    if word[0].isupper() and not starts and not (folded == "i" or folded.startswith(("i'", "i’"))):
        return False
    if _NEGATED.search(folded):
        return False
    return re.sub("['’]", "", folded) in dropped or _ENDINGS.sub("", folded) in dropped
