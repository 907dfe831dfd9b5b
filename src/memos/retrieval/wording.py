"""How a text is worded, as far as recall cares: does it ask, does it tell a time, how much does it say. Pure.

Rules over surface forms in English and Chinese; for other languages only punctuation, digits and length
speak. A wrong guess moves a hit by a fraction of a score and hides nothing.
"""

from __future__ import annotations

import math
import re

COMMON_WORDS = 16  # of a usual sentence, which counts as neither long nor short
_CHARS_A_WORD = 6  # where words are not separated by spaces

_ASKS = re.compile(r"[?？][\"'”’)\]\s]*(?:\[[^\]]*\]\s*)?\Z")

_TELLS_TIME = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|ago|weeks?|weekends?|months?|years?|decades?|days?|nights?|mornings?|"
    r"evenings?|afternoons?|hours?|recently|lately|soon|since|last|next|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|july|august|september|"
    r"october|november|december|spring|summer|autumn|winter|fall|christmas|easter|thanksgiving|birthday|"
    r"anniversary|\d{4}|\d{1,2}:\d{2}|\d{1,2}(?:st|nd|rd|th)|\d{1,2}\s?[ap]m)\b"
    r"|昨天|今天|明天|前天|后天|去年|今年|明年|上周|下周|本周|上个?月|下个?月|周[一二三四五六日天]|星期|\d+\s*[年月日号天点]|小时前|以前|最近",
    re.IGNORECASE,
)


def asks(text: str) -> bool:
    """Whether the text ends by asking (a remark in square brackets after the question does not count)."""
    return _ASKS.search(text) is not None


def tells_when(text: str) -> bool:
    """Whether the text names a time, a date or a span."""
    return _TELLS_TIME.search(text) is not None


def substance(text: str) -> float:
    """In [-1, 1]: 0 for a sentence of common length, 1 for four times as much, -1 for a quarter."""
    words = max(text.count(" ") + 1, len(text) / _CHARS_A_WORD)
    return max(-1.0, min(1.0, math.log2((1 + words) / (1 + COMMON_WORDS)) / 2.0))
