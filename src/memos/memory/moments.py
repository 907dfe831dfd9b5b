"""Points in time as people and programs write them, turned into aware UTC datetimes.

`parse_moment` reads ISO 8601, epoch seconds or milliseconds, mail dates, and the common forms of English
and Chinese ("1:56 pm on 8 May, 2023", "May 8, 2023", "2023年5月8日 13:56"). A time without a zone is local
time of this machine; a date without a time is its midnight. It never guesses: 05/08/2023 could be two
days and is refused, and so is a text of which any part is left over.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

from memos.clock import to_utc
from memos.errors import InvalidInput

_CHARS_MAX = 80
_EPOCH_MS_FROM = 1e11  # larger numbers are milliseconds: as seconds they lie after the year 5000

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan",
            "february feb",
            "march mar",
            "april apr",
            "may",
            "june jun",
            "july jul",
            "august aug",
            "september sept sep",
            "october oct",
            "november nov",
            "december dec",
        ),
        start=1,
    )
    for name in names.split()
}
_MONTH = "(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_DATES = tuple(
    re.compile(form)
    for form in (
        rf"\b{_YEAR}\s*年\s*(?P<month>\d{{1,2}})\s*月\s*(?P<day>\d{{1,2}})\s*[日号]",
        rf"\b{_YEAR}[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}})(?=t\d|\b)",
        rf"\b{_DAY}\s*(?:of\s+)?{_MONTH}\s*,?\s*{_YEAR}\b",
        rf"\b{_MONTH}\s*{_DAY}\s*,?\s*{_YEAR}\b",
    )
)
_TIME = re.compile(
    r"(?P<before>上午|下午|晚上|中午)?\s*"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d{1,9}))?)?)?"
    r"\s*(?P<half>[ap]\.?m\b\.?)?"
)
_CHINESE_TIME = re.compile(
    r"(?P<before>上午|下午|晚上|中午)?\s*(?P<hour>\d{1,2})\s*[点时]\s*(?:(?P<minute>\d{1,2})\s*分?)?"
)
_ZONE = re.compile(r"\b(?:utc|gmt|z)\b|(?<=\d)z\b|(?<=[\d\s])(?P<sign>[+-])(?P<h>\d{2}):?(?P<m>\d{2})\b")
_FILLER = re.compile(
    r"\b(?:on|at|of|the|t|(?:mon|tues|wednes|thurs|fri|satur|sun)day|mon|tue|wed|thu|fri|sat|sun)\b"
)
_WAY_OUT = "give ISO 8601 such as 2023-05-08T13:56, or a form such as '1:56 pm on 8 May, 2023'"


def parse_moment(value: object, *, field: str = "chat_time") -> datetime:
    """The aware UTC datetime that `value` names. InvalidInput names `field`, the value and the way out."""
    try:
        if isinstance(value, datetime):
            return to_utc(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _from_epoch(float(value))
        if isinstance(value, str) and 0 < len(value.strip()) <= _CHARS_MAX:
            return _from_text(value.strip())
    except (ValueError, OverflowError, OSError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{field}={value!r} is not a point in time ({error}): {_WAY_OUT}") from error
    raise InvalidInput(f"{field}={str(value)[:_CHARS_MAX]!r} is not a point in time: {_WAY_OUT}")


def _from_epoch(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds / 1000 if abs(seconds) >= _EPOCH_MS_FROM else seconds, UTC)


def _from_text(text: str) -> datetime:
    if re.fullmatch(r"\d{9,13}(?:\.\d+)?", text):
        return _from_epoch(float(text))
    try:
        return to_utc(datetime.fromisoformat(text))
    except ValueError:
        pass  # not ISO: try the other forms
    if re.match(r"[A-Za-z]{3},\s", text):
        return to_utc(parsedate_to_datetime(text))
    return to_utc(_from_words(text.lower()))


def _from_words(text: str) -> datetime:
    date = next((found for form in _DATES if (found := form.search(text))), None)
    if date is None:
        raise ValueError("no unambiguous date in it")
    rest = text[: date.start()] + " " + text[date.end() :]
    zone, rest = _take_zone(rest)
    time = _CHINESE_TIME.search(rest) or _TIME.search(rest)
    clock = (0, 0, 0, 0)
    if time is not None:
        clock = _clock(time)
        rest = rest[: time.start()] + " " + rest[time.end() :]
    left = _FILLER.sub(" ", rest).strip(" ,;|-–—().\t")
    if left:
        raise ValueError(f"{left!r} was not understood")
    month = date["month"]
    number = int(month) if month.isdigit() else _MONTHS[month]
    return datetime(int(date["year"]), number, int(date["day"]), *clock, tzinfo=zone)


def _take_zone(text: str) -> tuple[timezone | None, str]:
    found = _ZONE.search(text)
    if found is None:
        return None, text
    rest = text[: found.start()] + " " + text[found.end() :]
    if found["sign"] is None:
        return UTC, rest
    offset = timedelta(hours=int(found["h"]), minutes=int(found["m"]))
    return timezone(offset if found["sign"] == "+" else -offset), rest


def _clock(found: re.Match[str]) -> tuple[int, int, int, int]:
    parts = found.groupdict()
    hour, minute, second = int(parts["hour"]), int(parts["minute"] or 0), int(parts.get("second") or 0)
    half = (parts.get("half") or "").replace(".", "")
    if not half and parts["minute"] is None and found.re is _TIME:
        raise ValueError(f"{hour!r} alone is no time of day")
    before = parts["before"] or ""
    if half and not 1 <= hour <= 12:
        raise ValueError(f"{hour} {half} does not exist")
    if half == "pm" or before in ("下午", "晚上"):
        hour = hour + 12 if hour < 12 else hour
    elif (half == "am" or before == "上午") and hour == 12:
        hour = 0
    return hour, minute, second, int((parts.get("fraction") or "0").ljust(6, "0")[:6])
