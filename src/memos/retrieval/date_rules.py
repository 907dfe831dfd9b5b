"""The expressions of time that `memos.retrieval.dates` knows, each a pattern and what it means.

A rule turns a match and the day of reference into a `Span` of days, or into None where the digits are no
date. Rules stand in the order in which they are tried; what one has read no later one reads again. Pure.

Vague expressions get the days that a speaker could mean: "two weeks ago" is the week around that day,
"three months ago" the whole month. A weekday or month without a year is the last one that has begun;
"5/7/2023" is read month first unless the first number cannot be a month.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

DAY = timedelta(days=1)
_MONTHS = [
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
]
_SHORT_MONTHS = {name[:3]: number for number, name in enumerate(_MONTHS, 1)} | {"sept": 9}
_WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
NUMBER_NAMES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
_NUMBER_WORDS = {word: number for number, word in enumerate(NUMBER_NAMES)} | {
    "a": 1, "an": 1, "a couple of": 2, "couple of": 2, "a few": 3, "few": 3, "several": 4,
}  # fmt: skip
_HAN_DIGITS = {character: number for number, character in enumerate("零一二三四五六七八九")} | {
    "两": 2,
    "〇": 0,
}
SEASON_MONTHS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}  # of the north

MONTH = rf"(?:{'|'.join(_MONTHS)}|(?:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b\.?)"
FULL_MONTH = "|".join(name for name in _MONTHS if name not in {"may", "march"})
WEEKDAY = "|".join(_WEEKDAYS)
COUNT = rf"\d{{1,3}}|{'|'.join(NUMBER_NAMES[1:])}|(?:a )?couple of|(?:a )?few|several|an?"
HAN_COUNT = r"\d{1,3}|[一二两三四五六七八九十]{1,3}|几"
YEAR = r"(?:19|20)\d\d"
YEAR_SAID = rf"{YEAR}|(?:last|previous|this|next) year"
HAN_YEAR_SAID = r"(?:(?:19|20)\d\d|[一二][零〇一二三四五六七八九]{3})年|前年|去年|今年|明年|后年"


@dataclass(frozen=True, slots=True)
class Span:
    """Days from `first` up to, not including, `end`. `recurring`: the year was not said. `around`: the days of
    the whole that a vague part was taken of."""

    first: date
    end: date
    recurring: bool = False
    around: tuple[date, date] | None = None


Reading = Callable[[re.Match[str], date], Span | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern over folded text, and the reading of a match."""

    pattern: re.Pattern[str]
    read: Reading


# -- spans of the calendar --------------------------------------------------------------------------


def of_day(day: date) -> Span:
    return Span(day, day + DAY)


def of_week(day: date) -> Span:
    """The week of a day, Monday first."""
    monday = day - timedelta(days=day.weekday())
    return Span(monday, monday + 7 * DAY)


def of_month(year: int, month: int, *, recurring: bool = False) -> Span:
    first = date(year, month, 1)
    return Span(first, first + timedelta(days=monthrange(year, month)[1]), recurring)


def of_year(year: int) -> Span:
    return Span(date(year, 1, 1), date(year + 1, 1, 1))


def of_part(parts: int, number: int, year: int | None, today: date) -> Span:
    """One of the quarters (`parts` 4) or halves (2) of a year; without one the last that has begun."""
    months = 12 // parts
    month = (number - 1) * months + 1
    in_year = year if year is not None else today.year if month <= today.month else today.year - 1
    first = date(in_year, month, 1)
    return Span(first, add_months(first, months), recurring=year is None)


def of_season(name: str, step: int | None, year: int | None, today: date) -> Span:
    """A season; without a year the last that has begun, "last summer" one that is over."""
    month = SEASON_MONTHS[name]
    in_year = year
    if in_year is None:
        in_year = today.year if month <= today.month else today.year - 1
        over = add_months(date(in_year, month, 1), 3) <= today
        in_year += {1: 1, -1: 0 if over else -1}.get(step or 0, 0)
    first = date(in_year, month, 1)
    return Span(first, add_months(first, 3), recurring=step is None and year is None)


