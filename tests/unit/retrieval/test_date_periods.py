"""Parts of the calendar and the words around them, seen from Thursday 15 June 2023 unless a case says otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from memos.retrieval.dates import LATEST, date_ranges, tells_when

REFERENCE = datetime(2023, 6, 15, 10, tzinfo=UTC)


def days(text: str, reference: datetime = REFERENCE) -> list[tuple[str, str]]:
    return [(str(found.start.date()), str(found.end.date())) for found in date_ranges(text, reference)]


@pytest.mark.parametrize(
    ("text", "first", "end"),
    [
        # quarters and halves
        ("What did we ship in Q3 2025?", "2025-07-01", "2025-10-01"),
        ("Q4 of 2022", "2022-10-01", "2023-01-01"),
        ("2022-Q1", "2022-01-01", "2022-04-01"),
        ("Q2 last year", "2022-04-01", "2022-07-01"),
        ("the budget in Q1", "2023-01-01", "2023-04-01"),
        ("the budget in Q3", "2022-07-01", "2022-10-01"),
        ("the third quarter of 2025", "2025-07-01", "2025-10-01"),
        ("the 2nd quarter of last year", "2022-04-01", "2022-07-01"),
        ("the last quarter of 2021", "2021-10-01", "2022-01-01"),
        ("last quarter", "2023-01-01", "2023-04-01"),
        ("this quarter", "2023-04-01", "2023-07-01"),
        ("next quarter", "2023-07-01", "2023-10-01"),
        ("two quarters ago", "2022-10-01", "2023-01-01"),
        ("since Q1 2023", "2023-01-01", "2023-06-16"),
        ("between Q1 and Q3 2022", "2022-01-01", "2022-10-01"),
        ("the first half of 2022", "2022-01-01", "2022-07-01"),
        ("H2 2022", "2022-07-01", "2023-01-01"),
        ("the second half of last year", "2022-07-01", "2023-01-01"),
        # the same day of another year
        ("two years ago today", "2021-06-15", "2021-06-16"),
        ("a year ago yesterday", "2022-06-14", "2022-06-15"),
        ("three months ago to the day", "2023-03-15", "2023-03-16"),
        ("a week ago today", "2023-06-08", "2023-06-09"),
        ("this day last year", "2022-06-15", "2022-06-16"),
        # stretches
        ("between January and May", "2023-01-01", "2023-06-01"),
        ("between July and October", "2022-07-01", "2022-11-01"),
        ("from November to March", "2022-11-01", "2023-04-01"),
        ("between June and September", "2022-06-01", "2022-10-01"),
        ("between March and June next year", "2024-03-01", "2024-07-01"),
        ("from March to June 2024", "2024-03-01", "2024-07-01"),
        ("from March 2021 to June", "2021-03-01", "2021-07-01"),
        ("from October 2021 to March", "2021-10-01", "2022-04-01"),
        ("March–June 2022", "2022-03-01", "2022-07-01"),
        ("May to August 2022", "2022-05-01", "2022-09-01"),
        ("June through August 2022", "2022-06-01", "2022-09-01"),
        ("from March through May", "2023-03-01", "2023-06-01"),
        ("2019-2021", "2019-01-01", "2022-01-01"),
        ("from 2019 to 2021", "2019-01-01", "2022-01-01"),
        ("between mid-March and late May", "2023-03-11", "2023-06-01"),
        ("from early 2021 to late 2022", "2021-01-01", "2023-01-01"),
        ("3 May - 7 May 2022", "2022-05-03", "2022-05-08"),
        # a year in words
        ("in January last year", "2022-01-01", "2022-02-01"),
        ("in May last year", "2022-05-01", "2022-06-01"),
        ("3 May last year", "2022-05-03", "2022-05-04"),
        ("December 24th last year", "2022-12-24", "2022-12-25"),
        # seasons and decades
        ("the summer of 2023", "2023-06-01", "2023-09-01"),
        ("in the summer of last year", "2022-06-01", "2022-09-01"),
        ("winter 2021", "2021-12-01", "2022-03-01"),
        ("late summer 2022", "2022-08-01", "2022-09-01"),
        ("the 1990s", "1990-01-01", "2000-01-01"),
        ("the '80s", "1980-01-01", "1990-01-01"),
        ("in the nineties", "1990-01-01", "2000-01-01"),
        ("the early 1990s", "1990-01-01", "1994-01-01"),
        ("the mid-1990s", "1994-01-01", "1997-01-01"),
        ("the late nineties", "1997-01-01", "2000-01-01"),
        # early, mid, late
        ("early 2022", "2022-01-01", "2022-05-01"),
        ("mid 2022", "2022-05-01", "2022-09-01"),
        ("late in 2022", "2022-09-01", "2023-01-01"),
        ("early last year", "2022-01-01", "2022-05-01"),
        ("late last month", "2023-05-21", "2023-06-01"),
        ("mid-April", "2023-04-11", "2023-04-21"),
        ("early May", "2023-05-01", "2023-05-11"),
        ("late March 2022", "2022-03-21", "2022-04-01"),
        ("at the end of February 2024", "2024-02-21", "2024-03-01"),
        ("the beginning of 2022", "2022-01-01", "2022-05-01"),
        ("since early 2023", "2023-01-01", "2023-06-16"),
        ("after mid-May 2023", "2023-05-21", str(LATEST)),
        # weeks around a day
        ("the week of 3 May", "2023-05-01", "2023-05-08"),
        ("the week of May 3rd, 2022", "2022-05-02", "2022-05-09"),
        ("the weekend of 3 May 2023", "2023-05-06", "2023-05-08"),
        ("the week before 9 June 2023", "2023-06-02", "2023-06-09"),
        ("the week after 9 June 2022", "2022-06-10", "2022-06-17"),
        ("the day after 28 February 2024", "2024-02-29", "2024-03-01"),
        ("the weekend before 7 June 2023", "2023-06-03", "2023-06-05"),
        ("the weekend before 4 June 2023", "2023-05-27", "2023-05-29"),
        # Chinese
        ("2025年第三季度做了什么", "2025-07-01", "2025-10-01"),
        ("2022年Q2", "2022-04-01", "2022-07-01"),
        ("去年四季度", "2022-10-01", "2023-01-01"),
        ("上个季度", "2023-01-01", "2023-04-01"),
        ("两个季度前", "2022-10-01", "2023-01-01"),
        ("去年夏天", "2022-06-01", "2022-09-01"),
        ("2021年冬天", "2021-12-01", "2022-03-01"),
        ("上个夏天", "2022-06-01", "2022-09-01"),
        ("两年前的今天", "2021-06-15", "2021-06-16"),
        ("去年的今天", "2022-06-15", "2022-06-16"),
        ("三个月前的昨天", "2023-03-14", "2023-03-15"),
        ("三月到五月之间", "2023-03-01", "2023-06-01"),
        ("三月和五月之间", "2023-03-01", "2023-06-01"),
        ("七月至十月", "2022-07-01", "2022-11-01"),
        ("从2021年10月到3月", "2021-10-01", "2022-04-01"),
        ("2019年到2021年", "2019-01-01", "2022-01-01"),
        ("去年五月", "2022-05-01", "2022-06-01"),
        ("去年5月3日", "2022-05-03", "2022-05-04"),
        ("2022年上半年", "2022-01-01", "2022-07-01"),
        ("去年下半年", "2022-07-01", "2023-01-01"),
        ("2022年初", "2022-01-01", "2022-05-01"),
        ("去年年底", "2022-09-01", "2023-01-01"),
        ("四月中旬", "2023-04-11", "2023-04-21"),
        ("5月底", "2023-05-21", "2023-06-01"),
        ("上个月初", "2023-05-01", "2023-05-11"),
        ("5月3日那一周", "2023-05-01", "2023-05-08"),
        ("5月3日那个周末", "2023-05-06", "2023-05-08"),
        ("九十年代", "1990-01-01", "2000-01-01"),
        ("上世纪80年代末", "1987-01-01", "1990-01-01"),
        ("2010年代", "2010-01-01", "2020-01-01"),
    ],
)  # fmt: skip
def test_an_expression_means_these_days(text: str, first: str, end: str) -> None:
    """Each gives one half-open range of days."""
    assert days(text) == [(first, end)]


@pytest.mark.parametrize(
    "text",
    [
        "you may and I may not",
        "may I ask between the two of us?",
        "the soldiers march to the sea",
        "we march 3 km every day",
        "May 5 people come along?",
        "you may 3.5 times over",
        "give me a second",
        "the second quarter of the game",
        "I came second",
        "version 3.5 of the library",
        "python 3.11 or 3.12",
        "the Keychron Q3 keyboard",
        "transistor Q3 is hot",
        "in Q3 of the amplifier",
        "a quarter mile, the last quarter mile",
        "the last quarter of the match",
        "an hour and a quarter ago",
        "the student quarter",
        "half of the people",
        "an early bird, a late train",
        "the end of the story",
        "mid-size cars",
        "the week of the wedding",
        "in his eighties",
        "fall asleep in spring water",
        "it may last years",
        "三个人",
        "初中同学",
        "第三名",
        "冬瓜汤",
        "中间",
    ],
)
def test_what_only_looks_like_a_period_gives_nothing(text: str) -> None:
    """Verbs, ordinals, versions, things called like a quarter, and parts of what is no time."""
    assert date_ranges(text, REFERENCE) == []


@pytest.mark.parametrize(
    ("text", "reference", "first", "end"),
    [
        # a leap day, and a month that is too short
        ("a year ago today", "2024-02-29", "2023-02-28", "2023-03-01"),
        ("four years ago today", "2024-02-29", "2020-02-29", "2020-03-01"),
        ("one month ago today", "2023-03-31", "2023-02-28", "2023-03-01"),
        ("一年前的今天", "2024-02-29", "2023-02-28", "2023-03-01"),
        ("late February", "2024-03-10", "2024-02-21", "2024-03-01"),
        # the turn of the year
        ("last quarter", "2024-01-05", "2023-10-01", "2024-01-01"),
        ("next quarter", "2023-11-30", "2024-01-01", "2024-04-01"),
        ("in Q4", "2024-01-05", "2023-10-01", "2024-01-01"),
        ("the week of 1 January 2024", "2024-02-01", "2024-01-01", "2024-01-08"),
        ("the week of 1 January 2023", "2024-02-01", "2022-12-26", "2023-01-02"),
        ("a year ago yesterday", "2024-01-01", "2022-12-31", "2023-01-01"),
        ("上个季度", "2024-01-05", "2023-10-01", "2024-01-01"),
        # without a year: the last that is over or has come to its last month
        ("between January and May", "2024-03-10", "2023-01-01", "2023-06-01"),
        ("between January and May", "2024-05-01", "2024-01-01", "2024-06-01"),
        ("from November to March", "2023-12-10", "2022-11-01", "2023-04-01"),
        ("from November to March", "2024-03-01", "2023-11-01", "2024-04-01"),
        ("三月到五月之间", "2024-04-10", "2023-03-01", "2023-06-01"),
    ],
)
def test_on_other_days_of_reference(text: str, reference: str, first: str, end: str) -> None:
    """Leap days, the ends of months, the turn of the year."""
    assert days(text, datetime.fromisoformat(f"{reference}T12:00:00+00:00")) == [(first, end)]


def test_a_stretch_without_a_year_covers_that_of_any_year() -> None:
    """As a month without a year does; with a year it is that one alone."""
    (any_year,) = date_ranges("from November to March", REFERENCE)
    (one_year,) = date_ranges("from November to March 2022", REFERENCE)
    (quarter,) = date_ranges("in Q1", REFERENCE)
    assert any_year.recurring and quarter.recurring and not one_year.recurring
    assert any_year.covers(datetime(2020, 1, 5, tzinfo=UTC))
    assert not any_year.covers(datetime(2020, 4, 5, tzinfo=UTC))
    assert one_year.covers(datetime(2022, 1, 5, tzinfo=UTC))
    assert not one_year.covers(datetime(2020, 1, 5, tzinfo=UTC))


def test_periods_begin_at_midnight_in_the_zone_of_the_reference() -> None:
    """In Tokyo it is the next quarter already."""
    tokyo = timezone(timedelta(hours=9))
    moment = datetime(2023, 6, 30, 20, tzinfo=UTC)
    (here,) = date_ranges("this quarter", moment)
    (there,) = date_ranges("this quarter", moment.astimezone(tokyo))
    assert here.start == datetime(2023, 4, 1, tzinfo=UTC)
    assert there.start == datetime(2023, 7, 1, tzinfo=tokyo)


@pytest.mark.parametrize(
    "text",
    [
        "shipped in Q3 2025",
        "last quarter",
        "mid-April",
        "early 2022",
        "上个季度",
        "去年下半年",
        "九十年代",
        "夏天",
        "年底",
    ],
)
def test_such_a_period_tells_a_time(text: str) -> None:
    """For the texts of candidates, where a time is asked for."""
    assert tells_when(text)


def test_several_in_one_text_stay_apart() -> None:
    """Words belong to the expression beside them."""
    assert days("in early 2021, in May 2022 and at the end of last year") == [
        ("2021-01-01", "2021-05-01"),
        ("2022-05-01", "2022-06-01"),
        ("2022-09-01", "2023-01-01"),
    ]
    assert days("in January and in May 2022") == [("2023-01-01", "2023-02-01"), ("2022-05-01", "2022-06-01")]


def test_the_rest_of_a_vague_period_is_half_as_near() -> None:
    """Early January is told of in late January too; what is no part is sharp."""
    (early,) = date_ranges("in early January 2023", REFERENCE)
    (whole,) = date_ranges("in January 2023", REFERENCE)
    (any_year,) = date_ranges("in early January", REFERENCE)
    moments = [datetime(2023, 1, day, tzinfo=UTC) for day in (5, 23)] + [datetime(2023, 2, 1, tzinfo=UTC)]
    assert [early.nearness(moment) for moment in moments] == [1.0, 0.5, 0.0]
    assert [whole.nearness(moment) for moment in moments] == [1.0, 1.0, 0.0]
    assert any_year.nearness(datetime(2020, 1, 23, tzinfo=UTC)) == 0.5
