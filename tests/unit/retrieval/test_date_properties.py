"""Dates in queries and statements, for every day of reference."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from memos.memory.relative_dates import absolute
from memos.retrieval.dates import date_ranges

days = st.dates(date(1990, 1, 1), date(2080, 12, 31)) | st.sampled_from(
    [date(2024, 2, 29), date(2023, 3, 1), date(2024, 12, 31), date(2025, 1, 1), date(2000, 2, 29)]
)
zones = st.integers(-12 * 4, 14 * 4).map(lambda quarters: timezone(timedelta(minutes=15 * quarters)))
clocks = st.times()
few = settings(max_examples=60, deadline=None)


def only(text: str, now: datetime) -> tuple[date, date]:
    """First and last day of the one range in the text, in the zone of `now`."""
    (found,) = date_ranges(text, now)
    assert found.start.utcoffset() == now.utcoffset()
    return found.start.date(), (found.end - timedelta(microseconds=1)).date()


@few
@given(days, clocks, zones)
def test_days_are_counted_in_the_zone_of_the_reference(day: date, clock: time, zone: timezone) -> None:
    """Yesterday is the day before, whatever the hour, the zone, the month's end or a leap year."""
    now = datetime.combine(day, clock, zone)
    for text, away in (
        ("yesterday", -1),
        ("tomorrow", 1),
        ("today", 0),
        ("昨天", -1),
        ("后天", 2),
        ("前天", -2),
    ):
        wanted = day + timedelta(days=away)
        assert only(text, now) == (wanted, wanted)


@few
@given(days, days, zones)
def test_a_written_date_is_that_day_on_every_day_of_reference(day: date, now: date, zone: timezone) -> None:
    """ISO, English and Chinese forms of a day give that day, the 29th of February too."""
    reference = datetime.combine(now, time(12), zone)
    month = f"{day:%B}"
    for text in (
        day.isoformat(),
        f"{day.day} {month} {day.year}",
        f"{month} {day.day}, {day.year}",
        f"{day.year}年{day.month}月{day.day}日",
    ):
        assert only(text, reference) == (day, day)


@few
@given(days, clocks, zones)
def test_months_and_years_begin_and_end_where_they_do(day: date, clock: time, zone: timezone) -> None:
    """Last month ends on the day before the first of this one; last year has all of its days."""
    now = datetime.combine(day, clock, zone)
    last = day.replace(day=1) - timedelta(days=1)
    for text in ("last month", "上个月"):
        assert only(text, now) == (last.replace(day=1), last)
    for text in ("last year", "去年"):
        assert only(text, now) == (date(day.year - 1, 1, 1), date(day.year - 1, 12, 31))


@few
@given(days, clocks, zones)
def test_a_weekday_of_the_past_is_the_last_one(day: date, clock: time, zone: timezone) -> None:
    """A weekday alone is within the seven days before today and falls on that weekday."""
    now = datetime.combine(day, clock, zone)
    for number, name in enumerate(("Monday", "Friday", "Sunday")):
        first, last = only(f"on {name}", now)
        assert first == last and 1 <= (day - first).days <= 7
        assert first.weekday() == (0, 4, 6)[number]


@few
@given(days, clocks, zones)
def test_what_was_said_is_written_with_its_day(day: date, clock: time, zone: timezone) -> None:
    """A statement of yesterday names the day before it was made, and happened then; nothing is left over."""
    said = datetime.combine(day, clock, zone)
    before = day - timedelta(days=1)
    dated = absolute("I moved to Lyon yesterday.", said)
    assert dated.unresolved == "" and dated.happened_at is not None
    assert dated.happened_at.astimezone(zone).date() == before
    assert str(before.year) in dated.text and f"{before:%B}" in dated.text
