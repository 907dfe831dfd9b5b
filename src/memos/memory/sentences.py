"""Sentences and clauses of what people write, in English and Chinese, each with its mood.

The rules that read facts out of text (`preference`, `slots`, `extract`, `feedback`) look only at clauses
that state something: a question, a supposition and a report of somebody else's words state nothing about
the speaker. When in doubt the mood is not STATEMENT, since a wrong fact costs more than a missed one.
Pure; every loop is bounded by `SENTENCES_MAX` and `SENTENCE_CHARS_MAX`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

SENTENCES_MAX = 400
SENTENCE_CHARS_MAX = 500
TEXT_CHARS_MAX = 100_000

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_HAN = re.compile(f"[{HAN}]")
_LATIN = re.compile(r"[A-Za-z]")
_NO_MARKS = re.compile("[^，。！？；：（）、]+")
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\uff07": "'"})

# Before a Chinese character narrow marks end a sentence without a space as well.
# Runs of marks are taken whole and from their beginning only: else a long run costs its square.
_END = re.compile(
    rf"(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s|$)|(?:(?<![!?;])[!?;]++|(?<=[{HAN}])\.++)[”’\")]*+(?=[{HAN}])"
    r"|[。！？；]+[”’」』）]*|\n+"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:dr|mr|mrs|ms|st|prof|vs|etc|e\.g|i\.e|jr|sr|approx|[a-hj-z])$", re.I
)
_ABBREVIATION_CHARS_MAX = 12  # with what stands before: a run of abbreviations would cost its square
_QUOTED = re.compile(r"\"([^\"]{1,300})\"|“([^”]{1,300})”|「([^」]{1,300})」|『([^』]{1,300})』")
_FIRST_PERSON = re.compile(r"\b(?:i|i'm|me|my|mine|we|our)\b|[我咱]", re.I)

_ASKING = re.compile(
    r"^(?:(?:and|but|so|ok|okay|well|hey|hi|oh|um|then|please|sorry)[, ]+)*"
    r"(?:(?:what|where|when|who|whom|whose|which|why|how)\b(?!ever)"
    r"|(?:do|does|did|is|are|am|was|were|can|could|will|would|should|shall|have|has|had|may|might"
    r"|don't|doesn't|didn't|isn't|aren't|wasn't|can't|couldn't|won't|wouldn't|haven't|hasn't)"
    r"\s+(?:i|you|he|she|it|we|they|there|this|that|my|your|the|any(?:one|body)?|some(?:one|body)?)\b)",
    re.I,
)
_ASKING_HAN = re.compile(
    r"[吗嘛呢么]\s*[?？。!！]*$|^(?:请问|谁|什么|哪|怎么|为什么|是不是|能不能|可不可以|会不会|有没有)"
    r"|(?:是不是|能不能|可不可以|要不要|喜不喜欢|爱不爱|该不该|对不对|好不好|行不行|有没有|会不会|是否)"
)
_SUPPOSING = re.compile(
    r"\b(?:if|unless|suppose|supposing|imagine|pretend(?:ing)?|wish(?:ed|es)?|maybe|perhaps|possibly|probably"
    r"|hypothetically|would|could|should|might|whether|wonder(?:ing|ed)?|unsure|doubt|guess|otherwise"
    r"|supposedly|apparently|allegedly|not sure|as though|[a-z]+'d (?:like|love|prefer|rather|hate|be|have|go))\b",
    re.I,
)
_MAY = re.compile(r"\bmay\b(?!\s*\d)")  # lower case only: the month is written May
_THINKING = re.compile(
    r"\b(?:i|we)(?:\s+\w+)?\s+(?:think|thought|believe|believed|suspect|feel like|assume|hope|heard|dream(?:ed|t)?)\b",
    re.I,
)
_SUPPOSING_HAN = re.compile(
    r"如果|要是|假如|假设|假使|倘若|若是|万一|也许|或许|可能|大概|恐怕|说不定|好像|似乎|想象|希望|但愿"
    r"|我猜|我想我|我觉得我|不确定|的话[，,]?"
)
_REPORTING = re.compile(
    r"\b(?:he|she|they|everyone|everybody|people|somebody|someone|nobody|you|(?:my|his|her|our|the)\s+\w+|[A-Z]\w+)"
    r"(?:\s+\w+)?\s+(?:said|says|say|thinks?|thought|told|tells|believes?|believed|claims?|claimed|joked|joke"
    r"|insists?|insisted|assumes?|assumed|heard|wrote|writes)\b"
)
_REPORTING_HAN = re.compile(
    r"(?:他|她|它|他们|她们|你|你们|大家|别人|有人|[^，,。\s]{1,6}(?:妈|爸|友|师|哥|姐|弟|妹))(?:总|老|都)?"
    r"(?:说|认为|觉得|以为|告诉|听说)|^听说|据说"
)
_CLAUSE = re.compile(
    r"\s*[;；—]\s*|\s+-+\s+|[，,]\s*(?:(?:but|and|so|yet|though|although|because|while|whereas)\s+(?:also\s+)?)?"
    r"|\s+(?:but|because|although|though|whereas)\s+|\s+(?:and|so)\s+(?=(?:i|i'm|i've|my|he|she|it|they|we|you)\b)"
    r"|(?:但是|不过(?!敏|分|来|去|期|时|关)|可是|而且|因为|所以|虽然|然后)",
    re.I,
)


class Mood(StrEnum):
    """What a sentence does. Only a STATEMENT says that something is so."""

    STATEMENT = "statement"
    QUESTION = "question"
    SUPPOSITION = "supposition"  # if, would, maybe, I think …
    REPORT = "report"  # what somebody else said or thinks


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, apostrophes and white space made plain, without its end mark."""

    text: str
    chinese: bool
    mood: Mood

    @property
    def states(self) -> bool:
        return self.mood is Mood.STATEMENT


