"""DOCX: paragraphs under their headings, tables by rows, foot- and endnotes.

Deleted text of tracked changes and hidden text are left out; inserted text and text boxes are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from memos.documents.model import Budget, Document, Format, Part
from memos.documents.package import Element, Package, number_of
from memos.documents.table import table_parts
from memos.documents.text import HEADING_CHARS_MAX, Headings

MAIN = "word/document.xml"
_OUTERMOST = frozenset({"p", "tbl"})
_LEFT_OUT = frozenset({"del", "moveFrom", "pPr", "rPr", "Fallback", "instrText", "delText"})
_HEADING = re.compile(r"heading (\d)")
_FALSE = ("0", "false", "off", "none")


def read_docx(payload: bytes, budget: Budget) -> Document:
    """The document. Its title is its property, else its first paragraph in the style of a title."""
    package = Package(payload, budget)
    main = _main(package)
    levels = _levels(package, main)
    parts: list[Part] = []
    path = Headings()
    lines: list[str] = []
    title = ""

    def close() -> None:
        body = "\n".join(lines).strip()
        lines.clear()
        if body:
            parts.append(Part(budget.text(body), headings=path.names))

    for element in package.elements(main, _OUTERMOST):
        if element.tag == "tbl":
            close()
            parts.extend(table_parts(_rows(element), budget, headings=path.names))
            continue
        text = text_of(element).strip()
        level = levels.get(_style(element), _outline(element))
        if level is not None and text:
            close()
            if level == 0:
                title = title or text[:HEADING_CHARS_MAX]
            path.enter(max(level, 1), " ".join(text.split())[:HEADING_CHARS_MAX])
        elif text:
            lines.append(f"- {text}" if element.find("pPr/numPr") is not None else text)
        elif lines and lines[-1]:
            lines.append("")
    close()
    parts.extend(_notes(package, budget))
    about = package.about()
    if not parts and title:
        parts = [Part(title)]
    return Document(
        Format.DOCX,
        tuple(parts),
        title=about.get("title") or title,
        about=about,
        notes=embedded_notes(package),
    )


def _main(package: Package) -> str:
    found = (name for kind, name in package.relations("").values() if kind == "officeDocument")
    return next((name for name in found if name in package.names), MAIN)


def _levels(package: Package, main: str) -> dict[str, int | None]:
    """Style id -> level of its headings, 0 for the title. Ids differ by language, names do not."""
    styles = next((name for kind, name in package.relations(main).values() if kind == "styles"), "")
    found: dict[str, int | None] = {}
    if styles not in package.names:
        return found
    for style in package.elements(styles, frozenset({"style"})):
        name = _value(style, "name").lower()
        outline = _value(style, "pPr/outlineLvl")
        if named := _HEADING.match(name):
            found[style.get("styleId", "")] = int(named[1])
        elif name == "title":
            found[style.get("styleId", "")] = 0
        elif (level := _level(outline)) is not None:
            found[style.get("styleId", "")] = level
    return found


def _value(element: Element, path: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get("val", "")


def _style(paragraph: Element) -> str:
    return _value(paragraph, "pPr/pStyle")


def _outline(paragraph: Element) -> int | None:
    return _level(_value(paragraph, "pPr/outlineLvl"))


def _level(written: str) -> int | None:
    """The level of an outline, which is written from 0 to 8; 9 is text."""
    number = number_of(written)
    return number + 1 if number is not None and number < 9 else None


def text_of(element: Element) -> str:
    """The visible text below an element; paragraphs inside (text boxes) begin a line."""
    return "".join(_texts(element))


def _texts(element: Element) -> Iterator[str]:
    for child in element:
        if child.tag in _LEFT_OUT:
            continue
        if child.tag == "r" and _is_hidden(child):
            continue
        if child.tag == "t":
            yield child.text or ""
        elif child.tag == "tab":
            yield "\t"
        elif child.tag in ("br", "cr"):
            yield "\n"
        elif child.tag == "noBreakHyphen":
            yield "-"
        else:
            if child.tag == "p":
                yield "\n"
            yield from _texts(child)


def _is_hidden(run: Element) -> bool:
    vanish = run.find("rPr/vanish")
    return vanish is not None and vanish.get("val", "true").lower() not in _FALSE


def _rows(table: Element) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of a table; a table in a cell is text of the cell."""
    for number, row in enumerate(_own(table, "tr"), start=1):
        yield number, [text_of(cell) for cell in _own(row, "tc")]


def _own(element: Element, tag: str) -> Iterator[Element]:
    """The outermost elements of a tag below another (a content control may stand between)."""
    for child in element:
        if child.tag == tag:
            yield child
        else:
            yield from _own(child, tag)


def _notes(package: Package, budget: Budget) -> Iterator[Part]:
    for name, wanted, heading in (
        ("word/footnotes.xml", "footnote", "Footnotes"),
        ("word/endnotes.xml", "endnote", "Endnotes"),
    ):
        if name not in package.names:
            continue
        texts = [
            text_of(note).strip()
            for note in package.elements(name, frozenset({wanted}))
            if note.get("type") not in ("separator", "continuationSeparator")
        ]
        body = "\n".join(filter(None, texts))
        if body:
            yield Part(budget.text(body), headings=(heading,), kind="notes")


def embedded_notes(package: Package) -> tuple[str, ...]:
    """What a package holds besides its text, which is not read."""
    count = sum(1 for name in package.names if "/embeddings/" in name)
    pictures = sum(1 for name in package.names if "/media/" in name)
    notes = []
    if count:
        notes.append(f"{count} embedded file(s) were not opened")
    if pictures:
        notes.append(f"{pictures} picture(s) were not read")
    return tuple(notes)
