"""Parts of the calendar in words: quarters, halves, decades, seasons of a year, anniversaries ("two years ago
today"), and the words that change what an expression means ("early", "the week of", 年底).

The rules are tried before those of `date_rules`, being longer; `framed` is applied to every expression, whichever
rule has read it. What may mean something else is read only where the words leave no doubt: "in Q3", not "the Q3";
"the third quarter of 2025", not "of the game". Pure.

A third of a month is ten days, of a quarter or season a month, of a year four months, of a decade three or four years.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

from memos.retrieval.date_rules import (
    COUNT,
    DAY,
    HAN_COUNT,
    HAN_UNITS,
    HAN_YEAR_SAID,
    YEAR,
    YEAR_SAID,
    Rule,
    Span,
    add_months,
    after_words,
    han_number,
    han_year_said,
    number_of,
    of_day,
    of_part,
    of_season,
    of_week,
    rule,
    step_of,
    year_said,
)

_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": 4, "final": 4,
             "1st": 1, "2nd": 2, "3rd": 3, "4th": 4}  # fmt: skip
_PARTS = {"quarter": 4, "half": 2}
_DECADES = {
    "forties": 1940,
    "fifties": 1950,
    "sixties": 1960,
    "seventies": 1970,
    "eighties": 1980,
    "nineties": 1990,
}
_SAID_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1, "to the day": 0,
              "今天": 0, "今日": 0, "昨天": -1, "明天": 1}  # fmt: skip
_EN_UNIT = r"(day|week|month|year)s?"
_HAN_SEASONS = {"春": "spring", "夏": "summer", "秋": "autumn", "冬": "winter"}


def _decade(year: int) -> Span:
    return Span(date(year, 1, 1), date(year + 10, 1, 1))


def _quarter_away(count: int, today: date) -> Span:
    first = add_months(date(today.year, 3 * ((today.month - 1) // 3) + 1, 1), 3 * count)
    return Span(first, add_months(first, 3))


def _same_day(unit: str, count: int, day: date) -> Span:
    """The day so many units away; what a month lacks is its last day."""
    if unit in {"day", "week"}:
        return of_day(day + count * (7 if unit == "week" else 1) * DAY)
    month = add_months(day, count * (12 if unit == "year" else 1))
    return of_day(month.replace(day=min(day.day, monthrange(month.year, month.month)[1])))


def _ordinal(match: re.Match[str], today: date) -> Span | None:
    parts, number = _PARTS[match[2]], _ORDINALS[match[1]]
    if match[1] in {"last", "final"}:
        number = parts
    year = today.year if match[3] == "the year" else year_said(match[3], today)
    return of_part(parts, number, year, today) if number <= parts else None


def _han_decade(match: re.Match[str], _: date) -> Span:
    tens = han_number(match[2]) % 100
    century = {"上": 1900, "二十": 1900, "20": 1900, "21": 2000, "二十一": 2000}.get(match[1] or "")
    return _decade((1900 if tens >= 30 else 2000) + tens if century is None else century + tens)


PERIOD_ENGLISH_RULES: tuple[Rule, ...] = (
    rule(
        rf"\bq([1-4])(?: of|,)?[ /-]?({YEAR_SAID})\b",
        lambda m, today: of_part(4, int(m[1]), year_said(m[2], today), today),
    ),
    rule(rf"\b({YEAR})[ /-]?q([1-4])\b", lambda m, today: of_part(4, int(m[2]), int(m[1]), today)),
    rule(
        rf"{after_words('in', 'during', 'since', 'until', 'by', 'before', 'after', 'between', 'from')}q([1-4])\b(?! of\b)",
        lambda m, today: of_part(4, int(m[1]), None, today),
    ),
    rule(rf"\bh([12])(?: of)?[ /-]({YEAR})\b", lambda m, today: of_part(2, int(m[1]), int(m[2]), today)),
    rule(rf"\b({'|'.join(_ORDINALS)}) (quarter|half)(?: of|,)? ({YEAR_SAID}|the year)\b", _ordinal),
    rule(
        r"\b(last|past|previous|this|next|coming) quarter\b(?!-| (?:of|mile|hour|moon|pounder|century|note|back)\b)",
        lambda m, today: _quarter_away(step_of(m[1]) or 0, today),
    ),
    rule(rf"(?<!\band )\b({COUNT}) quarters? ago\b", lambda m, today: _quarter_away(-number_of(m[1]), today)),
    rule(
        rf"\b({COUNT}) {_EN_UNIT} ago (today|yesterday|tomorrow|to the day)\b",
        lambda m, today: _same_day(m[2], -number_of(m[1]), today + _SAID_DAYS[m[3]] * DAY),
    ),
    rule(
        r"\b(?:this (?:very |same )?day|the same day|today) last (week|month|year)\b",
        lambda m, today: _same_day(m[1], -1, today),
    ),
    rule(
        rf"\b(?:(last|previous|this|next|coming) )?(spring|summer|autumn|fall|winter)\b(?: of)?(?: ({YEAR_SAID})\b)?",
        lambda m, today: (
            None
            if m[2] in {"spring", "fall"} and not m[1] and not m[3]
            else of_season(m[2], step_of(m[1]), year_said(m[3], today), today)
        ),
    ),
    rule(
        rf"\b({YEAR}) ?[-–—~] ?({YEAR})\b(?![.:/-]?\d)",
        lambda m, _: Span(date(int(m[1]), 1, 1), date(int(m[2]) + 1, 1, 1)) if m[1] < m[2] else None,
    ),
    rule(r"(?<!\w)'([2-9]0)s\b", lambda m, _: _decade(1900 + int(m[1]))),
    rule(
        rf"{after_words('the', 'the early', 'the mid', 'the late', more=('the mid-',))}({'|'.join(_DECADES)})\b",
        lambda m, _: _decade(_DECADES[m[1]]),
    ),
)  # fmt: skip

PERIOD_CHINESE_RULES: tuple[Rule, ...] = (
    rule(
        rf"(?:({HAN_YEAR_SAID})的?)?第?([一二三四1-4])季度",
        lambda m, today: of_part(4, han_number(m[2]), han_year_said(m[1], today), today),
    ),
    rule(
        rf"({HAN_YEAR_SAID}) ?q([1-4])(?!\d)",
        lambda m, today: of_part(4, int(m[2]), han_year_said(m[1], today), today),
    ),
    rule(r"(上个?|这个?|本|下个?)季度", lambda m, today: _quarter_away(step_of(m[1]) or 0, today)),
    rule(rf"({HAN_COUNT})个季度(?:以前|之前|前)", lambda m, today: _quarter_away(-han_number(m[1]), today)),
    rule(
        rf"(?:({HAN_YEAR_SAID})的?)?([上下])半年",
        lambda m, today: of_part(2, "上下".index(m[2]) + 1, han_year_said(m[1], today), today),
    ),
    rule(
        rf"(?:({HAN_YEAR_SAID})的?|(上个?|这个?|下个?))?([春夏秋冬])(?:天|季)",
        lambda m, today: of_season(_HAN_SEASONS[m[3]], step_of(m[2]), han_year_said(m[1], today), today),
    ),
    rule(
        rf"({HAN_COUNT})个?({'|'.join(HAN_UNITS)})(?:以前|之前|前)的?(今天|今日|昨天|明天)",
        lambda m, today: _same_day(HAN_UNITS[m[2]], -han_number(m[1]), today + _SAID_DAYS[m[3]] * DAY),
    ),
    rule(
        r"(去年|前年)的?(今天|今日|昨天|明天)",
        lambda m, today: _same_day("year", -1 if m[1] == "去年" else -2, today + _SAID_DAYS[m[2]] * DAY),
    ),
    rule(r"((?:19|20)\d0)年代", lambda m, _: _decade(int(m[1]))),
    rule(r"(?:(上|20|二十|21|二十一)世纪)?([二三四五六七八九]十|[2-9]0)年代", _han_decade),
    rule(
        rf"({YEAR})年? ?[-–—~到至] ?({YEAR})年",
        lambda m, _: Span(date(int(m[1]), 1, 1), date(int(m[2]) + 1, 1, 1)) if m[1] < m[2] else None,
    ),
)


# -- words around an expression -------------------------------------------------------------------------


def third(span: Span, number: int) -> Span:
    """The first (0), second or last third; spans shorter than a month stay whole."""
    days = (span.end - span.first).days
    if days < 28:
        return span
    first, end = span.first, span.end
    if days < 32:
        borders = [first, first + 10 * DAY, first + 20 * DAY, end]
    elif days < 3_000:
        months = 12 * (end.year - first.year) + end.month - first.month
        borders = [add_months(first, months * part // 3) for part in range(3)] + [end]
    else:
        borders = [date(first.year + years, 1, 1) for years in (0, 4, 7)] + [end]
    return replace(span, first=borders[number], end=borders[number + 1], around=(first, end))


_THIRDS = {
    "early": 0, "beginning": 0, "start": 0, "mid": 1, "middle": 1, "late": 2, "end": 2,
    "初": 0, "早期": 0, "初期": 0, "上旬": 0, "中期": 1, "中旬": 1, "年中": 1, "后期": 2, "末期": 2, "下旬": 2, "底": 2, "末": 2,
}  # fmt: skip


def _near(match: re.Match[str], span: Span) -> Span | None:
    """The day, week or weekend of, before or after a day (or a longer time)."""
    unit, where = match[1], match[2]
    if where == "of":
        if span.end - span.first > timedelta(days=1) or unit == "day":
            return None
        week = of_week(span.first)
        return week if unit == "week" else Span(week.first + 5 * DAY, week.end)
    is_before = where in {"before", "preceding", "prior to"}
    if unit == "weekend":
        week = of_week(span.first - 2 * DAY) if is_before else of_week(span.end)
        if is_before and week.end > span.first:
            week = of_week(week.first - DAY)
        return Span(week.first + 5 * DAY, week.end)
    length = timedelta(days=7 if unit == "week" else 1)
    return Span(span.first - length, span.first) if is_before else Span(span.end, span.end + length)


Frame = Callable[[re.Match[str], Span], Span | None]

_FRAMES_BEFORE: tuple[tuple[re.Pattern[str], Frame], ...] = (
    (re.compile(r"\b(?:the )?(early|mid|late)[ -](?:in )?$"), lambda m, span: third(span, _THIRDS[m[1]])),
    (
        re.compile(r"\b(?:the )?(?:very )?(beginning|start|middle|end) of (?:the )?$"),
        lambda m, span: third(span, _THIRDS[m[1]]),
    ),
    (
        re.compile(
            r"\b(?:the )?(day|week|weekend) (of|before|after|following|preceding|prior to) (?:the )?$"
        ),
        _near,
    ),
)
_FRAMES_AFTER: tuple[tuple[re.Pattern[str], Frame], ...] = (
    (
        re.compile(r"^(?:份|年)?的?(早期|初期|中期|后期|末期|上旬|中旬|下旬|年中|初(?![中一二三四次级恋])|底(?!下)|末)"),
        lambda m, span: third(span, _THIRDS[m[1]]),
    ),
    (
        re.compile(r"^(?:所在的?)?(?:那|当|这)一?个?(?:周末|(?:周|星期|礼拜)(?![一二三四五六日天]))"),
        lambda m, span: (
            None
            if span.end - span.first > DAY
            else Span(of_week(span.first).end - 2 * DAY, of_week(span.first).end)
            if m[0].endswith("末")
            else of_week(span.first)
        ),
    ),
)  # fmt: skip
_WORDS_BEFORE, _WORDS_AFTER = 32, 8  # characters looked at


def framed(folded: str, placed: list[tuple[int, int, Span]]) -> list[tuple[int, int, Span]]:
    """The expressions of a text, in order, with the words around each that narrow or move it taken in."""
    found: list[tuple[int, int, Span]] = []
    reached = 0
    for index, (begin, end, span) in enumerate(placed):
        before = folded[max(reached, begin - _WORDS_BEFORE) : begin]
        following = placed[index + 1][0] if index + 1 < len(placed) else len(folded)
        after = folded[end : max(end, min(following, end + _WORDS_AFTER))]
        for pattern, frame in _FRAMES_BEFORE:
            match = pattern.search(before)
            changed = frame(match, span) if match else None
            if match and changed is not None:
                begin, span = begin - (len(before) - match.start()), changed
                break
        for pattern, frame in _FRAMES_AFTER:
            match = pattern.search(after)
            changed = frame(match, span) if match else None
            if match and changed is not None:
                end, span = end + match.end(), changed
                break
        reached = end
        found.append((begin, end, span))
    return found
