"""How a text is worded, as far as recall cares: does it end by asking, how much does it say, does it
ask for several things. Pure.

Rules over punctuation and length, so they serve any language. A wrong guess moves a hit by a fraction of a
score and hides nothing. Whether a text tells a time is `memos.retrieval.dates.tells_when`.
"""

from __future__ import annotations

import math
import re

COMMON_WORDS = 16  # of a usual sentence, which counts as neither long nor short
_CHARS_A_WORD = 6  # where words are not separated by spaces

_NO_PLURAL = "is|was|does|has|his|this|its|us|always|perhaps|besides|yes|james"
_SEVERAL = re.compile(
    # "how many pets", but not "how many days": that is one length of time
    r"\bhow many (?!(?:days|weeks|months|years|hours|minutes)\b)"
    r"|\b(?:what|which)\b(?: [\w'’]+){0,4}? (?:kinds?|types?|sorts?) of\b|\bin (?:what|which) ways\b"
    # "which books", "what are her hobbies", "what musical instruments": a plural soon after the question word
    rf"|\b(?:what|which)(?: (?:are|were))?(?: (?!(?:{_NO_PLURAL})\b)[\w'’]+){{0,3}}?"
    rf" (?!(?:{_NO_PLURAL})\b)[a-z]{{2,}}(?<![su])s\b(?! (?:is|was)\b)"
    r"|\bboth\b|\bwho (?:all )?are\b"
    r"|\bwhat (?:all )?(?:do|does|has|have|did) [\w'’ ]+ (?:do|done|like)\b"
    r"|哪些|哪几|几[个次种本只]|多少[个次种本只]|有什么",
    re.IGNORECASE,
)
_ASKS = re.compile(r"[?？][\"'”’)\]\s]*(?:\[[^\]]*\]\s*)?\Z")


def asks(text: str) -> bool:
    """Whether the text ends by asking (a remark in square brackets after the question does not count)."""
    return _ASKS.search(text) is not None


def substance(text: str) -> float:
    """In [-1, 1]: 0 for a sentence of common length, 1 for four times as much, -1 for a quarter."""
    words = max(text.count(" ") + 1, len(text) / _CHARS_A_WORD)
    return max(-1.0, min(1.0, math.log2((1 + words) / (1 + COMMON_WORDS)) / 2.0))


def asks_several(text: str) -> bool:
    """Whether the query asks for several things ("which books", "how many pets"), of which memories may tell
    one each."""
    return _SEVERAL.search(text) is not None