def plain(text: str) -> str:
    """The text under NFKC with straight apostrophes and single spaces; line ends and Chinese marks are kept."""
    folded = _NO_MARKS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text).translate(
        _APOSTROPHES
    )
    return "\n".join(" ".join(line.split()) for line in folded.splitlines())


def is_chinese(text: str) -> bool:
    """Whether Han characters carry the text: at least one for every two Latin letters."""
    return len(_HAN.findall(text)) * 2 >= max(1, len(_LATIN.findall(text)))


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text in order. Over-long ones are cut, what exceeds the limit is left out."""
    found: list[Sentence] = []
    for piece, asks in _split(plain(text[:TEXT_CHARS_MAX])):
        if len(found) == SENTENCES_MAX:
            break
        body = piece[:SENTENCE_CHARS_MAX].strip(" \t\"'“”")
        if body:
            found.append(Sentence(body, is_chinese(body), _mood(body, asks)))
    return found


def _split(text: str) -> list[tuple[str, bool]]:
    """(body without end mark, whether the mark asks)."""
    # A full stop inside a quotation of somebody's words would break the quotation apart.
    text = _QUOTED.sub(_unquote, text)
    pieces: list[tuple[str, bool]] = []
    start = 0
    for end in _END.finditer(text):
        mark = end.group()
        word = text[max(start, end.start() - _ABBREVIATION_CHARS_MAX) : end.start()]
        if mark == "." and _ABBREVIATION.search(word):
            continue
        pieces.append((text[start : end.start()], any(sign in mark for sign in "?？")))
        start = end.end()
    pieces.append((text[start:], False))
    return [(body.strip(), asks) for body, asks in pieces if body.strip()]


def _unquote(found: re.Match[str]) -> str:
    """A quoted title stays, bare; quoted speech in the first person goes, for it is somebody's words."""
    inner = next(group for group in found.groups() if group is not None)
    return "~" if _FIRST_PERSON.search(inner) else inner.strip(" .!?。！？")


def _mood(body: str, asks: bool) -> Mood:
    if asks or _ASKING.match(body) or _ASKING_HAN.search(body):
        return Mood.QUESTION
    if _REPORTING.search(body) or _REPORTING_HAN.search(body):
        return Mood.REPORT
    if _SUPPOSING.search(body) or _MAY.search(body) or _THINKING.search(body) or _SUPPOSING_HAN.search(body):
        return Mood.SUPPOSITION
    return Mood.STATEMENT


def clauses(sentence: Sentence) -> list[str]:
    """The clauses of a sentence in order, without the words that join them."""
    parts = (part.strip(" ,，;；:：…") for part in _CLAUSE.split(sentence.text))
    return [part for part in parts if part]


_OPENER = re.compile(
    r"^(?:(?:and|but|so|also|well|actually|honestly|oh|yes|yeah|yep|no|nope|wrong|correction|ok|okay|hey|hi|hello|btw|fyi|lol|haha"
    r"|anyway|basically|personally|sadly|luckily|unfortunately|wow|thanks|sure|still|plus|besides|too|sorry"
    r"|by the way|for what it's worth|in fact|to be honest|as you know|just so you know|for your information"
    r"|(?:please\s+)?(?:remember|note|know|keep in mind)(?:\s+that)?|now|currently|nowadays|these days)"
    r"\b(?:[,:!]|\s-+(?=\s))?\s*)+",
    re.I,
)
_OPENER_HAN = re.compile(
    r"^(?:其实|更正|嗯|哦|啊|对了|顺便说一下|顺便|另外|还有|而且|但是|不过|所以|是的|对|好的|好|不对|不是|不"
    r"|请记住|记住|请注意|注意|说实话|老实说|现在|目前|哈哈|你好|嗨)[，,:：、!！\s]+"
)


def opened(clause: str) -> str:
    """The clause without the words that only open it ("well, actually …", "其实，…")."""
    bare = _OPENER.sub("", clause)
    while (shorter := _OPENER_HAN.sub("", bare)) != bare:
        bare = shorter
    return bare.strip()
