"""Compaction of long episodes: the words that carry them, as they were said, in order. No model.

Two steps. First every sentence becomes its telegram (`memos.memory.terse`), as brief as the budget needs,
and small talk and what was said before go: in talk this halves the tokens and costs recall little, for the
words that go are those that no index asks for. Room that is left spells the worthiest sentences out again.
Only what is still over the budget is chosen by sentence: one is worth what its terms are worth to the
episode (centrality: the cosine of its weighted terms with those of the whole, after centroid summarisation,
Radev et al. 2004) and what can be asked about it (names, numbers, dates, statements), taken greedily by
maximal marginal relevance (Carbonell & Goldstein 1998), so that repetition goes first.
`benchmarks.compaction` prints what each ratio costs.

Nothing is rephrased: every kept word stands in its item, `Kept.item_id` says in which. The items
themselves are untouched; the caller decides what becomes of them. Pure, deterministic.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from memos.errors import InvalidInput
from memos.memory.extract import is_small_talk
from memos.memory.item import MemoryItem
from memos.memory.sentences import Mood, Sentence, sentences
from memos.memory.signature import signature
from memos.memory.terse import Brevity, terse
from memos.memory.token_count import count_tokens
from memos.retrieval.dates import tells_when
from memos.retrieval.entities import entities
from memos.retrieval.keywords import analyse

RATIO = 0.45  # the estimate of tokens errs by some hundredths; half of them is promised
DIVERSITY = 0.3  # how much likeness to what is kept already counts against a sentence
ITEMS_MAX = 2_000
SENTENCES_MAX = 400  # of one item; the rest of its text counts as one more

# What a sentence is worth beyond its terms; sums of what it holds.
_WORTH_NAME = 0.20  # each, up to two
_WORTH_NUMBER = 0.15
_WORTH_DATE = 0.15
_WORTH_STATEMENT = 0.10
_WORTH_QUESTION = -0.15
_NUMBER = re.compile(r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|thousand|first|second|third)\b|[一二三四五六七八九十百千两]+[个只岁年月日号点位本次]", re.I)  # fmt: skip
# Runs of marks are taken whole and from their beginning only: else a long run costs its square.
_SENTENCE = re.compile(
    r"\S.*?(?:(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s|\Z)|[。！？；]++[”’」』）]*+|\n|\Z)", re.DOTALL
)
_ABBREVIATED = re.compile(r"(?:^|[\s(])(?:Dr|Mr|Mrs|Ms|St|Prof|vs|e\.g|i\.e|Jr|Sr|approx|[A-HJ-Z])\.\Z")

_ABBREVIATION_CHARS_MAX = 10


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one sentence and the item it stands in."""

    text: str
    item_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Compaction:
    """The compacted episode: `summary` names who speaks; `kept` is in the order of the episode."""

    summary: str
    kept: tuple[Kept, ...]
    sources: tuple[str, ...]  # ids of the items of which something was kept
    dropped: tuple[str, ...]  # ids of the items of which nothing was kept
    tokens_before: int
    tokens_after: int  # of what is kept, without the names the summary adds

    @property
    def ratio(self) -> float:
        """Tokens after by tokens before; 1 for an empty episode."""
        return self.tokens_after / self.tokens_before if self.tokens_before else 1.0

    def by_item(self) -> dict[str, str]:
        """Item id -> what is kept of its text: the way to shorten the items in place."""
        parts: defaultdict[str, list[str]] = defaultdict(list)
        for one in self.kept:
            parts[one.item_id].append(one.text)
        return {item_id: " ".join(texts) for item_id, texts in parts.items()}


@dataclass(frozen=True, slots=True)
class _Candidate:
    place: int
    item: MemoryItem
    text: str
    terms: Mapping[str, int]
    bonus: float
    tokens: int
    idle: bool  # small talk, nothing but function words, or said before


