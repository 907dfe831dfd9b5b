"""Expressions of time, seen from Thursday 15 June 2023, ten o'clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memos.retrieval.dates import EARLIEST, LATEST, RANGES_MAX, DateRange, asks_when, date_ranges, tells_when

REFERENCE = datetime(2023, 6, 15, 10, tzinfo=UTC)


def _days(text: str, reference: datetime = REFERENCE) -> list[tuple[str, str]]:
    return [(str(found.start.date()), str(found.end.date())) for found in date_ranges(text, reference)]


@pytest.mark.parametrize(
    ("text", "first", "end"),
    [
        ("What happened on 2023-05-07?", "2023-05-07", "2023-05-08"),
        ("2023/5/7", "2023-05-07", "2023-05-08"),
        ("in 2023-05 it rained", "2023-05-01", "2023-06-01"),
        ("5/7/2023", "2023-05-07", "2023-05-08"),
        ("25/12/2022", "2022-12-25", "2022-12-26"),
        ("7 May 2023", "2023-05-07", "2023-05-08"),
        ("the 7th of May, 2022", "2022-05-07", "2022-05-08"),
        ("May 7, 2022", "2022-05-07", "2022-05-08"),
        ("Sept. 3 2022", "2022-09-03", "2022-09-04"),
        ("in May 2023", "2023-05-01", "2023-06-01"),
        ("during May", "2023-05-01", "2023-06-01"),
        ("in august", "2022-08-01", "2022-09-01"),
        ("last June", "2022-06-01", "2022-07-01"),
        ("next May", "2024-05-01", "2024-06-01"),
        ("May 20", "2023-05-20", "2023-05-21"),
        ("December 24th", "2022-12-24", "2022-12-25"),
        ("February 29", "2020-02-29", "2020-03-01"),
        ("in 2019", "2019-01-01", "2020-01-01"),
        ("the 1990s", "1990-01-01", "2000-01-01"),
        ("yesterday", "2023-06-14", "2023-06-15"),
        ("the day before yesterday", "2023-06-13", "2023-06-14"),
        ("last night", "2023-06-14", "2023-06-15"),
        ("today", "2023-06-15", "2023-06-16"),
        ("tomorrow", "2023-06-16", "2023-06-17"),
        ("last Friday", "2023-06-09", "2023-06-10"),
        ("last Monday", "2023-06-12", "2023-06-13"),
        ("on Friday", "2023-06-09", "2023-06-10"),
        ("on Thursday", "2023-06-08", "2023-06-09"),
        ("this Friday", "2023-06-16", "2023-06-17"),
        ("next Friday", "2023-06-23", "2023-06-24"),
        ("last week", "2023-06-05", "2023-06-12"),
        ("last weekend", "2023-06-10", "2023-06-12"),
        ("this month", "2023-06-01", "2023-07-01"),
        ("last year", "2022-01-01", "2023-01-01"),
        ("last summer", "2022-06-01", "2022-09-01"),
        ("next winter", "2023-12-01", "2024-03-01"),
        ("summer of 2021", "2021-06-01", "2021-09-01"),
        ("three days ago", "2023-06-12", "2023-06-13"),
        ("a week ago", "2023-06-05", "2023-06-12"),
        ("two weeks ago", "2023-05-29", "2023-06-05"),
        ("a couple of months ago", "2023-04-01", "2023-05-01"),
        ("7 years ago", "2016-01-01", "2017-01-01"),
        ("in three days", "2023-06-18", "2023-06-19"),
        ("over the past month", "2023-05-15", "2023-06-16"),
        ("in the last two weeks", "2023-06-01", "2023-06-16"),
        ("since 2022", "2022-01-01", "2023-06-16"),
        ("before May 2023", str(EARLIEST), "2023-05-01"),
        ("after May 2023", "2023-06-01", str(LATEST)),
        ("between March 3 and April 5", "2023-03-03", "2023-04-06"),
        ("from January to March 2022", "2022-01-01", "2022-04-01"),
        ("from March to May 2022", "2022-03-01", "2022-06-01"),
        ("between May and August 2022", "2022-05-01", "2022-09-01"),
        ("from November to March 2022", "2021-11-01", "2022-04-01"),
        ("昨天发生了什么", "2023-06-14", "2023-06-15"),
        ("大前天", "2023-06-12", "2023-06-13"),
        ("后天", "2023-06-17", "2023-06-18"),
        ("上周", "2023-06-05", "2023-06-12"),
        ("上个星期五", "2023-06-09", "2023-06-10"),
        ("下周三", "2023-06-21", "2023-06-22"),
        ("周一", "2023-06-12", "2023-06-13"),
        ("这个周末", "2023-06-17", "2023-06-19"),
        ("上个月", "2023-05-01", "2023-06-01"),
        ("去年", "2022-01-01", "2023-01-01"),
        ("2023年5月", "2023-05-01", "2023-06-01"),
        ("2023年5月7日", "2023-05-07", "2023-05-08"),
        ("二〇二三年五月", "2023-05-01", "2023-06-01"),
        ("十二月二十四日", "2022-12-24", "2022-12-25"),
        ("5月", "2023-05-01", "2023-06-01"),
        ("三天前", "2023-06-12", "2023-06-13"),
        ("两个月前", "2023-04-01", "2023-05-01"),
        ("最近三天", "2023-06-12", "2023-06-16"),
        ("2021年以前", str(EARLIEST), "2021-01-01"),
    ],
)
def test_an_expression_means_these_days(text: str, first: str, end: str) -> None:
    """Each expression gives one half-open range of days, and counts as telling a time."""
    assert _days(text) == [(first, end)]
    assert tells_when(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "may I go?",
        "they march on",
        "fall over",
        "spring a leak",
        "at 9:45",
        "room 2023-13-45",
        "1234",
        "call 20231 now",
        "第3天",
    ],
)
def test_what_names_no_day_gives_nothing(text: str) -> None:
    """Verbs that look like months, times of day and digits on no calendar are no ranges."""
    assert date_ranges(text, REFERENCE) == []


def test_several_expressions_come_in_their_order_once_each() -> None:
    """Ranges stand in the order of the text; repeats count once."""
    assert _days("yesterday, in May 2022, and yesterday; 去年") == [
        ("2023-06-14", "2023-06-15"),
        ("2022-05-01", "2022-06-01"),
        ("2022-01-01", "2023-01-01"),
    ]


def test_the_days_are_those_of_the_reference() -> None:
    """Ranges begin at midnight in the zone of the reference; a naive reference is local time."""
    zone = timezone(timedelta(hours=9))
    (found,) = date_ranges("today", datetime(2023, 6, 15, 1, tzinfo=zone))
    assert found.start == datetime(2023, 6, 15, tzinfo=zone)
    assert found.covers(datetime(2023, 6, 14, 15, tzinfo=UTC))
    assert not found.covers(datetime(2023, 6, 15, 15, tzinfo=UTC))
    (local,) = date_ranges("today", datetime(2023, 6, 15, 12))
    assert local.start == datetime(2023, 6, 15).astimezone()


def test_a_month_without_a_year_covers_that_month_of_any_year() -> None:
    """ "in May" may mean every May, "in May 2023" only one."""
    (any_may,) = date_ranges("in May", REFERENCE)
    (one_may,) = date_ranges("in May 2023", REFERENCE)
    assert any_may.recurring
    assert any_may.covers(datetime(2020, 5, 31, 23, tzinfo=UTC))
    assert not any_may.covers(datetime(2020, 6, 1, tzinfo=UTC))
    assert not one_may.covers(datetime(2022, 5, 15, tzinfo=UTC))


def test_recurring_ranges_cross_the_year_and_leap_days() -> None:
    """A winter holds the January that follows; 29 February is the 28th in other years."""
    (winter,) = date_ranges("in winter", REFERENCE)
    assert winter.covers(datetime(2019, 1, 10, tzinfo=UTC))
    assert not winter.covers(datetime(2019, 7, 10, tzinfo=UTC))
    (leap,) = date_ranges("February 29", REFERENCE)
    assert leap.covers(datetime(2021, 2, 28, 12, tzinfo=UTC))


@given(
    st.text(st.characters(), max_size=60)
    | st.lists(
        st.sampled_from(
            [
                "may",
                "31",
                "february",
                "2023",
                "-",
                "/",
                " ",
                "last",
                "next",
                "weeks",
                "ago",
                "999",
                "before",
                "and",
                "between",
                "年",
                "月",
                "日",
                "十",
                "几",
                "前",
                "上",
                "周",
                "0",
                "五",
                "季度",
                "底",
                "半年",
                "年代",
                "的今天",
                "q3 ",
                "early ",
                "mid-",
                "week of ",
                " years ago today",
            ]
        ),
        max_size=14,
    ).map("".join)
    | st.lists(
        st.sampled_from(
            ["may", "31", "february", "2023", "last", "999", "years", "ago", "in", "since", "from", "to"]
        ),
        max_size=10,
    ).map(" ".join),
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)),
)
@settings(max_examples=500, deadline=None)
def test_any_text_and_moment_give_few_sound_ranges(text: str, reference: datetime) -> None:
    """Nothing fails at either end of the calendar; ranges are never empty or too many."""
    found = date_ranges(text, reference)
    assert len(found) <= RANGES_MAX
    for each in found:
        assert isinstance(each, DateRange)
        assert each.start < each.end
        assert each.covers(each.start)
    assert isinstance(asks_when(text), bool)
    assert isinstance(tells_when(text), bool)


def test_long_texts_are_bounded() -> None:
    """A text of thousands of dates gives the first few."""
    text = " ".join(f"{1900 + number % 100}" for number in range(20_000))
    assert len(date_ranges(text, REFERENCE)) == RANGES_MAX


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("When did Caroline move?", True),
        ("when's the party", True),
        ("Do you know when she left", True),
        ("What day is the exam?", True),
        ("How long ago was it?", True),
        ("我什么时候搬家的", True),
        ("她哪天来", True),
        ("What did I say when we met?", False),
        ("Where does Max live?", False),
        ("我住在哪里", False),
    ],
)
def test_questions_for_a_time(query: str, asked: bool) -> None:
    """Question words of time count, "when" as a conjunction does not."""
    assert asks_when(query) is asked


@pytest.mark.parametrize("text", ["I like tea", "we may go", "他喜欢茶", ""])
def test_texts_without_a_time(text: str) -> None:
    """A text that mentions no time tells none."""
    assert not tells_when(text)
