"""Tables as sentences: "Name: Ann; City: Lyon", one part a row, so that a row is found by what it says."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence

from memos.documents.model import Budget, Part
from memos.errors import DocumentUnreadable

CELL_CHARS_MAX = 5_000
SNIFF_CHARS = 16_000
HEADER_CHARS_MAX = 80
FIELD_CHARS_MAX = 10_000_000

_NUMBER = re.compile(r"^[\s(]*[-+]?[$€£¥]?\s*\d[\d.,\s:/%-]*[%)]?\s*$")


def csv_parts(text: str, name: str, budget: Budget) -> list[Part]:
    """The rows of a CSV or TSV file."""
    return list(table_parts(_rows(text, name), budget))


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(FIELD_CHARS_MAX)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text[:SNIFF_CHARS]))
    try:
        yield from enumerate(reader, start=1)
    except csv.Error as error:
        raise DocumentUnreadable(f"{name}, line {reader.line_num}, is no CSV: {error}") from error


def _delimiter(sample: str) -> str:
    """The sign that parts the first lines most evenly."""
    lines = [line for line in sample.split("\n")[:20] if line.strip()]
    best, best_score = ",", 0.0
    for sign in (",", ";", "\t", "|"):
        counts = [line.count(sign) for line in lines]
        if counts and min(counts) > 0:
            score = counts[0] + (1_000 if len(set(counts)) == 1 else 0)
            if score > best_score:
                best, best_score = sign, score
    return best


def table_parts(
    rows: Iterable[tuple[int, Sequence[str]]],
    budget: Budget,
    *,
    headings: tuple[str, ...] = (),
    page: int | None = None,
    sheet: str = "",
    with_header: bool | None = None,
) -> Iterator[Part]:
    """One part a row. `rows` are (number from 1, cells); the first row with text may be the header.

    with_header: whether it is; None: told by its look (texts only, all different, more than one column).
    """
    header: list[str] | None = None
    header_row = 0
    first, told = True, False
    for number, raw in rows:
        cells = [" ".join(cell.split())[:CELL_CHARS_MAX] for cell in raw]
        if not any(cells):
            continue
        budget.row()
        if first:
            first = False
            if with_header if with_header is not None else looks_like_header(cells):
                header, header_row = [cell[:HEADER_CHARS_MAX] for cell in cells], number
                continue
        told = True
        text = _sentence(cells, header)
        yield Part(
            budget.text(text), headings=headings, page=page, sheet=sheet, rows=(number, number), kind="row"
        )
    if header is not None and not told:
        text, place = "; ".join(filter(None, header)), (header_row, header_row)
        yield Part(budget.text(text), headings=headings, page=page, sheet=sheet, rows=place, kind="row")


def looks_like_header(cells: Sequence[str]) -> bool:
    """Whether a row names its columns."""
    named = [cell for cell in cells if cell]
    return (
        len(named) > 1
        and len(named) == len(cells)
        and len({cell.casefold() for cell in named}) == len(named)
        and not any(_NUMBER.match(cell) or len(cell) > HEADER_CHARS_MAX for cell in named)
    )


def _sentence(cells: Sequence[str], header: Sequence[str] | None) -> str:
    if header is None:
        return "; ".join(cell for cell in cells if cell)
    named = [
        f"{header[place]}: {cell}" if place < len(header) and header[place] else cell
        for place, cell in enumerate(cells)
        if cell
    ]
    return "; ".join(named)
