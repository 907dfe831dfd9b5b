"""Points in time: what people write is read exactly, what is ambiguous is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from memos.errors import InvalidInput
from memos.memory.moments import parse_moment


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "1:56 pm on 8 May, 2023",
        "1:56 PM, May 8th 2023",
        "Monday, 8 May 2023 at 13:56",
        "2023/05/08 13:56",
        "2023-05-08T13:56",
        "2023年5月8日 下午1点56分",
        "2023年5月8日 13:56",
        datetime(2023, 5, 8, 13, 56),
    ],
)
def test_a_time_without_a_zone_is_local(text: object, in_tokyo: None) -> None:
    """However a time is written, without a zone it is the machine's own local time."""
    assert parse_moment(text) == datetime(2023, 5, 8, 4, 56, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-05-08T13:56:07Z", datetime(2023, 5, 8, 13, 56, 7, tzinfo=UTC)),
        ("2023-05-08T13:56:07+02:00", datetime(2023, 5, 8, 11, 56, 7, tzinfo=UTC)),
        ("8 May 2023 13:56 UTC", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("2023/05/08 13:56 +0530", datetime(2023, 5, 8, 8, 26, tzinfo=UTC)),
        ("Mon, 08 May 2023 13:56:00 GMT", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("1683554160", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        (1683554160, datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        (1683554160000, datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("12:05 am on 1 January 2024 utc", datetime(2024, 1, 1, 0, 5, tzinfo=UTC)),
        ("12 pm on 1 January 2024 utc", datetime(2024, 1, 1, 12, 0, tzinfo=UTC)),
    ],
)
def test_a_zone_or_an_epoch_is_honoured(text: object, expected: datetime, in_tokyo: None) -> None:
    """A zone, and an epoch in seconds or milliseconds, mean the same on every machine."""
    assert parse_moment(text) == expected


@pytest.mark.parametrize(
    "value",
    [
        "05/08/2023",
        "tomorrow",
        "8 May",
        "8 May 2023 maybe",
        "31 February 2023",
        "8 May 2023 25:00",
        "13 pm on 8 May 2023",
        "2023-05-08T99",
        "0001-01-01",
        "",
        " ",
        "x" * 1_000,
        None,
        True,
        [],
        float("nan"),
        float("inf"),
        1e30,
    ],
)
def test_what_is_no_exact_time_is_refused(value: object, in_tokyo: None) -> None:
    """A text that is ambiguous, impossible or only half understood is refused by name, never guessed."""
    with pytest.raises(InvalidInput, match=r"when=.*give ISO 8601"):
        parse_moment(value, field="when")