def compact(
    items: Sequence[MemoryItem],
    *,
    ratio: float = RATIO,
    tokens_max: int | None = None,
    diversity: float = DIVERSITY,
    whole_sentences: bool = False,
) -> Compaction:
    """The compaction of one episode, its items in the order of the conversation.

    ratio: share of the tokens to keep at most; tokens_max: an absolute bound beside it. At least one
    sentence is kept of an episode that has any, if it fits neither. whole_sentences: choose among the
    sentences as they stand, none shortened. Raises InvalidInput for bad bounds.
    """
    _check(items, ratio, tokens_max, diversity)
    candidates = _candidates(items)
    before = sum(count_tokens(item.memory) for item in items)
    budget = math.floor(before * ratio) if tokens_max is None else min(math.floor(before * ratio), tokens_max)
    forms = [candidates] if whole_sentences else _forms(candidates)
    fitting = next((form for form in forms if _tokens(form) <= budget), forms[-1])
    chosen = _choose(fitting, budget, diversity)
    if fitting is not candidates:
        chosen = _spelt_out(chosen, candidates, budget)
    chosen = sorted(chosen, key=lambda one: one[0].place)
    kept = tuple(Kept(one.text, one.item.id, round(score, 6)) for one, score in chosen)
    sources = tuple(dict.fromkeys(one.item_id for one in kept))
    return Compaction(
        summary=_summary([one for one, _ in chosen]),
        kept=kept,
        sources=sources,
        dropped=tuple(item.id for item in items if item.id not in set(sources)),
        tokens_before=before,
        tokens_after=sum(one.tokens for one, _ in chosen),
    )


def _forms(candidates: list[_Candidate]) -> list[list[_Candidate]]:
    """The candidates as they stand and in ever fewer tokens; the first form that fits is taken."""
    return [candidates, *(_shortened(candidates, brevity) for brevity in Brevity)]


def _shortened(candidates: Sequence[_Candidate], brevity: Brevity) -> list[_Candidate]:
    found = []
    for one in candidates:
        text = "" if one.idle else terse(one.text, brevity)
        found.append(replace(one, text=text, tokens=count_tokens(text), idle=not text))
    return found


def _spelt_out(
    chosen: Sequence[tuple[_Candidate, float]], whole: Sequence[_Candidate], budget: int
) -> list[tuple[_Candidate, float]]:
    """The worthiest of the kept sentences as they stand, as long as the budget has room."""
    left = budget - sum(one.tokens for one, _ in chosen)
    spelt: list[tuple[_Candidate, float]] = []
    for one, worth in sorted(chosen, key=lambda pair: (-pair[1], pair[0].place)):
        more = whole[one.place].tokens - one.tokens
        if more <= left:
            left -= more
            spelt.append((whole[one.place], worth))
        else:
            spelt.append((one, worth))
    return spelt


def _tokens(candidates: Sequence[_Candidate]) -> int:
    return sum(one.tokens for one in candidates if not one.idle)


def _check(items: Sequence[MemoryItem], ratio: float, tokens_max: int | None, diversity: float) -> None:
    if not 0.0 < ratio <= 1.0:
        raise InvalidInput(f"ratio={ratio!r} must be above 0 and at most 1")
    if tokens_max is not None and tokens_max < 1:
        raise InvalidInput(f"tokens_max={tokens_max!r} must be at least 1; give None for no bound")
    if not 0.0 <= diversity <= 1.0:
        raise InvalidInput(f"diversity={diversity!r} must lie between 0 and 1")
    if len(items) > ITEMS_MAX:
        raise InvalidInput(f"the episode has {len(items)} items; at most {ITEMS_MAX} are compacted at once")


def _candidates(items: Sequence[MemoryItem]) -> list[_Candidate]:
    found: list[_Candidate] = []
    said: set[tuple[str, ...]] = set()
    for item in items:
        for text in _pieces(item.memory):
            terms = analyse(text)
            sequence = signature(text).sequence
            read = sentences(text)
            idle = all(is_small_talk(one) for one in read) or not terms or sequence in said
            said.add(sequence)
            bonus = max((_bonus(one, item.participants) for one in read), default=0.0)
            found.append(_Candidate(len(found), item, text, terms, bonus, count_tokens(text), idle))
    return found


