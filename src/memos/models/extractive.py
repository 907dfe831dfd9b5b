"""The answerer that needs no model: it quotes the sentences of memory that fit the question.

It never composes: every line of an answer is a sentence that somebody said, with who said it and when.
Where nothing fits it says that there is no memory about it, and where something fits only in part it
says that this is the closest there is. English and Chinese. Questions, and answers
that were themselves quoted from memory, are never quoted. Deterministic; keeps nothing between calls.

A sentence scores by the rare words it shares with the question (inverse frequency over the sentences at
hand), by the kind of thing asked for (a name, a time, a number, a place) and by how well its memory was
recalled.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

QUOTES_MAX = 3
SENTENCE_CHARS_MAX = 400
_COVERED_SURE = 0.5
_FIT_SURE = 0.7
_CLOSEST_EN = "I do not remember exactly that; the closest is:"
_CLOSEST_ZH = "我不记得确切的内容，最接近的是："
MARK = "extractive"  # what `answered_by` says of an answer that was quoted from memory

Terms = Callable[[str], Mapping[str, int]]

_ENDS = re.compile(
    r"(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bSt\.)(?<!\bMrs\.)(?<!\bProf\.)"
    r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)\]]))\s+"
    r"|(?<=[。！？])(?![”’」』）])|(?<=[。！？][”’」』）])|\n+"
)
_CJK = re.compile(r"[㐀-鿿]")
_QUESTION_END = re.compile(r"[?？][\"'”’)」』\s]*$|[吗呢][。?？]?\s*$")
# Words that ask and tell nothing; in Chinese, pairs of characters that contain them are no words either.
_ASKING = re.compile(
    r"\b(?:tell me|show me|remind me|know|remember|recall|mention(?:ed)?|sa(?:y|id)|told|again)\b"
    r"|什么时候|为什么|什么|哪里|哪儿|哪天|怎么|多少|几个|几点|几岁|是谁|谁|吗|呢|记得|告诉我",
    re.I,
)
_CAPITAL = re.compile(r"(?<!^)(?<![.!?]\s)\b[A-Z][a-z]+")
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|hundred)\b", re.I
)
_WHEN = re.compile(
    r"\d{1,2}:\d{2}|\b\d{1,2}\s?[ap]m\b|\b(?:19|20)\d{2}\b|[年月日号点]|昨天|今天|明天|上周|下周|星期|周[一二三四五六日]"
    r"|\b(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|yesterday|today|tomorrow|tonight|weekends?|weeks?|months?"
    r"|years?|morning|evening|last|next|ago|since)\b",
    re.I,
)
_WHERE = re.compile(
    r"\b(?:in|at|to|from|near|on|by|along)\s+(?:the\s+|our\s+|my\s+)?[A-Z]|[在去到从]|街|市|路"
)
_NAMED = re.compile(r"\b(?:named?|called)\b|叫|名", re.I)

_ASKS: tuple[tuple[re.Pattern[str], tuple[re.Pattern[str], ...]], ...] = (
    (re.compile(r"\bwho(?:se|m)?\b|谁", re.I), (_CAPITAL,)),
    (re.compile(r"\bname\b|\bcalled\b|名字|叫什么", re.I), (_NAMED, _CAPITAL)),
    (
        re.compile(r"\bwhen\b|\bwh(?:at|ich)\s+(?:day|date|time|year|month)\b|什么时候|几点|哪天|何时", re.I),
        (_WHEN,),
    ),
    (re.compile(r"\bhow\s+(?:many|much|old|long|often)\b|多少|几个|几岁", re.I), (_NUMBER,)),
    (re.compile(r"\bwhere\b|哪里|哪儿|什么地方", re.I), (_WHERE,)),
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One recalled memory, as the answerer sees it. `fit` in 0..1: how well recall thought it fits."""

    id: str
    text: str
    speaker: str = ""  # a name, else ""
    role: str = ""
    said_at: datetime | None = None
    fit: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """`lines` joined by newlines are the answer; `used` the ids of the memories that are quoted."""

    lines: tuple[str, ...]
    used: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def found(self) -> bool:
        return bool(self.used)


@dataclass(frozen=True, slots=True)
class _Candidate:
    evidence: Evidence
    order: int  # of the memory in recall
    sentence: str
    terms: frozenset[str]


