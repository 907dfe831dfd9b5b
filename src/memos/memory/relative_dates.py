"""Relative dates in a statement made absolute against the day it was made ("yesterday" -> "on 7 May 2023").

A derived statement is read long after its turn, so "last week" must not stay in it. What names a day gives
a day; what names a week, month, quarter or year gives that, no finer. Words that can mean two days stay as they are
and are reported as left over: the caller then makes no statement. Weeks begin on Monday. Pure.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")  # fmt: skip
_QUARTERS = ("first", "second", "third", "fourth")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = {
    **{word: n for n, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1)},
    **{word: n for n, word in enumerate("一二三四五六七八九十", 1)},
    "a": 1, "an": 1, "两": 2, "a couple of": 2,
}  # fmt: skip
COUNT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Dated:
    """The text with absolute dates; when it happened (the first date named), and words left unresolved."""

    text: str
    happened_at: datetime | None = None
    unresolved: str = ""


@dataclass(frozen=True, slots=True)
class _Span:
    start: datetime
    unit: str  # day, week, weekend, month, quarter, year


_COUNT = r"(?P<count>a couple of|an?|one|two|three|four|five|six|seven|eight|nine|ten|\d{1,3})"
_ENGLISH = re.compile(
    rf"\b(?P<before>(?:for|since|until|till|by|from|of|to|during|before|after)\s+)?(?:(?P<word>the day before yesterday|yesterday(?: (?:morning|afternoon|evening|night))?|today|tonight|last night"
    rf"|this (?:morning|afternoon|evening)|the day after tomorrow|tomorrow(?: (?:morning|afternoon|evening|night))?)"
    rf"|{_COUNT} (?P<unit>day|week|month|year)s? ago(?: (?P<same>today|yesterday))?"
    rf"|(?P<which>last|next|this) (?P<period>week|month|quarter(?! (?:of|mile|hour))|year|weekend)"
    rf"|(?:on )?last (?P<weekday>monday|tuesday|wednesday|thursday|friday|saturday|sunday))\b(?!')",
    re.I,
)
_LEFT = re.compile(
    r"\b(?:(?:this|next|on|last|the other) (?:monday|tuesday|wednesday|thursday|friday|saturday|sunday|day|night|spring|summer|fall"
    r"|autumn|winter|january|february|march|april|may|june|july|august|september|october|november|december)"
    r"|now|ago|recently|lately|soon|later|earlier|tomorrow|yesterday|today|tonight|last time|next time)\b"
    r"|刚才|刚刚|最近|不久|以前|下次|上次|周末|这个?[周月]|下个?[周月]|[上下]?(?:周|星期)[一二三四五六日天]",
    re.I,
)
_CHINESE = re.compile(
    r"(?P<word>大前天|前天|昨天|昨晚|今天|今早|今晚|明天|后天)(?:早上|上午|中午|下午|晚上)?"
    r"|(?P<count>[一二两三四五六七八九十]|\d{1,3})个?(?P<unit>天|周|星期|月|年)前(?:的?(?P<same>今天|昨天))?"
    r"|(?P<year>[去前]年)的?(?P<same_day>今天|昨天)"
    r"|(?P<period>上周(?![一二三四五六日天末])|上个?星期(?![一二三四五六日天])|上个?月|上个?季度|本季度|去年|前年|今年|明年|这个月|本月)"
)
_HAN_WORDS = {
    "大前天": -3,
    "前天": -2,
    "昨天": -1,
    "昨晚": -1,
    "今天": 0,
    "今早": 0,
    "今晚": 0,
    "明天": 1,
    "后天": 2,
}


def absolute(text: str, when: datetime | None, *, chinese: bool = False) -> Dated:
    """`text`, said at `when`, with its relative dates made absolute.

    Without `when` every relative date is left over. The days are those of `when` in its own time zone.
    """
    spans: list[_Span] = []
    midnight = None if when is None else when.replace(hour=0, minute=0, second=0, microsecond=0)
    if midnight is not None:
        form = _in_chinese if chinese else _in_english
        text = (_CHINESE if chinese else _ENGLISH).sub(_replacer(midnight, spans, form, chinese), text)
    left = _LEFT.search(text)
    if left is None and midnight is None:
        left = (_CHINESE if chinese else _ENGLISH).search(text)
    return Dated(text, spans[0].start if spans else None, left.group() if left else "")


def _replacer(
    day: datetime, spans: list[_Span], form: Callable[[_Span], str], chinese: bool
) -> Callable[[re.Match[str]], str]:
    def replaced(found: re.Match[str]) -> str:
        try:
            span = _han_span(found, day) if chinese else _span(found, day)
        except (OverflowError, ValueError):  # before the year 1
            span = None
        if span is None:
            return found[0]
        spans.append(span)
        before = "" if chinese else found["before"] or ""
        return before + form(span).split(" ", 1)[1] if before else form(span)

    return replaced


def _span(found: re.Match[str], day: datetime) -> _Span | None:
    if found["word"]:
        word = found["word"].lower()
        if word.startswith("the day before"):
            return _Span(day - timedelta(days=2), "day")
        if word.startswith("the day after"):
            return _Span(day + timedelta(days=2), "day")
        shift = -1 if word.startswith(("yesterday", "last")) else 1 if word.startswith("tomorrow") else 0
        return _Span(day + timedelta(days=shift), "day")
    if found["unit"]:
        count = found["count"].lower()
        return _ago(_NUMBERS.get(count) or int(count), found["unit"].lower(), day, found["same"])
    if found["weekday"]:
        back = (day.weekday() - _DAYS.index(found["weekday"].lower())) % 7
        return _Span(day - timedelta(days=back or 7), "day")
    shift = {"last": -1, "this": 0, "next": 1}[found["which"].lower()]
    return _period(found["period"].lower(), shift, day)


def _period(period: str, shift: int, day: datetime) -> _Span | None:
    if period == "weekend":
        # On a weekend "last weekend" may be this one; before it, it is the one that ended last Sunday.
        if shift != -1 or day.weekday() >= 5:
            return None
        return _Span(day - timedelta(days=day.weekday() + 2), "weekend")
    if period == "week":
        return _Span(day - timedelta(days=day.weekday()) + timedelta(weeks=shift), "week")
    if period == "quarter":
        return _Span(_month(day.replace(month=3 * ((day.month - 1) // 3) + 1, day=1), 3 * shift), "quarter")
    if period == "year":
        return _Span(day.replace(year=day.year + shift, month=1, day=1), "year")
    return _Span(_month(day, shift), "month")


def _ago(count: int, unit: str, day: datetime, same: str | None = None) -> _Span | None:
    """So many units ago; `same`: seen from that day ("two years ago today"), which names a day."""
    if count > COUNT_MAX:
        return None
    if same:
        day -= timedelta(days=same.lower() in ("yesterday", "昨天"))
        if unit in ("month", "year", "月", "年"):
            first = _month(day, -count * (12 if unit in ("year", "年") else 1))
            return _Span(first.replace(day=min(day.day, monthrange(first.year, first.month)[1])), "day")
        return _Span(day - timedelta(days=count * (1 if unit in ("day", "天") else 7)), "day")
    if unit in ("day", "天"):
        return _Span(day - timedelta(days=count), "day")
    if unit in ("week", "周", "星期"):
        return _Span(day - timedelta(days=day.weekday(), weeks=count), "week")
    if unit in ("month", "月"):
        return _Span(_month(day, -count), "month")
    return _Span(day.replace(year=day.year - count, month=1, day=1), "year")


def _month(day: datetime, shift: int) -> datetime:
    months = day.year * 12 + day.month - 1 + shift
    return day.replace(year=months // 12, month=months % 12 + 1, day=1)


def _han_span(found: re.Match[str], day: datetime) -> _Span | None:
    if found["word"]:
        return _Span(day + timedelta(days=_HAN_WORDS[found["word"]]), "day")
    if found["unit"]:
        count = found["count"]
        return _ago(_NUMBERS.get(count) or int(count), found["unit"], day, found["same"])
    if found["year"]:
        return _ago(1 if found["year"] == "去年" else 2, "年", day, found["same_day"])
    period = found["period"]
    if period.endswith("年"):
        shift = {"前": -2, "去": -1, "今": 0, "明": 1}[period[0]]
        return _Span(day.replace(year=day.year + shift, month=1, day=1), "year")
    if period.endswith("季度"):
        return _period("quarter", -1 if period.startswith("上") else 0, day)
    if period.endswith("月"):
        return _Span(_month(day, -1 if period.startswith("上") else 0), "month")
    return _period("week", -1, day)


def _day_month(day: datetime) -> str:
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def _in_english(span: _Span) -> str:
    if span.unit == "day":
        return f"on {_day_month(span.start)}"
    if span.unit in ("week", "weekend"):
        return f"in the {span.unit} of {_day_month(span.start)}"
    if span.unit == "quarter":
        return f"in the {_QUARTERS[span.start.month // 3]} quarter of {span.start.year}"
    return (
        f"in {_MONTHS[span.start.month - 1]} {span.start.year}"
        if span.unit == "month"
        else f"in {span.start.year}"
    )


def _in_chinese(span: _Span) -> str:
    start = span.start
    if span.unit == "day":
        return f"{start.year}年{start.month}月{start.day}日"
    if span.unit in ("week", "weekend"):
        return f"{start.year}年{start.month}月{start.day}日那一周"
    if span.unit == "quarter":
        return f"{start.year}年第{'一二三四'[start.month // 3]}季度"
    return f"{start.year}年{start.month}月" if span.unit == "month" else f"{start.year}年"