def _pieces(text: str) -> list[str]:
    """The sentences of a text as they stand, end marks included."""
    found: list[str] = []
    for match in _SENTENCE.finditer(text):
        piece = match[0].strip()
        if len(found) >= SENTENCES_MAX:
            return [*found, text[match.start() :].strip()]
        if found and _ABBREVIATED.search(found[-1], max(0, len(found[-1]) - _ABBREVIATION_CHARS_MAX)):
            found[-1] += f" {piece}"
        elif piece:
            found.append(piece)
    return found


def _bonus(sentence: Sentence, participants: Sequence[str]) -> float:
    worth = _WORTH_NAME * min(2, len(entities(sentence.text, participants)))
    worth += _WORTH_NUMBER if _NUMBER.search(sentence.text) else 0.0
    worth += _WORTH_DATE if tells_when(sentence.text) else 0.0
    if sentence.mood is Mood.QUESTION:
        return worth + _WORTH_QUESTION
    return worth + (_WORTH_STATEMENT if sentence.mood is Mood.STATEMENT else 0.0)


def _choose(
    candidates: Sequence[_Candidate], budget: int, diversity: float
) -> list[tuple[_Candidate, float]]:
    """Greedy by worth a token's share, less likeness to what is kept; what does not fit is passed over."""
    worthy = [one for one in candidates if not one.idle]
    if not worthy:
        return []
    weights = _weights(worthy)
    vectors = [_unit({term: count * weights[term] for term, count in one.terms.items()}) for one in worthy]
    centroid = _unit(_sum(vectors))
    worth = [_dot(vector, centroid) + one.bonus for one, vector in zip(worthy, vectors, strict=True)]
    likeness = [0.0] * len(worthy)
    carrying: defaultdict[str, list[int]] = defaultdict(list)
    for number, vector in enumerate(vectors):
        for term in vector:
            carrying[term].append(number)
    open_ = set(range(len(worthy)))
    chosen: list[tuple[_Candidate, float]] = []
    left = budget
    while open_:
        fitting = [n for n in open_ if worthy[n].tokens <= left]
        if not fitting:
            break
        best = max(
            fitting, key=lambda n: (worth[n] * (1 - diversity) - diversity * likeness[n], -worthy[n].place)
        )
        open_ = set(fitting) - {best}
        chosen.append((worthy[best], worth[best]))
        left -= worthy[best].tokens
        for n in {n for term in vectors[best] for n in carrying[term]} & open_:
            likeness[n] = max(likeness[n], _dot(vectors[n], vectors[best]))
    if not chosen:  # not one fits: the best is kept, for an episode never becomes nothing
        best = max(range(len(worthy)), key=lambda n: (worth[n], -worthy[n].place))
        chosen.append((worthy[best], worth[best]))
    return chosen


def _weights(candidates: Sequence[_Candidate]) -> dict[str, float]:
    """Inverse sentence frequency of each term in the episode."""
    having = Counter(term for one in candidates for term in one.terms)
    return {term: math.log(1 + len(candidates) / count) for term, count in having.items()}


def _sum(vectors: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: defaultdict[str, float] = defaultdict(float)
    for vector in vectors:
        for term, value in vector.items():
            total[term] += value
    return total


def _unit(vector: Mapping[str, float]) -> dict[str, float]:
    length = math.sqrt(sum(value * value for value in vector.values())) or 1.0
    return {term: value / length for term, value in vector.items()}


def _dot(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    if len(one) > len(other):
        one, other = other, one
    return sum(value * other.get(term, 0.0) for term, value in one.items())


def _summary(chosen: Sequence[_Candidate]) -> str:
    """The kept sentences, those of one turn on one line behind the name of who said them."""
    lines: list[str] = []
    last = ""
    for one in chosen:
        if one.item.id == last:
            lines[-1] += f" {one.text}"
            continue
        who = one.item.participants[0] if one.item.participants else ""
        lines.append(f"{who}: {one.text}" if who else one.text)
        last = one.item.id
    return "\n".join(lines)
