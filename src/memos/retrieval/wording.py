"""How a text is worded, as far as recall cares: does it end by asking, how much does it say. Pure.

Rules over punctuation and length, so they serve any language. A wrong guess moves a hit by a fraction of a
score and hides nothing. Whether a text tells a time is `memos.retrieval.dates.tells_when`.
"""

from __future__ import annotations

import math
import re

COMMON_WORDS = 16  # of a usual sentence, which counts as neither long nor short
_CHARS_A_WORD = 6  # where words are not separated by spaces

_ASKS = re.compile(r"[?？][\"'”’)\]\s]*(?:\[[^\]]*\]\s*)?\Z")


def asks(text: str) -> bool:
    """Whether the text ends by asking (a remark in square brackets after the question does not count)."""
    return _ASKS.search(text) is not None


def substance(text: str) -> float:
    """In [-1, 1]: 0 for a sentence of common length, 1 for four times as much, -1 for a quarter."""
    words = max(text.count(" ") + 1, len(text) / _CHARS_A_WORD)
    return max(-1.0, min(1.0, math.log2((1 + words) / (1 + COMMON_WORDS)) / 2.0))
