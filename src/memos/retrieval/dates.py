"""Times in a query or a text: ranges to hold memories against, and whether a time is asked for or told.

English and Chinese, by rules (`date_rules`), relative to a moment of reference. Ranges are half-open,
`start <= moment < end`, in the reference's time zone. Guarantees: pure and total on any `str`, at most
`RANGES_MAX` ranges from the first `CHARACTERS_MAX` characters. Digits that are on no calendar
("2023-13-45") are passed over.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar

from memos.retrieval import date_rules
from memos.retrieval.date_periods import PERIOD_CHINESE_RULES, PERIOD_ENGLISH_RULES, framed
from memos.retrieval.date_rules import CHINESE_RULES, ENGLISH_RULES, Span

Day = TypeVar("Day", date, datetime)

RANGES_MAX = 8
CHARACTERS_MAX = 20_000
AROUND = 0.5  # how near a moment is that lies outside a vague part and inside its whole

_ASCII_RULES = PERIOD_ENGLISH_RULES + ENGLISH_RULES
_ALL_RULES = PERIOD_CHINESE_RULES + CHINESE_RULES + _ASCII_RULES

# What "before May" and "since May" are open to; a margin keeps conversions between time zones possible.
EARLIEST = date(1, 1, 3)
LATEST = date(9999, 12, 29)

_BEFORE = re.compile(r"\b(?:before|until|till|prior to|earlier than) (?:the )?$")
_AFTER = re.compile(r"\b(?:after|later than) (?:the )?$")
_SINCE = re.compile(r"\b(?:since|starting) (?:the )?$")
_BETWEEN = re.compile(r"\b(?:between|from) (?:the )?$|从$")
_AND = re.compile(r"^ ?(?:and|to|until|till|through|-|–|—|到|至) ?(?:the )?$")
_TO = re.compile(r"^ ?(?:-|–|—|~|到|至) ?$|^ (?:to|through|until|till) (?:the )?$")  # joins without "from"
_AND_CHINESE = re.compile(r"^(?:和|与|跟)$")
_BETWEEN_CHINESE = re.compile(r"^之?间")
_BEFORE_CHINESE = re.compile(r"^(?:以前|之前|前)")
_AFTER_CHINESE = re.compile(r"^(?:以后|之后|后)")
_SINCE_CHINESE = re.compile(r"^(?:以来|起|开始)")

_ASKS_WHEN = re.compile(
    r"\bwhen(?: exactly)? (?:did|do|does|is|was|were|are|will|would|has|have|had|can|could|should)\b"
    r"|\bwhen *(?:\?|$)|\bwhen's\b|\b(?:tell me|know) when\b"
    r"|\b(?:what|which) (?:exact )?(?:date|day|days|time|month|year|week|weekday|season)\b"
    r"|\bhow (?:long|recently|soon|many (?:days|weeks|months|years))\b|\bwhat's the date\b"
    r"|什么时候|什么时间|何时|几时|几点|几号|几月|哪[一]?[天年月日周]|星期几|周几|多久|哪个月|多长时间"
)
_TELLS_WHEN = re.compile(
    rf"\b(?:{date_rules.FULL_MONTH}|{date_rules.WEEKDAY}|yesterday|today|tonight|tomorrow|last night|weekend|recently|ago"
    r"|(?:in|of|since|during|by|until|before|after|early|mid|late|last|next) (?:may|march)|(?:may|march) \d{1,4}|\d{1,2}(?:st|nd|rd|th)? (?:of )?(?:may|march)"
    r"|(?:last|this|next|past) (?:week|month|quarter|year|spring|summer|autumn|fall|winter|few|couple|\w+ (?:days|weeks|months|years))"
    r"|(?:19|20)\d\ds?|\d{1,2}:\d\d|\d{1,2} ?[ap]\.?m|o'clock|noon|midnight|this (?:morning|afternoon|evening)"
    r"|(?:days|weeks|months|years) (?:later|before|after)|(?:for|in) (?:\w+ ){1,2}(?:days|weeks|months|years)|birthday|anniversary)\b"
    r"|[昨今明前后][天日年晚]|[上下本这]个?(?:周|星期|礼拜|月)|\d{1,4}[年月日号点]|[一二三四五六七八九十]月|[周星期]{1,2}[一二三四五六日天末]"
    r"|[天周月年](?:以前|之前|前)|去年|季度|半年|年代|[春夏秋冬][天季]|[年月][初底末]|最近|过去|刚才|早上|晚上|下午|中午"
)


@dataclass(frozen=True, slots=True)
class DateRange:
    """`start <= moment < end`, both aware. `recurring`: the year was not said, so any year may be meant. `around`: the
    month or year of a vague part of it ("early May")."""

    start: datetime
    end: datetime
    recurring: bool = False
    around: DateRange | None = None

    def nearness(self, moment: datetime) -> float:
        """1 inside, and less in the rest of `around`: what was early in a month is often told later in it."""
        if self.covers(moment):
            return 1.0
        return AROUND if self.around is not None and self.around.covers(moment) else 0.0

    def covers(self, moment: datetime) -> bool:
        """Whether an aware moment lies in the range; in that of any year if the range is recurring."""
        if self.start <= moment < self.end:
            return True
        if not self.recurring:
            return False
        local = moment.astimezone(self.start.tzinfo)
        length = self.end - self.start
        starts = (_in_year(self.start, year) for year in (local.year, local.year - 1) if year > EARLIEST.year)
        return any(start <= local < start + length for start in starts)


def date_ranges(text: str, reference: datetime) -> list[DateRange]:
    """The times that `text` names, in the order of appearance, seen from `reference`.

    A naive reference is taken as local time. "since", "before", "after" and "between … and …" make open
    or joined ranges.
    """
    zoned = reference if reference.tzinfo is not None else reference.astimezone()
    folded = _fold(text)
    placed = sorted(_spans(folded, zoned.date()), key=lambda found: found[0])
    joined = list(_joined(folded, framed(folded, placed), zoned.date()))
    unique = list(dict.fromkeys(joined))[:RANGES_MAX]

    def midnight(day: date) -> datetime:
        return datetime.combine(day, time.min, tzinfo=zoned.tzinfo or UTC)

    return [
        DateRange(
            midnight(span.first),
            midnight(span.end),
            span.recurring,
            span.around and DateRange(midnight(span.around[0]), midnight(span.around[1]), span.recurring),
        )
        for span in unique
    ]


def asks_when(query: str) -> bool:
    """Whether a query asks for a time ("when", "what day", "how long ago", 什么时候)."""
    return _ASKS_WHEN.search(_fold(query)) is not None


def tells_when(text: str) -> bool:
    """Whether a text mentions a time at all; cheap, for hundreds of candidates."""
    return _TELLS_WHEN.search(_fold(text)) is not None


def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text[:CHARACTERS_MAX]).replace("’", "'").casefold()
    return re.sub(r"[ \t\n\r]+", " ", folded)


def _spans(folded: str, today: date) -> Iterator[tuple[int, int, Span]]:
    """(begin, end, span) of each expression; what a rule has read is blanked for the later ones."""
    found = 0
    for rule in _ASCII_RULES if folded.isascii() else _ALL_RULES:
        blanked: list[tuple[int, int]] = []
        for match in rule.pattern.finditer(folded):
            span = _read(rule, match, today)
            if span is None:
                continue
            blanked.append(match.span())
            yield match.start(), match.end(), span
            found += 1
            if found >= 4 * RANGES_MAX:
                return
        for begin, end in blanked:
            folded = folded[:begin] + "\x00" * (end - begin) + folded[end:]


def _read(rule: date_rules.Rule, match: re.Match[str], today: date) -> Span | None:
    """What the match means; None for what is on no calendar, or lies outside the bounds."""
    try:
        span = rule.read(match, today)
    except (ValueError, OverflowError):
        return None
    return span if span is not None and span.first >= EARLIEST and span.end <= LATEST else None


def _joined(folded: str, placed: list[tuple[int, int, Span]], today: date) -> Iterator[Span]:
    """Apply the words around each expression."""
    index = 0
    while index < len(placed):
        begin, end, span = placed[index]
        before, after = folded[max(0, begin - 16) : begin], folded[end : end + 4]
        follower = placed[index + 1] if index + 1 < len(placed) else None
        index += 1
        stretch = _stretch(folded, before, (begin, end, span), follower)
        if stretch is not None:
            yield stretch
            index += 1
        elif _BEFORE.search(before) or _BEFORE_CHINESE.search(after):
            yield Span(EARLIEST, span.first)
        elif _AFTER.search(before) or _AFTER_CHINESE.search(after):
            yield Span(span.end, LATEST)
        elif _SINCE.search(before) or _SINCE_CHINESE.search(after):
            yield Span(span.first, max(span.end, today + timedelta(days=1)))
        else:
            yield span


def _stretch(
    folded: str, before: str, one: tuple[int, int, Span], follower: tuple[int, int, Span] | None
) -> Span | None:
    """From one expression to the end of the next, where the words between them say so."""
    if follower is None:
        return None
    gap = folded[one[1] : follower[0]]
    if not (
        _TO.match(gap)
        or (_BETWEEN.search(before) and _AND.match(gap))
        or (_AND_CHINESE.match(gap) and _BETWEEN_CHINESE.match(folded[follower[1] : follower[1] + 2]))
    ):
        return None
    first, end = _in_one_year(one[2], follower[2])
    return Span(first, end, one[2].recurring and follower[2].recurring) if first < end else None


def _in_one_year(earlier: Span, later: Span) -> tuple[date, date]:
    """First day and end of a stretch. A year that one side alone names holds for the other ("from January to March
    2022"); where neither does, it is the last stretch that is over or has come to its end's month."""
    first, end = earlier.first, later.end
    if earlier.recurring and not later.recurring:
        starts = (_in_year(first, year) for year in (later.first.year, later.first.year - 1))
        first = next((start for start in starts if start < end), first)
    elif later.recurring and not earlier.recurring:
        shifts = (earlier.first.year - later.first.year, earlier.first.year - later.first.year + 1)
        ends = (_in_year(end, end.year + shift) for shift in shifts)
        end = next((one for one in ends if one > first), end)
    elif earlier.recurring and first >= end:
        first = _in_year(first, first.year - 1)
    return first, end


def _in_year(moment: Day, year: int) -> Day:
    """The same day of another year; 29 February becomes the 28th where there is none."""
    try:
        return moment.replace(year=year)
    except ValueError:
        return moment.replace(year=year, day=28)
