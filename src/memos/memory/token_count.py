"""How many tokens a text costs, estimated without a tokenizer. Pure.

English words up to eight letters count one, each further four letters one more; two digits, and two letters
of a word that has accents or another script, count one; Chinese, Japanese and Korean characters and every
other sign count one each. Against the WordPiece of MiniLM the sum over many texts is within a tenth: 1.02 of
it on English talk, 1.04 on licence texts, 0.96 on manuals, 0.94 on source code, 0.96 on Chinese. A single
text strays to a fifth, Cyrillic and Korean to a half. For limits and ratios, never for billing.
"""

from __future__ import annotations

import re

_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
_PIECE = re.compile(
    rf"(?P<sign>[{_UNSPACED}]|[^\w\s]|_)|(?P<digits>\d+)|(?P<letters>(?:(?![{_UNSPACED}])[^\W\d_])+)"
)
_LETTERS_OF_ONE = 8
_LETTERS_A_TOKEN = 4


def count_tokens(text: str) -> int:
    """The estimated number of tokens; 0 for white space."""
    return sum(_tokens(piece) for piece in _PIECE.finditer(text))


def _tokens(piece: re.Match[str]) -> int:
    length = piece.end() - piece.start()
    if piece["sign"]:
        return 1
    if piece["digits"] or not piece[0].isascii():
        return (length + 1) // 2
    return 1 + max(0, length - _LETTERS_OF_ONE + _LETTERS_A_TOKEN - 1) // _LETTERS_A_TOKEN
