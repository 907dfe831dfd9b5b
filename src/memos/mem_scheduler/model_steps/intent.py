"""Keywords and intent of several queries in one question: does working memory suffice, and what is missing?

The prompt is `intent_recognizing` (`INTENT_RECOGNIZING_PROMPT`). A model that answers about a single query
without numbering it, or says `missing_evidences`, is understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from memos.errors import RateLimited
from memos.mem_scheduler.model_steps.lines import gives_orders, lines_of
from memos.mem_scheduler.monitors.intent import Intent
from memos.memory.item import MemoryItem
from memos.models.ask import Answer, ask, language_of, numbered, quoted
from memos.models.base import LLM
from memos.models.structured import read_object

STEP = "intent_recognizing"
QUERIES_MAX = 20  # of one question, the newest; older ones keep the verdict of the rules
MEMORIES_MAX = 60
BEFORE_MAX = 5
KEYWORDS_MAX = 8
KEYWORD_CHARS_MAX = 40
GAPS_MAX = 3
GAP_CHARS_MAX = 200


def _names(count: int, chars: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "maxLength": chars}, "maxItems": count}


# The bounds are wide: they keep a small model that is held to the schema from going on for ever.
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "queries": {
            "type": "array",
            "maxItems": QUERIES_MAX,
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "keywords": _names(2 * KEYWORDS_MAX, 2 * KEYWORD_CHARS_MAX),
                    "trigger_retrieval": {"type": "boolean"},
                    "missing_evidence": _names(2 * GAPS_MAX, GAP_CHARS_MAX),
                },
                "required": ["index", "trigger_retrieval"],
            },
        }
    },
    "required": ["queries"],
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model says of one query."""

    intent: Intent
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdicts by the query's place; a query that the model passed over has none."""

    answer: Answer
    by_place: Mapping[int, Verdict] = field(default_factory=dict)
    dropped: int = 0


def recognise(
    llm: LLM,
    queries: Sequence[str],
    working: Sequence[MemoryItem],
    *,
    before: Sequence[str],
    today: datetime,
) -> Verdicts:
    """Ask about the queries, oldest first. Raises RateLimited."""
    first = max(0, len(queries) - QUERIES_MAX)
    asked = list(queries[first:])
    language = language_of(asked[-1])
    answer = ask(
        llm,
        STEP,
        {
            "today": f"{today.astimezone():%Y-%m-%d (%A)}",
            "before": numbered([quoted(one) for one in before[-BEFORE_MAX:]], language),
            "memory": numbered(lines_of(working[:MEMORIES_MAX]), language),
            "queries": numbered([quoted(one) for one in asked], language),
        },
        SCHEMA,
        language=language,
    )
    said = [*asked, *before, *(item.memory for item in working)]
    found, dropped = _read(_rows(answer), len(asked), " ".join(said).casefold(), bool(working))
    if found and not answer.usable:  # it said what was wanted in another shape
        answer = Answer(answer.step, answer.model, {}, calls=answer.calls)
    if answer.usable and not found:
        answer = Answer(
            STEP, answer.model, fault="no verdict on any query", raw=str(dict(answer.fields))[:4_000]
        )
    return Verdicts(answer, {first + place: one for place, one in found.items()}, dropped)


def judged(
    llm: LLM | None,
    query: str,
    working: Sequence[MemoryItem],
    by_rules: Intent,
    *,
    before: Sequence[str] = (),
    today: datetime,
) -> Intent:
    """The intent of one query for a caller that waits: the model's where rules are in doubt, theirs where it fails."""
    if llm is None or not by_rules.trigger_retrieval:
        return by_rules
    try:
        verdict = recognise(llm, [query], working, before=before, today=today).by_place.get(0)
    except RateLimited:
        return by_rules
    if verdict is None:
        return by_rules
    if not verdict.intent.trigger_retrieval:
        return verdict.intent
    return replace(verdict.intent, missing_evidence=(query, *verdict.intent.missing_evidence))


def _rows(answer: Answer) -> list[Any]:
    fields: Mapping[str, Any] = answer.fields
    if not answer.usable:
        try:
            fields = read_object(answer.raw)
        except ValueError:
            return []
    rows = fields.get("queries")
    return rows if isinstance(rows, list) else [{"index": 0, **fields}]


def _read(rows: Sequence[Any], count: int, said: str, remembers: bool) -> tuple[dict[int, Verdict], int]:
    found: dict[int, Verdict] = {}
    dropped = 0
    for row in rows:
        place = row.get("index") if isinstance(row, Mapping) else None
        trigger = row.get("trigger_retrieval") if isinstance(row, Mapping) else None
        if (
            not isinstance(place, int)
            or not 0 <= place < count
            or place in found
            or not isinstance(trigger, bool)
        ):
            dropped += 1
            continue
        keywords, lost = _keywords(row.get("keywords"), said)
        gaps, also = _gaps(row.get("missing_evidence"), row.get("missing_evidences"))
        dropped += lost + also
        if trigger or not remembers:  # nothing is in working memory: whatever it says, something is missing
            reason = "the model misses " + "; ".join(gaps) if gaps else "the model misses something"
            found[place] = Verdict(Intent(True, gaps, reason), keywords)
        else:
            reason = "the model finds in working memory what the query needs"
            found[place] = Verdict(Intent(False, (), reason), keywords)
    return found, dropped


def _keywords(given: Any, said: str) -> tuple[tuple[str, ...], int]:
    """Those that stand in what was said: a keyword that nobody said is made up."""
    words = given if isinstance(given, list) else []
    kept: dict[str, None] = {}
    for word in words:
        flat = " ".join(word.split()) if isinstance(word, str) else ""
        if flat and len(flat) <= KEYWORD_CHARS_MAX and flat.casefold() in said and len(kept) < KEYWORDS_MAX:
            kept[flat.casefold()] = None
    return tuple(kept), len(words) - len(kept)


def _gaps(*given: Any) -> tuple[tuple[str, ...], int]:
    phrases = [one for each in given if isinstance(each, list) for one in each]
    kept: dict[str, None] = {}
    for phrase in phrases:
        flat = " ".join(phrase.split()) if isinstance(phrase, str) else ""
        if flat and len(kept) < GAPS_MAX and not gives_orders(flat):
            kept[flat[:GAP_CHARS_MAX]] = None
    return tuple(kept), len(phrases) - len(kept)
