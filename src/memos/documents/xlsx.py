"""XLSX: the rows of each visible sheet, with dates as dates and formulas as their last values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from memos.documents.model import Budget, Document, Format, Part
from memos.documents.package import RELATION, Element, Package, number_of
from memos.documents.table import table_parts
from memos.errors import DocumentUnreadable

MAIN = "xl/workbook.xml"
COLUMNS_MAX = 16_384
_CELL = re.compile(r"([A-Z]{1,3})(\d+)")
_QUOTED = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|_.|\*.')
_DATE_IDS = frozenset({14, 15, 16, 17, 18, 19, 20, 21, 22, 45, 46, 47, *range(27, 37), *range(50, 59)})
_TIME_IDS = frozenset({18, 19, 20, 21, 45, 46, 47})
_EPOCH, _EPOCH_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)


def read_xlsx(payload: bytes, budget: Budget) -> Document:
    """The workbook, one page a sheet."""
    package = Package(payload, budget)
    if MAIN not in package.names:
        raise DocumentUnreadable(f"{budget.name} is damaged: it lacks {MAIN}")
    workbook = package.xml(MAIN)
    relations = package.relations(MAIN)
    places = dict(relations.values())
    texts = _shared(package, places.get("sharedStrings", ""))
    dates = _date_styles(package, places.get("styles", ""))
    properties = workbook.find("workbookPr")
    since = _EPOCH_1904 if properties is not None and properties.get("date1904") in ("1", "true") else _EPOCH
    parts: list[Part] = []
    hidden = 0
    sheets = list(workbook.iter("sheet"))
    budget.pages(len(sheets), "sheets")
    for number, sheet in enumerate(sheets, start=1):
        if sheet.get("state", "visible") != "visible":
            hidden += 1
            continue
        kind, name = relations.get(sheet.get(f"{RELATION}id", ""), ("", ""))
        if kind != "worksheet":  # a chart, or a macro sheet
            continue
        rows = _rows(package, name, texts, dates, since)
        title = sheet.get("name", "")[:200]
        parts.extend(table_parts(rows, budget, page=number, sheet=title))
    about = package.about()
    notes = (f"{hidden} hidden sheet(s) were left out",) if hidden else ()
    return Document(
        Format.XLSX, tuple(parts), title=about.get("title", ""), pages=len(sheets), about=about, notes=notes
    )


def _shared(package: Package, name: str) -> list[str]:
    if name not in package.names:
        return []
    return [_rich(one) for one in package.elements(name, frozenset({"si"}))]


def _rich(element: Element) -> str:
    """The text of a string, its runs joined, without its phonetic reading."""
    direct = element.find("t")
    texts = [direct.text or ""] if direct is not None else []
    texts += [t.text or "" for run in element.iterfind("r") for t in run.iterfind("t")]
    return "".join(texts)


def _date_styles(package: Package, name: str) -> dict[int, str]:
    """Index of a cell's style -> "date", "time" or "both", for those that show one."""
    if name not in package.names:
        return {}
    custom: dict[int, str] = {}
    found: dict[int, str] = {}
    for part in package.elements(name, frozenset({"numFmts", "cellXfs"})):
        if part.tag == "numFmts":
            custom = {number_of(one.get("numFmtId", "")) or 0: one.get("formatCode", "") for one in part}
            continue
        for place, one in enumerate(part):
            shown = _shows(number_of(one.get("numFmtId", "")) or 0, custom)
            if shown:
                found[place] = shown
    return found


def _shows(number: int, custom: dict[int, str]) -> str:
    if number in custom:
        code = _QUOTED.sub("", custom[number].split(";")[0]).lower()
        day = bool(re.search(r"[yd]|mmm", code)) or ("m" in code and not re.search(r"[hs]", code))
        time = bool(re.search(r"[hs]", code))
        return "both" if day and time else "date" if day else "time" if time else ""
    if number in _TIME_IDS:
        return "time"
    return "both" if number == 22 else "date" if number in _DATE_IDS else ""


def _rows(
    package: Package, name: str, texts: Sequence[str], dates: dict[int, str], since: datetime
) -> Iterator[tuple[int, list[str]]]:
    number = 0
    for row in package.elements(name, frozenset({"row"})):
        told = number_of(row.get("r", ""))
        number = number + 1 if told is None else told
        cells: list[str] = []
        for cell in row.iterfind("c"):
            place = _column(cell.get("r", ""), len(cells))
            if place >= COLUMNS_MAX:
                break
            text = _value(cell, texts, dates, since)
            if text:
                cells.extend([""] * (place + 1 - len(cells)))
                cells[place] = text
        yield number, cells


def _column(reference: str, following: int) -> int:
    """Where a cell stands in its row, from 0."""
    found = _CELL.fullmatch(reference)
    if found is None:
        return following
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - 64
    return column - 1


def _value(cell: Element, texts: Sequence[str], dates: dict[int, str], since: datetime) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inline = cell.find("is")
        return "" if inline is None else _rich(inline)
    stored = cell.find("v")
    text = "" if stored is None else stored.text or ""
    if kind == "s":
        place = number_of(text)
        return texts[place] if place is not None and place < len(texts) else ""
    if kind == "b":
        return "yes" if text == "1" else "no"
    if kind in ("str", "e", "d"):
        return text
    style = number_of(cell.get("s", ""))
    shown = "" if style is None else dates.get(style, "")
    return _as_date(text, shown, since) if shown else _as_number(text)


def _as_number(text: str) -> str:
    """A number as a person would write it: 0.30000000000000004 is 0.3."""
    try:
        value = float(text)
    except ValueError:
        return text
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.12g}"


def _as_date(text: str, shown: str, since: datetime) -> str:
    try:
        moment = since + timedelta(days=float(text))
    except (ValueError, OverflowError):
        return text
    moment = (moment + timedelta(microseconds=500_000)).replace(microsecond=0)
    if shown == "time":
        return moment.strftime("%H:%M:%S") if moment.second else moment.strftime("%H:%M")
    if shown == "date" or (moment.hour, moment.minute, moment.second) == (0, 0, 0):
        return f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"
    return f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d} {moment:%H:%M}"
