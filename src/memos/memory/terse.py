"""A text in fewer tokens: its words without those that carry no subject, in order, as in a telegram.

Function words are what every index leaves out anyway, and in talk they are half of the tokens; a reader,
human or model, restores them (compression by dropping the least informative tokens: Li et al. 2023,
"Selective Context"; Jiang et al. 2023, "LLMLingua"). What would change the sense stays: negation, numbers,
names and titles with the small words inside them, words of time, and the mark of a question.

English and Chinese; a text that is clearly of another language comes back as it is. No word is changed
but for a possessive ending that goes. Pure, linear in the text.
"""

from __future__ import annotations

import re

from memos.retrieval import stopwords
from memos.retrieval.keywords import language_of

_NEGATION = frozenset(
    ["no", "not", "nor", "none", "never", "nobody", "nothing", "neither", "without", "cannot"]
)
_NEGATED = re.compile(r"n['’]?t\Z")
_TIME = frozenset(["before", "after", "since", "until", "during", "while", "now", "once"])
_DROPPED = stopwords.ENGLISH - _NEGATION - _TIME
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
_NAME_GAP_MAX = 3  # small words inside a name: "Lord of the Rings"


def terse(text: str, *, stops: bool = True) -> str:
    """The telegram of `text`; "" when no word of it carries anything. `stops`: keep where sentences end."""
    if language_of(text) != "english":
        return text
    kept: list[str] = []
    held: list[str] = []  # small words after a name, which stay if a name follows
    ended = True
    after_name = False
    glue = False  # Chinese runs stand without a space between
    for found in _PIECE.finditer(text):
        piece = found[0]
        if found["mark"]:
            if piece in "，、,":
                held, after_name = [], False
            elif piece in _ENDS or piece in _ASKS or piece in "()[]:：":
                held, after_name = [], False
                _close(kept, piece, stops=stops)
                ended = True
                glue = False
            continue
        if found["han"]:
            bare = _HAN_LIGHT.sub("", piece)
            if bare and glue and kept and kept[-1][-1] not in _CLOSED:
                kept[-1] += bare
            elif bare:
                kept.append(bare)
            glue = glue or bool(bare)
            held, after_name, ended = [], False, False
            continue
        glue = False
        named = found["title"] is not None or (
            piece[0].isupper() and piece not in ("I",) and not _plain(piece)
        )
        if found["title"] is None and _light(piece, starts=ended):
            if (
                after_name
                and len(held) < _NAME_GAP_MAX
                and piece.islower()
                and "'" not in piece
                and "’" not in piece
            ):
                held.append(piece)
            else:
                held, after_name = [], False
            ended = False
            continue
        if named and after_name and held and _joins(held):
            kept.extend(held)
        kept.append(_ENDINGS.sub("", piece) if found["title"] is None else piece)
        held, after_name, ended = [], named, False
    return " ".join(kept).strip()


def _plain(piece: str) -> bool:
    return piece.casefold() in stopwords.ENGLISH


def _joins(held: list[str]) -> bool:
    """Whether the words between two names make one name of them: "of the", "de la"; not "and I"."""
    return held[0] in ("of", "the", "for", "in", "on", "at", "to", "and", "with")


def _light(piece: str, *, starts: bool) -> bool:
    """Whether a word goes. A capital inside a sentence makes a name of any word: "Will", "US"."""
    folded = piece.casefold()
    if piece[0].isupper() and not starts and not (folded == "i" or folded.startswith(("i'", "i’"))):
        return False
    if _NEGATED.search(folded):
        return False
    bare = re.sub("['’]", "", folded)
    return bare in _DROPPED or _ENDINGS.sub("", folded) in _DROPPED


def _close(kept: list[str], mark: str, *, stops: bool) -> None:
    """The end of a sentence on its last word; a question keeps its mark whatever stands before it."""
    if not kept:
        return
    last = kept[-1]
    if mark in _ASKS:
        kept[-1] = last.rstrip(".。") + ("" if last[-1] in _ASKS else mark)
    elif stops and last[-1] not in _CLOSED and mark in _ENDS:
        kept[-1] = last + ("。" if mark in "。！；" else ".")