class ExtractiveAnswerer:
    """Quotes the best sentences. `terms` gives the words of a text as recall sees them.

    fit_min: how well a memory must have been recalled to be quoted although it shares no word with the
    question.
    """

    def __init__(self, terms: Terms, *, quotes_max: int = QUOTES_MAX, fit_min: float = 0.6) -> None:
        self._terms = terms
        self._quotes_max = quotes_max
        self._fit_min = fit_min

    def answer(self, question: str, evidence: Sequence[Evidence]) -> Answer:
        """The answer to `question` from `evidence`, which is in the order of recall."""
        chinese = is_chinese(question)
        asked = frozenset(self._terms(_ASKING.sub(" ", question)))
        candidates = list(self._candidates(question, evidence))
        weights = _weights(asked, candidates)
        scored = self._score(question, weights, candidates)
        quotes = self._choose(scored)
        if not quotes:
            return Answer((_nothing(chinese),), ())
        lines = [_said(c.sentence, c.evidence, chinese=chinese) for c in quotes]
        if not any(self._is_sure(weights, candidate) for candidate in quotes):
            lines.insert(0, _CLOSEST_ZH if chinese else _CLOSEST_EN)
        return Answer(tuple(lines), tuple(dict.fromkeys(c.evidence.id for c in quotes)))

    def _candidates(self, question: str, evidence: Sequence[Evidence]) -> Iterator[_Candidate]:
        folded = question.casefold().strip()
        seen: set[str] = set()
        for order, one in enumerate(evidence):
            for sentence in sentences(one.text):
                key = sentence.casefold()
                if key in seen or key == folded or _QUESTION_END.search(sentence):
                    continue
                seen.add(key)
                yield _Candidate(one, order, sentence, frozenset(self._terms(sentence)))

    def _score(
        self, question: str, weights: Mapping[str, float], candidates: Sequence[_Candidate]
    ) -> list[tuple[float, _Candidate]]:
        wanted = [marks for ask, marks in _ASKS if ask.search(question)]
        scored = []
        for candidate in candidates:
            covered = _covered(weights, candidate)
            if not covered and candidate.evidence.fit < self._fit_min:
                continue
            score = covered
            score += 0.35 * candidate.evidence.fit + 0.1 / (1 + candidate.order)
            for marks in wanted:
                score += 0.2 * sum(1 for mark in marks if mark.search(candidate.sentence)) / len(marks)
            if candidate.evidence.role == "assistant":
                score *= 0.8  # what the user said about himself counts more than what was replied
            scored.append((score, candidate))
        scored.sort(key=lambda pair: (-pair[0], pair[1].order))
        return scored

    def _is_sure(self, weights: Mapping[str, float], candidate: _Candidate) -> bool:
        """Whether most of the question is in the sentence, or recall found that it fits well."""
        return _covered(weights, candidate) >= _COVERED_SURE or candidate.evidence.fit >= _FIT_SURE

    def _choose(self, scored: Sequence[tuple[float, _Candidate]]) -> list[_Candidate]:
        """The best, and then those that are nearly as good and not a repetition."""
        if not scored:
            return []
        best = scored[0][0]
        chosen: list[_Candidate] = []
        for score, candidate in scored:
            if len(chosen) == self._quotes_max or (chosen and score < 0.75 * best):
                break
            if any(_overlap(candidate.terms, other.terms) > 0.7 for other in chosen):
                continue
            chosen.append(candidate)
        return chosen


def is_chinese(text: str) -> bool:
    """Whether to answer in Chinese: a fifth of the letters are Han characters."""
    letters = sum(1 for c in text if c.isalpha())
    return letters > 0 and len(_CJK.findall(text)) >= letters / 5


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped, the over-long ones shortened at a word."""
    return [_shortened(part.strip()) for part in _ENDS.split(text) if part and part.strip()]


def _shortened(sentence: str) -> str:
    if len(sentence) <= SENTENCE_CHARS_MAX:
        return sentence
    cut = sentence.rfind(" ", 0, SENTENCE_CHARS_MAX)
    return sentence[: cut if cut > 0 else SENTENCE_CHARS_MAX].rstrip() + "…"


def _weights(asked: frozenset[str], candidates: Sequence[_Candidate]) -> dict[str, float]:
    """How much each term of the question weighs: the rarer among the candidates, the more."""
    count = Counter(term for candidate in candidates for term in candidate.terms & asked)
    return {
        term: math.log1p(len(candidates) / count[term] if term in count else len(candidates) + 1)
        for term in asked
    }


def _covered(weights: Mapping[str, float], candidate: _Candidate) -> float:
    """The share of the question's weight that the sentence has, 0..1."""
    return sum(weights[term] for term in candidate.terms & weights.keys()) / (sum(weights.values()) or 1.0)


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(1, min(len(one), len(other)))


def _nothing(chinese: bool) -> str:
    return "我没有关于这件事的记忆。" if chinese else "I have no memory about that."


def _said(sentence: str, evidence: Evidence, *, chinese: bool) -> str:
    when = evidence.said_at.astimezone() if evidence.said_at else None
    if chinese:
        who = evidence.speaker or {"user": "你", "assistant": "我"}.get(evidence.role, "")
        date = f"{when.year}年{when.month}月{when.day}日" if when else ""
        source = (
            f"（{who}{'于' if who and date else ''}{date}{'说过' if who else ''}）" if who or date else ""
        )
        return f"“{sentence}”{source}"
    who = evidence.speaker or {"user": "you", "assistant": "I"}.get(evidence.role, "")
    date = f"{when.day} {when:%B %Y}" if when else ""
    parts = [f"{who} said" if who else "", f"on {date}" if date else ""]
    source = " ".join(part for part in parts if part)
    return f"“{sentence}”" + (f" ({source})" if source else "")
