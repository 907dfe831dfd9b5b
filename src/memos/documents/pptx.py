"""PPTX: one slide a page, its title as heading, tables by rows, the speaker's notes as parts of their own."""

from __future__ import annotations

from collections.abc import Iterator

from memos.documents.docx import embedded_notes
from memos.documents.model import Budget, Document, Format, Part
from memos.documents.package import RELATION, Element, Package
from memos.documents.table import table_parts
from memos.documents.text import HEADING_CHARS_MAX
from memos.errors import DocumentUnreadable

MAIN = "ppt/presentation.xml"
_SHAPES = frozenset({"sp", "graphicFrame", "grpSp", "AlternateContent"})
_TITLES = ("title", "ctrTitle")
_FURNITURE = ("sldNum", "dt", "ftr", "sldImg", "hdr")


def read_pptx(payload: bytes, budget: Budget) -> Document:
    """The slides in the order of the presentation."""
    package = Package(payload, budget)
    if MAIN not in package.names:
        raise DocumentUnreadable(f"{budget.name} is damaged: it lacks {MAIN}")
    relations = package.relations(MAIN)
    ids = [one.get(f"{RELATION}id", "") for one in package.elements(MAIN, frozenset({"sldId"}))]
    slides = [relations[one][1] for one in ids if one in relations]
    budget.pages(len(slides), "slides")
    parts: list[Part] = []
    title = ""
    for number, slide in enumerate(slides, start=1):
        if slide not in package.names:
            raise DocumentUnreadable(f"{budget.name} is damaged: it lacks slide {number}")
        heading, found = _slide(package, slide, number, budget)
        title = title or heading
        parts.extend(found)
    about = package.about()
    return Document(
        Format.PPTX,
        tuple(parts),
        title=about.get("title") or title,
        pages=len(slides),
        about=about,
        notes=embedded_notes(package),
    )


def _slide(package: Package, name: str, number: int, budget: Budget) -> tuple[str, list[Part]]:
    shapes = list(package.elements(name, _SHAPES))
    heading = next((text for text in map(_title, _flat(shapes)) if text), "")
    headings = (heading,) if heading else ()
    parts: list[Part] = []
    texts: list[str] = []
    for shape in _flat(shapes):
        if (table := shape.find(".//tbl")) is not None:
            rows = [
                (no, [_text(cell) for cell in row.iter("tc")]) for no, row in enumerate(table.iter("tr"), 1)
            ]
            parts.extend(table_parts(rows, budget, headings=headings, page=number))
        elif not _title(shape) and _placeholder(shape) not in _FURNITURE and (text := _text(shape)):
            texts.append(text)
    body = "\n".join(texts).strip()
    if body or (heading and not parts):
        parts.insert(0, Part(budget.text(body or heading), headings=headings, page=number))
    for kind, other in package.relations(name).values():
        if kind == "notesSlide" and other in package.names:
            spoken = [
                _text(one) for one in _flat(package.elements(other, _SHAPES)) if _placeholder(one) == "body"
            ]
            said = "\n".join(filter(None, spoken)).strip()
            if said:
                parts.append(Part(budget.text(said), headings=headings, page=number, kind="notes"))
    return heading, parts


def _flat(shapes: Iterator[Element] | list[Element]) -> Iterator[Element]:
    """The shapes, those of groups in the place of their group."""
    for shape in shapes:
        if shape.tag == "grpSp":
            yield from _flat([one for one in shape if one.tag in _SHAPES])
        elif shape.tag == "AlternateContent":
            choice = shape.find("Choice")
            if choice is not None:
                yield from _flat([one for one in choice if one.tag in _SHAPES])
        else:
            yield shape


def _placeholder(shape: Element) -> str:
    found = shape.find(".//nvPr/ph")
    return "" if found is None else found.get("type", "body")


def _title(shape: Element) -> str:
    return " ".join(_text(shape).split())[:HEADING_CHARS_MAX] if _placeholder(shape) in _TITLES else ""


def _text(element: Element) -> str:
    """The paragraphs below an element, a line each."""
    lines = []
    for paragraph in element.iter("p"):
        pieces = []
        for one in paragraph.iter():
            if one.tag == "t":
                pieces.append(one.text or "")
            elif one.tag == "br":
                pieces.append("\n")
        lines.append("".join(pieces).rstrip())
    return "\n".join(line for line in lines if line.strip())
