"""Relative dates resolved against the day of the turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from memos.memory.relative_dates import absolute

WHEN = datetime(2023, 5, 10, 23, 30, tzinfo=UTC)  # a Wednesday


@pytest.mark.parametrize(
    ("text", "expected", "day"),
    [
        ("went yesterday", "went on 9 May 2023", (2023, 5, 9)),
        ("went last night", "went on 9 May 2023", (2023, 5, 9)),
        ("goes tomorrow morning", "goes on 11 May 2023", (2023, 5, 11)),
        ("went the day before yesterday", "went on 8 May 2023", (2023, 5, 8)),
        ("went two days ago", "went on 8 May 2023", (2023, 5, 8)),
        ("went 40 days ago", "went on 31 March 2023", (2023, 3, 31)),
        ("went last friday", "went on 5 May 2023", (2023, 5, 5)),
        ("went on last Wednesday", "went on 3 May 2023", (2023, 5, 3)),
        ("went last week", "went in the week of 1 May 2023", (2023, 5, 1)),
        ("went last weekend", "went in the weekend of 6 May 2023", (2023, 5, 6)),
        ("went last month", "went in April 2023", (2023, 4, 1)),
        ("went six months ago", "went in November 2022", (2022, 11, 1)),
        ("went last year", "went in 2022", (2022, 1, 1)),
        ("booked for last month", "booked for April 2023", (2023, 4, 1)),
        ("went a year ago", "went in 2022", (2022, 1, 1)),
        ("married two years ago today", "married on 10 May 2021", (2021, 5, 10)),
        ("met a year ago yesterday", "met on 9 May 2022", (2022, 5, 9)),
        ("left a month ago today", "left on 10 April 2023", (2023, 4, 10)),
        ("came a week ago today", "came on 3 May 2023", (2023, 5, 3)),
        ("moved last quarter", "moved in the first quarter of 2023", (2023, 1, 1)),
        ("ships this quarter", "ships in the second quarter of 2023", (2023, 4, 1)),
    ],
)
def test_english(text: str, expected: str, day: tuple[int, int, int]) -> None:
    """A day gives a day, a longer period gives that period."""
    dated = absolute(text, WHEN)
    assert (dated.text, dated.happened_at, dated.unresolved) == (expected, datetime(*day, tzinfo=UTC), "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("昨天去了", "2023年5月9日去了"),
        ("前天下午去了", "2023年5月8日去了"),
        ("三天前去了", "2023年5月7日去了"),
        ("两个月前去了", "2023年3月去了"),
        ("上个月去了", "2023年4月去了"),
        ("去年去了", "2022年去了"),
        ("上周去了", "2023年5月1日那一周去了"),
        ("两年前的今天结婚", "2021年5月10日结婚"),
        ("去年今天结婚", "2022年5月10日结婚"),
        ("上个季度搬家了", "2023年第一季度搬家了"),
    ],
)
def test_chinese(text: str, expected: str) -> None:
    """The Chinese words of the day, week, month and year are resolved alike."""
    dated = absolute(text, WHEN, chinese=True)
    assert (dated.text, dated.unresolved) == (expected, "")
    assert dated.happened_at is not None


@pytest.mark.parametrize(
    "text",
    [
        "went recently",
        "in yesterday's class",
        "goes next friday",
        "went this friday",
        "went the other day",
        "last summer",
    ],
)
def test_what_could_mean_two_days_is_left_over(text: str) -> None:
    """An ambiguous word stays in the text and is reported."""
    dated = absolute(text, WHEN)
    assert dated.text == text and dated.unresolved and dated.happened_at is None


def test_weekend_said_on_a_weekend_is_ambiguous() -> None:
    """On a Saturday "last weekend" may mean two weekends and is not resolved."""
    assert absolute("went last weekend", WHEN + timedelta(days=3)).happened_at is None


def test_without_a_date_nothing_is_resolved_and_it_is_said() -> None:
    """A turn without a date cannot place "yesterday"; a text without dates has none left over."""
    assert absolute("went yesterday", None).unresolved == "yesterday"
    assert absolute("三天前去了", None, chinese=True).unresolved == "三天前"
    assert absolute("went on 3 May 2021", None).unresolved == ""


def test_the_day_is_that_of_the_speaker_and_borders_hold() -> None:
    """The time zone of the turn counts, as do the ends of months, years and of the calendar."""
    tokyo = datetime(2023, 1, 1, 8, tzinfo=timezone(timedelta(hours=9)))
    assert absolute("yesterday", tokyo).text == "on 31 December 2022"
    assert absolute("last month", datetime(2023, 1, 31, tzinfo=UTC)).text == "in December 2022"
    assert absolute("last month", datetime(2023, 3, 31, tzinfo=UTC)).text == "in February 2023"
    leap = datetime(2024, 2, 29, tzinfo=UTC)
    assert absolute("a year ago today", leap).text == "on 28 February 2023"
    assert absolute("a month ago today", datetime(2023, 3, 31, tzinfo=UTC)).text == "on 28 February 2023"
    assert absolute("last quarter", datetime(2024, 1, 5, tzinfo=UTC)).text == "in the fourth quarter of 2023"
    early = datetime(1, 1, 1, tzinfo=UTC)
    for text in (
        "yesterday",
        "last month",
        "last year",
        "last quarter",
        "999 years ago",
        "2 years ago today",
    ):
        assert absolute(text, early).happened_at is None