def add_months(day: date, months: int) -> date:
    """The first of the month that is so many months away."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, 1)


def _unit_away(unit: str, count: int, today: date) -> Span:
    """The day, week, month or year that is `count` units away; a week is the seven days around."""
    if unit == "day":
        return of_day(today + timedelta(days=count))
    if unit == "week":
        day = today + timedelta(weeks=count)
        return Span(day - 3 * DAY, day + 4 * DAY)
    if unit == "month":
        away = add_months(today, count)
        return of_month(away.year, away.month)
    return of_year(today.year + count)


def _unit_of_calendar(unit: str, step: int, today: date) -> Span:
    """Last, this or next (-1, 0, 1) week, weekend, month or year."""
    if unit == "week":
        return of_week(today + timedelta(weeks=step))
    if unit == "weekend":
        monday = of_week(today + timedelta(weeks=step)).first
        return Span(monday + 5 * DAY, monday + 7 * DAY)
    return _unit_away(unit, step, today)


def _stretch(unit: str, count: int, today: date) -> Span:
    """The last `count` units up to and including today."""
    if unit in {"day", "week"}:
        return Span(today - timedelta(days=count * (7 if unit == "week" else 1)), today + DAY)
    if unit == "month":
        month = add_months(today, -count)
        return Span(month + (min(today.day, monthrange(month.year, month.month)[1]) - 1) * DAY, today + DAY)
    return Span(date(today.year - count, today.month, min(today.day, 28)), today + DAY)


def _weekday(number: int, step: int | None, today: date) -> Span:
    """Of last (-1), this (0) or next (1) week; without a step the last one before today."""
    if step is None:
        return of_day(today - timedelta(days=(today.weekday() - number - 1) % 7 + 1))
    if step == -1 and number < today.weekday():
        # On a Sunday "last Friday" is two days ago, not nine.
        return of_day(today - timedelta(days=today.weekday() - number))
    return of_day(of_week(today + timedelta(weeks=step)).first + number * DAY)


def _month_without_year(month: int, step: int | None, today: date) -> Span:
    """The last that has begun; "last May" is one that is over, "next May" one to come."""
    year = today.year if month <= today.month else today.year - 1
    if step == -1 and month == today.month:
        year -= 1
    if step == 1:
        year += 1
    return of_month(year, month, recurring=step is None)


def _day_of_month(month: int, day: int, year: int | None, today: date) -> Span:
    if year is not None:
        return of_day(date(year, month, day))
    this_year = date(today.year if (month, day) != (2, 29) else 2024, month, day)
    found = (
        this_year
        if this_year <= today
        else date(this_year.year - (4 if day == 29 and month == 2 else 1), month, day)
    )
    return Span(found, found + DAY, recurring=True)


# -- words ------------------------------------------------------------------------------------------


def number_of(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBER_WORDS[word]


def han_number(word: str) -> int:
    """一 to 九十九, or digits; 几 ("a few") is three."""
    if word.isdigit():
        return int(word)
    if word == "几":
        return 3
    tens, ten, ones = word.partition("十")
    if not ten:
        return int("".join(str(_HAN_DIGITS[character]) for character in word))
    return (_HAN_DIGITS[tens[-1]] if tens else 1) * 10 + (_HAN_DIGITS[ones[0]] if ones else 0)


def month_of(word: str) -> int:
    return _SHORT_MONTHS[word[:3]]


def step_of(word: str | None) -> int | None:
    """Which way a word points; None where there is none."""
    if not word:
        return None
    return {
        "last": -1,
        "past": -1,
        "previous": -1,
        "上": -1,
        "上个": -1,
        "next": 1,
        "coming": 1,
        "下": 1,
        "下个": 1,
    }.get(word, 0)


def year_said(text: str | None, today: date) -> int | None:
    """The year of "2023" or "last year"; None for no text."""
    if not text:
        return None
    return int(text) if text.isdigit() else today.year + (step_of(text.split()[0]) or 0)


def han_year_said(text: str | None, today: date) -> int | None:
    """The year of "2023年" or "去年"; None for no text."""
    if not text:
        return None
    return today.year + HAN_YEARS[text] if text in HAN_YEARS else han_year(text.removesuffix("年"))


def after_words(*words: str, more: Sequence[str] = ()) -> str:
    """A pattern for the place right after one of the words and a blank, or of `more` as they are."""
    before = [rf"(?<=\b{word} )" for word in words] + [rf"(?<=\b{text})" for text in more]
    return f"(?:{'|'.join(before)})"


def han_year(word: str) -> int:
    return int(
        "".join(str(_HAN_DIGITS[character]) if character in _HAN_DIGITS else character for character in word)
    )


def _han_date(year: int, month: str, day: str | None) -> Span:
    if day is None:
        return of_month(year, han_number(month))
    return of_day(date(year, han_number(month), han_number(day)))


def _numeric(match: re.Match[str], _: date) -> Span:
    first, second, year = (int(part) for part in match.groups())
    return of_day(date(year, second, first) if first > 12 else date(year, first, second))


# "may" and "march" are months after these words only, before a number that counts nothing, and at the end of a stretch.
_VERBS = frozenset({"may", "march"})
_AFTER_PREPOSITION = after_words(
    *("in", "of", "since", "during", "by", "until", "before", "after", "early", "mid", "late"),
    more=("early-", "mid-", "late-"),
)
_MEASURED = re.compile(
    r" ?(?:km|kilomet|met(?:er|re)s|miles?|steps|people|persons|men|women|times|hours?|minutes?|seconds?|days?|weeks?|months?|years?"
    r"|of (?:us|them|you)|percent|more|or)\b"
)
_ENDS_STRETCH = re.compile(
    r"\b(?:between|from) (?:the )?(?:(?:early|mid|late)[ -])?\x00+ (?:and|to|until|till|through) $"
)

_EN_UNIT = r"(day|week|month|year)s?"
HAN_UNITS = {
    "天": "day",
    "日": "day",
    "周": "week",
    "星期": "week",
    "礼拜": "week",
    "月": "month",
    "年": "year",
}
HAN_UNIT = "天|日|周|星期|礼拜|月|年"
_HAN_WEEKDAYS = {
    **{character: number for number, character in enumerate("一二三四五六")},
    "日": 6,
    "天": 6,
    "末": 5,
}
_EN_DAYS = {
    "the day before yesterday": -2, "day before yesterday": -2, "yesterday": -1, "last night": -1, "today": 0, "tonight": 0,
    "this morning": 0, "this afternoon": 0, "this evening": 0, "tomorrow": 1,
    "the day after tomorrow": 2, "day after tomorrow": 2,
}  # fmt: skip
_HAN_DAYS = {
    "大前天": -3, "前天": -2, "昨天": -1, "昨日": -1, "昨晚": -1, "今天": 0, "今日": 0, "今晚": 0, "今早": 0,
    "明天": 1, "明日": 1, "明晚": 1, "后天": 2, "大后天": 3,
}  # fmt: skip
HAN_YEARS = {"前年": -2, "去年": -1, "今年": 0, "明年": 1, "后年": 2}


def _longest_first(words: dict[str, int]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


def _han_weekday(match: re.Match[str], today: date) -> Span:
    day = _HAN_WEEKDAYS[match[2]]
    if match[2] == "末":
        return _unit_of_calendar("weekend", step_of(match[1]) or 0, today)
    if not match[1]:
        return _weekday(day, None, today)
    return of_day(of_week(today + timedelta(weeks=step_of(match[1]) or 0)).first + day * DAY)


def rule(pattern: str, read: Reading) -> Rule:
    return Rule(re.compile(pattern), read)


ENGLISH_RULES = (
    rule(
        r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)",
        lambda m, _: of_day(date(int(m[1]), int(m[2]), int(m[3]))),
    ),
    rule(rf"\b({YEAR})-(\d{{2}})(?![\d-])", lambda m, _: of_month(int(m[1]), int(m[2]))),
    rule(r"\b(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})\b", _numeric),
    rule(
        rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({MONTH}),?(?: ({YEAR_SAID})\b)?",
        lambda m, today: _day_of_month(month_of(m[2]), int(m[1]), year_said(m[3], today), today),
    ),
    rule(
        rf"\b({MONTH}) (?:the )?(\d{{1,2}})(?:st|nd|rd|th)?\b(?![:.]\d|%)(?:,? ({YEAR_SAID})\b)?",
        lambda m, today: (
            None
            if m[1] in _VERBS and _MEASURED.match(m.string, m.end())
            else _day_of_month(month_of(m[1]), int(m[2]), year_said(m[3], today), today)
        ),
    ),
    rule(rf"\b({MONTH})(?: of|,)? ({YEAR})\b", lambda m, _: of_month(int(m[2]), month_of(m[1]))),
    rule(
        rf"\b({FULL_MONTH}|{_AFTER_PREPOSITION}(?:may|march)) (?:of )?((?:last|previous|this|next) year)\b",
        lambda m, today: of_month(year_said(m[2], today) or today.year, month_of(m[1])),
    ),
    rule(rf"\b({_longest_first(_EN_DAYS)})\b", lambda m, today: of_day(today + _EN_DAYS[m[1]] * DAY)),
    rule(
        rf"\b({COUNT}) {_EN_UNIT} (?:ago|earlier|before now)\b",
        lambda m, today: _unit_away(m[2], -number_of(m[1]), today),
    ),
    rule(rf"\bin ({COUNT}) {_EN_UNIT}\b", lambda m, today: _unit_away(m[2], number_of(m[1]), today)),
    rule(
        rf"\b(?:last|past|previous) ({COUNT}) {_EN_UNIT}\b",
        lambda m, today: _stretch(m[2], number_of(m[1]), today),
    ),
    rule(
        r"\b(?:over|during|in|within) the (?:last|past) (day|week|month|year)\b",
        lambda m, today: _stretch(m[1], 1, today),
    ),
    rule(
        r"\b(last|past|previous|this|next|coming) (weekend|week|month|year)\b",
        lambda m, today: _unit_of_calendar(m[2], step_of(m[1]) or 0, today),
    ),
    rule(
        rf"\b(?:(last|past|previous|this|next|coming) )?({WEEKDAY})\b",
        lambda m, today: _weekday(_WEEKDAYS.index(m[2]), step_of(m[1]), today),
    ),
    rule(
        rf"\b(last|previous|this|next|coming) ({'|'.join(_MONTHS)})\b",
        lambda m, today: _month_without_year(month_of(m[2]), step_of(m[1]), today),
    ),
    rule(
        rf"\b(?:({FULL_MONTH})|{_AFTER_PREPOSITION}(may|march))\b",
        lambda m, today: _month_without_year(month_of(m[1] or m[2]), None, today),
    ),
    rule(
        r"(?<=\bbetween )(may|march)(?= and )|(?<=\bfrom )(may|march)(?= (?:to|until|till|through) )"
        r"|\b(may|march)(?= ?(?:-|–|—|to|through|until|till) ?(?:\x00|(?:may|march)\b))|(?<=\x00-)(may|march)\b|(?<=\x00–)(may|march)\b",
        lambda m, today: _month_without_year(month_of(m[0]), None, today),
    ),
    rule(
        r"\b(may|march)\b",
        lambda m, today: (
            _month_without_year(month_of(m[1]), None, today)
            if _ENDS_STRETCH.search(m.string, max(0, m.start() - 64), m.start())
            else None
        ),
    ),
    rule(
        r"\b((?:19|20)\d)0s\b",
        lambda m, _: Span(date(int(m[1]) * 10, 1, 1), date(int(m[1]) * 10 + 10, 1, 1)),
    ),
    rule(rf"(?<![\d.:/-])\b({YEAR})\b(?![.:/-]?\d)", lambda m, _: of_year(int(m[1]))),
)

CHINESE_RULES = (
    rule(
        rf"({HAN_YEAR_SAID})的?(\d{{1,2}}|[一二三四五六七八九十]{{1,3}})月(?:份)?(?:(\d{{1,2}}|[一二三四五六七八九十]{{1,3}})[日号])?",
        lambda m, today: _han_date(han_year_said(m[1], today) or today.year, m[2], m[3]),
    ),
    rule(r"((?:19|20)\d\d|[一二][零〇一二三四五六七八九]{3})年", lambda m, _: of_year(han_year(m[1]))),
    rule(
        r"(\d{1,2}|[一二三四五六七八九十]{1,3})月(\d{1,2}|[一二三四五六七八九十]{1,3})[日号]",
        lambda m, today: _day_of_month(han_number(m[1]), han_number(m[2]), None, today),
    ),
    rule(
        rf"({HAN_COUNT})个?({HAN_UNIT})(?:以前|之前|前)",
        lambda m, today: _unit_away(HAN_UNITS[m[2]], -han_number(m[1]), today),
    ),
    rule(
        rf"({HAN_COUNT})个?({HAN_UNIT})(?:以后|之后|后)",
        lambda m, today: _unit_away(HAN_UNITS[m[2]], han_number(m[1]), today),
    ),
    rule(
        rf"(?:过去|最近|近)({HAN_COUNT})个?({HAN_UNIT})",
        lambda m, today: _stretch(HAN_UNITS[m[2]], han_number(m[1]), today),
    ),
    rule(
        r"(?<!那)(?<!那个)(?<!当)(上个?|这个?|本|下个?)?(?:周|星期|礼拜)([一二三四五六日天末])", _han_weekday
    ),
    rule(
        r"(上个?|这个?|本|下个?)(?:周|星期|礼拜)",
        lambda m, today: of_week(today + timedelta(weeks=step_of(m[1]) or 0)),
    ),
    rule(r"(上个?|这个?|本|下个?)月", lambda m, today: _unit_away("month", step_of(m[1]) or 0, today)),
    rule(rf"({_longest_first(_HAN_DAYS)})", lambda m, today: of_day(today + _HAN_DAYS[m[1]] * DAY)),
    rule(rf"({'|'.join(HAN_YEARS)})", lambda m, today: of_year(today.year + HAN_YEARS[m[1]])),
    rule(
        r"(?<!\d)(1[0-2]|[1-9]|十[一二]?|[一二三四五六七八九])月(?!\d)",
        lambda m, today: _month_without_year(han_number(m[1]), None, today),
    ),
)
