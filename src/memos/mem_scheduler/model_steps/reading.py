"""Statements that turns and documents make, beyond what rules read out of them. The prompt is `memory_reading`.

One question a window of neighbouring items in one language. The model is told what rules have noted already
and asked for the rest; for each statement it points to the items that say it and copies their words. Both are
checked: a statement without its quote, with a number or a name that nobody said, with a date that cannot be
told, with an order in it, or said by the assistant alone, is dropped and counted. What rules read stands beside
what the model read. An item of which neither made anything says why.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from memos import prompts
from memos.errors import InvalidInput
from memos.mem_scheduler.model_steps.lines import gives_orders
from memos.mem_scheduler.model_steps.slots import fact_in
from memos.memory.document_items import document_of
from memos.memory.extract import Derivation, Derived, Skipped, derive, speaker_of
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.learning import Extractor
from memos.memory.moments import parse_moment
from memos.memory.relative_dates import absolute
from memos.memory.signature import signature
from memos.models.ask import Answer, ask, numbered, quoted
from memos.models.base import LLM
from memos.models.extractive import is_chinese
from memos.retrieval.entities import entities
from memos.retrieval.keywords import analyse
from memos.retrieval.stopwords import ENGLISH

STEP = "memory_reading"
ANSWERS_MAX = 256
WINDOW_CHARS_MAX = 6_000
WINDOW_ITEMS_MAX = 40
ITEM_CHARS_MAX = 2_200
FOUND_MAX = 40  # statements of one window that are kept
QUOTES_MAX = WINDOW_ITEMS_MAX  # of one statement
KNOWN_MAX = 40
TAGS_MAX = 5
QUOTE_CHARS_MIN = 4
QUOTE_HAN_MIN = 2
STATEMENT_CHARS_MAX = 500
KEY_CHARS_MAX = 80
# Of a statement's words that stand in what it cites; the rest may say it better. Chinese words are pairs of
# characters here, of which a rewording keeps fewer.
WORDS_SHARE_MIN: Mapping[str, float] = {"en": 0.2, "zh": 0.1}
CONFIDENCE_MAX = 0.9  # a model's word is never worth more than what rules are sure of

# The bounds are wide: they keep a small model that is held to the schema from going on for ever.
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "statements": {
            "type": "array",
            "maxItems": 2 * FOUND_MAX,
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "kind": {"type": "string", "enum": ["person", "event", "knowledge"]},
                    "key": {"type": "string"},
                    "tags": {"type": "array", "maxItems": 4 * TAGS_MAX, "items": {"type": "string"}},
                    "date": {"type": "string"},
                    "confidence": {"type": "number"},
                    "evidence": {
                        "type": "array",
                        "maxItems": QUOTES_MAX,
                        "items": {
                            "type": "object",
                            "properties": {"item": {"type": "integer"}, "quote": {"type": "string"}},
                            "required": ["item", "quote"],
                            "additionalProperties": False,
                        },
                    },
                },
                "required": ["text", "kind", "key", "tags", "date", "confidence", "evidence"],
                "additionalProperties": False,
            },
        },
        "nothing": {"type": "string"},
    },
    "required": ["statements", "nothing"],
    "additionalProperties": False,
}

_DATES = re.compile(
    r"\b\d{4}-\d{2}(?:-\d{2})?\b|\b\d{1,2}(?:st|nd|rd|th)? (?:of )?[A-Z][a-z]{2,8},? \d{4}\b"
    r"|\b[A-Z][a-z]{2,8} \d{1,2}(?:st|nd|rd|th)?,? \d{4}\b|\b[A-Z][a-z]{2,8} \d{4}\b|\b(?:19|20)\d{2}\b"
    r"|\d{4}年(?:\d{1,2}月(?:\d{1,2}[日号])?)?|\d{1,2}月\d{1,2}[日号]"
)
_NOW = re.compile(
    r"(?<=[a-z]) (?:now|currently)(?= [a-z]|\.?$)|(?<=[\u4e00-\u9fff])(?:现在|目前)(?=[\u4e00-\u9fff])"
)
_DIGITS = re.compile(r"\d+")
_NAME = re.compile(r"\b[A-Z][a-z]+\b")
# Words with a capital that nobody has to have said: the first of a sentence, and those of dates.
_NO_NAMES = ENGLISH | frozenset(
    [
        "user",
        "users",
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
        "week",
    ]
)


@dataclass(frozen=True, slots=True)
class Window:
    """Items that are asked about together, in the language of the question."""

    items: tuple[MemoryItem, ...]
    language: prompts.Language


@dataclass(frozen=True, slots=True)
class WindowRead:
    """What the model read out of one window, how much of it was dropped, and why it found nothing."""

    window: Window
    answer: Answer
    derived: tuple[Derived, ...] = ()
    dropped: int = 0
    nothing: str = ""


class ReadAnswers:
    """Windows that were answered, the last ones, for messages that come again. Thread-safe."""

    def __init__(self, entries_max: int = ANSWERS_MAX) -> None:
        self._lock = threading.Lock()
        self._entries_max = entries_max
        self._kept: OrderedDict[tuple[object, ...], WindowRead] = OrderedDict()

    def get(self, key: tuple[object, ...]) -> WindowRead | None:
        with self._lock:
            return self._kept.get(key)

    def put(self, key: tuple[object, ...], read: WindowRead) -> None:
        with self._lock:
            if read.answer.usable:
                self._kept[key] = read
            while len(self._kept) > self._entries_max:
                self._kept.popitem(last=False)


def items_to_read(items: Sequence[MemoryItem]) -> list[MemoryItem]:
    """Those of the items that are worth a question; system turns are none."""
    return [item for item in items if item.raw and item.live and item.role != "system"]


def windows(items: Sequence[MemoryItem]) -> Iterator[Window]:
    """The items in runs of one language and of bounded length, in their order."""
    run: list[MemoryItem] = []
    chars = 0
    chinese = False
    for item in items_to_read(items):
        length = min(len(item.memory), ITEM_CHARS_MAX)
        now_chinese = is_chinese(item.memory)
        full = len(run) == WINDOW_ITEMS_MAX or chars + length > WINDOW_CHARS_MAX
        if run and (full or now_chinese != chinese):
            yield Window(tuple(run), "zh" if chinese else "en")
            run, chars = [], 0
        run.append(item)
        chars += length
        chinese = now_chinese
    if run:
        yield Window(tuple(run), "zh" if chinese else "en")


def read_window(llm: LLM, window: Window) -> WindowRead:
    """Ask about one window. Raises RateLimited."""
    by_rules = derive(window.items).derived
    known = [one.text for one in by_rules][:KNOWN_MAX]
    lines = [_line(item) for item in window.items]
    values = {
        "items": numbered(lines, window.language),
        "known": numbered([quoted(text) for text in known], window.language),
    }
    answer = ask(llm, STEP, values, SCHEMA, language=window.language)
    if not answer.usable:
        return WindowRead(window, answer)
    rows = answer.fields["statements"]
    told = {text.casefold() for text in known}
    filled = {fact for one in by_rules if (fact := _filled(one)) is not None}
    found: dict[str, Derived] = {}
    for row in rows:
        one = _derived(row, window, answer.model)
        if one is None or one.text.casefold() in told or len(found) == FOUND_MAX:
            continue
        fact = _filled(one)
        if fact is None or fact not in filled:  # a fact has one statement, in whatever words it was noted
            found.setdefault(one.text.casefold(), one)
            filled |= {fact} if fact is not None else set()
    nothing = quoted(str(answer.fields["nothing"]), chars_max=200)
    return WindowRead(window, answer, tuple(found.values()), len(rows) - len(found), nothing)


def extractor(reads: Sequence[WindowRead]) -> Extractor:
    """What rules read out of the items, and what the model read."""

    def extract(items: Sequence[MemoryItem]) -> Derivation:
        by_rules = derive(items)
        ids = {item.id for item in items}
        texts = {one.text.casefold() for one in by_rules.derived}
        more = tuple(
            one
            for read in reads
            for one in read.derived
            if set(one.sources) <= ids and one.text.casefold() not in texts
        )
        cited = {source for one in more for source in one.sources}
        why = {item.id: _why(read) for read in reads for item in read.window.items}
        skipped = tuple(
            Skipped(one.item_id, "; ".join(filter(None, (one.reason, why.get(one.item_id, "")))))
            for one in by_rules.skipped
            if one.item_id not in cited
        )
        return Derivation((*by_rules.derived, *more), skipped)

    return extract


def _filled(one: Derived) -> tuple[str, str, str, bool] | None:
    """What tells the fact of a statement from others."""
    fact = one.fact
    return None if fact is None else (*fact.identity, fact.folded_value, fact.ended)


def _why(read: WindowRead) -> str:
    """Why the model made nothing of an item."""
    if not read.answer.usable:
        return f"the model failed ({read.answer.fault})"
    if read.derived or not read.dropped:
        return f"the model notes nothing{f': {read.nothing}' if read.nothing else ' of it'}"
    return f"what the model noted is not in the text ({read.dropped} dropped)"


def _line(item: MemoryItem) -> str:
    """One item as a line of the prompt: where it stands or who says it, when, and its text."""
    if told := document_of(item):
        head = ", ".join(filter(None, (str(told.get("name", "")), str(told.get("place", "")))))
        return f"({head}) {quoted(item.memory, chars_max=ITEM_CHARS_MAX)}"
    when = "" if item.happened_at is None else f"{item.happened_at.astimezone(UTC):%Y-%m-%d %a} "
    who = speaker_of(item) or item.role
    return f"{when}{who}: {quoted(item.memory, chars_max=ITEM_CHARS_MAX)}"


# -- what of a model's words is kept ----------------------------------------------------------------


def _derived(row: Mapping[str, Any], window: Window, model: str) -> Derived | None:
    text = " ".join(str(row["text"]).split())
    if not text or len(text) > STATEMENT_CHARS_MAX or gives_orders(text):
        return None
    cited = _cited(row["evidence"], window)
    if not cited or all(_is_assistant(item) for item, _ in cited):
        return None
    when = next((item.happened_at for item, _ in cited if item.happened_at is not None), None)
    if when is not None:  # the statement keeps the time, and so "now" says no more
        text = _NOW.sub("", text)
    dated = absolute(text, when, chinese=window.language == "zh")
    if dated.unresolved:
        return None
    text = dated.text[0].upper() + dated.text[1:]
    if not _is_said(text, [item for item, _ in cited], window, may_date=when is not None):
        return None
    about = all(item.role == "user" for item, _ in cited)
    kind = MemoryKind.USER if row["kind"] == "person" and about else MemoryKind.LONG_TERM
    confidence = (
        min(CONFIDENCE_MAX, max(0.1, float(row["confidence"]))) if _finite(row["confidence"]) else 0.5
    )
    fact, since = fact_in(text, [item for item, _ in cited]) or (None, None)
    return Derived(
        text,
        kind,
        tuple(dict.fromkeys(item.id for item, _ in cited)),
        fact,
        # A fact's time decides which of two values holds: that is read out of what was said.
        since or _date(row["date"]) or dated.happened_at or when,
        confidence,
        tags=_tags(row["tags"]),
        key=quoted(str(row["key"]), chars_max=KEY_CHARS_MAX),
        told={"read_by": model, "quotes": [quote for _, quote in cited][:10]},
    )


def _cited(evidence: Sequence[Mapping[str, Any]], window: Window) -> list[tuple[MemoryItem, str]]:
    """The items whose copied words really stand in them."""
    found = []
    for one in evidence:
        place, quote = int(one["item"]), _flat(str(one["quote"]))
        least = QUOTE_HAN_MIN if window.language == "zh" else QUOTE_CHARS_MIN
        if 0 <= place < len(window.items) and len(quote) >= least:
            item = window.items[place]
            whole = _flat(item.memory)
            if quote in whole:
                found.append((item, quote))
    return found


def _is_said(text: str, cited: Sequence[MemoryItem], window: Window, *, may_date: bool) -> bool:
    """Whether the numbers and names of a statement, and some of its words, stand in what it cites."""
    said = "\n".join([item.memory for item in cited] + [speaker_of(item) for item in window.items])
    plain = _DATES.sub(" ", text) if may_date else text
    if not _numbers(plain) <= _numbers(said):
        return False
    words, known = frozenset(analyse(plain)), frozenset(analyse(said))
    if len(words & known) < max(1.0, WORDS_SHARE_MIN[window.language] * len(words)):
        return False
    together = "\n".join([said, *(item.memory for item in window.items)]).casefold()
    names = {*entities(plain), *_NAME.findall(plain)}
    return all(name.casefold() in together or name.casefold() in _NO_NAMES for name in names)


def _numbers(text: str) -> frozenset[str]:
    """The numbers of a text. A one in words is an article as often as not ("one of them", "一家")."""
    numbers = {*signature(text).numbers, *_DIGITS.findall(text)}
    return frozenset(numbers if "1" in _DIGITS.findall(text) else numbers - {"1"})


def _is_assistant(item: MemoryItem) -> bool:
    return item.role == "assistant" and not speaker_of(item)


def _date(written: object) -> datetime | None:
    if not isinstance(written, str) or not written.strip():
        return None
    try:
        return parse_moment(written.strip(), field="date")
    except InvalidInput:
        return None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and value == value and abs(value) < 1e9


def _tags(given: Sequence[Any]) -> tuple[str, ...]:
    """Short words; none that would pass for one of ours ("slot:home")."""
    plain = (" ".join(str(one).casefold().split()) for one in given)
    kept = (one for one in plain if one and ":" not in one and len(one) <= 40 and not gives_orders(one))
    return tuple(dict.fromkeys(kept))[:TAGS_MAX]


def _flat(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .。,，!！\"'“”…")
