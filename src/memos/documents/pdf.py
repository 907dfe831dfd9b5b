"""PDF, by pdfium (the engine of Chromium): the text of each page under the headings of its outline.

A page without text is a picture: its text is read where tesseract is installed, else a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from memos.documents import ocr
from memos.documents.model import Budget, Document, Format, Options, Part
from memos.documents.text import HEADING_CHARS_MAX, Headings
from memos.errors import DocumentEncrypted, DocumentError, DocumentUnreadable, DocumentUnsupported

OUTLINE_MAX = 5_000
OUTLINE_DEPTH = 8
OCR_SCALE = 2.5  # 180 dots an inch
_PASSWORD_CODE = 4  # FPDF_ERR_PASSWORD
_FIELDS = {
    "Title": "title",
    "Author": "author",
    "Subject": "subject",
    "CreationDate": "created",
    "ModDate": "modified",
}
_BROKEN_WORD = re.compile(
    r"(?<=\w)[\ufffe\u0002\u00ad]\n?(?=[a-zà-ÿ])"
)  # pdfium marks a hyphen at a line's end
_HYPHEN = re.compile(r"(?<=\w)-\n(?=\w)")
_UNSPACED = "[\u2e80-\u9fff\uac00-\ud7a3\uff00-\uffef]"
_WRAPPED_HAN = re.compile(rf"(?<={_UNSPACED})\n(?={_UNSPACED})")
_NEW_LINE = re.compile(r"^\s*(?:[-•*▪◦‣]|\d{1,3}[.)]|[A-Z][A-Z .]{6,}$)")
_LINE_FULL = 0.6  # of the longest line: a shorter one ends its paragraph


def read_pdf(payload: bytes, budget: Budget, options: Options) -> Document:
    """The pages in order. Raises DocumentUnsupported when pypdfium2 is not installed."""
    try:
        import pypdfium2
    except ImportError as error:
        raise DocumentUnsupported(
            f"{budget.name} is a PDF; reading it needs the extra: pip install 'memscheduler[documents]'"
        ) from error
    try:
        pdf: Any = pypdfium2.PdfDocument(payload)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD_CODE or "password" in str(error).lower():
            raise DocumentEncrypted(
                f"{budget.name} is protected by a password: save it without one, then add it"
            ) from error
        raise DocumentUnreadable(f"{budget.name} is damaged or cut off: {error}") from error
    try:
        count = len(pdf)
        budget.pages(count)
        headings = _headings(pdf, count)
        parts: list[Part] = []
        unread: list[int] = []
        for number in range(1, count + 1):
            found = list(_page(pdf, number, headings, budget, options))
            parts += found
            if not found:
                unread.append(number)
        about = _about(pdf)
    except DocumentError:
        raise
    except (pypdfium2.PdfiumError, ValueError, IndexError, UnicodeError) as error:
        raise DocumentUnreadable(f"{budget.name} is damaged or cut off: {error}") from error
    notes = (_unread_note(unread, options),) if unread else ()
    return Document(
        Format.PDF, tuple(parts), title=about.get("title", ""), pages=count, about=about, notes=notes
    )


def _page(
    pdf: Any, number: int, headings: dict[int, tuple[str, ...]], budget: Budget, options: Options
) -> Iterator[Part]:
    page = pdf[number - 1]
    try:
        textpage = page.get_textpage()
        text = unwrapped(textpage.get_text_range())
        textpage.close()
        if text:
            yield Part(budget.text(text), headings=headings.get(number, ()), page=number)
        elif options.ocr and ocr.installed():
            width, height = page.get_size()
            room = budget.limits.pixels_max / max(1.0, width * height)
            image = page.render(scale=min(OCR_SCALE, room**0.5)).to_pil()
            seen = ocr.text_of(image, languages=options.ocr_languages)
            if seen:
                place = headings.get(number, ())
                yield Part(budget.text(seen), headings=place, page=number, kind="ocr")
    finally:
        page.close()


def unwrapped(text: str) -> str:
    """The text of a page with its lines joined to paragraphs, and words that were parted at a line's end."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    text = _HYPHEN.sub("-", _BROKEN_WORD.sub("", text))
    text = _WRAPPED_HAN.sub("", text).replace("\u0002", "-").replace("\ufffe", "-").replace("\u00ad", "")
    lines = [" ".join(line.split()) for line in text.split("\n")]
    full = max(map(len, lines), default=0) * _LINE_FULL
    out: list[str] = []
    open_line = False
    for line in lines:
        if open_line and line and not _NEW_LINE.match(line):
            out[-1] += " " + line
        else:
            out.append(line)
        open_line = bool(line) and len(line) >= full
    joined = "\n".join(line for place, line in enumerate(out) if line or (place and out[place - 1]))
    return joined.strip()


def _headings(pdf: Any, count: int) -> dict[int, tuple[str, ...]]:
    """Page -> the headings of the outline that hold at its beginning, or begin on it."""
    found: dict[int, tuple[str, ...]] = {}
    path = Headings()
    starts: dict[int, tuple[str, ...]] = {}
    for place, entry in enumerate(pdf.get_toc(max_depth=OUTLINE_DEPTH)):
        if place == OUTLINE_MAX:
            break
        target = entry.get_dest()
        index = None if target is None else target.get_index()
        title = " ".join((entry.get_title() or "").split())[:HEADING_CHARS_MAX]
        path.enter(entry.level + 1, title)
        if index is not None and 0 <= index < count:
            starts.setdefault(index + 1, path.names)
    current: tuple[str, ...] = ()
    for number in range(1, count + 1):
        current = starts.get(number, current)
        found[number] = current
    return found


def _about(pdf: Any) -> dict[str, str]:
    told = pdf.get_metadata_dict(skip_empty=True)
    return {name: " ".join(str(told[key]).split())[:500] for key, name in _FIELDS.items() if told.get(key)}


def _unread_note(pages: list[int], options: Options) -> str:
    named = ", ".join(map(str, pages[:10])) + (", …" if len(pages) > 10 else "")
    if options.ocr and ocr.installed():
        return f"{len(pages)} page(s) hold no text, nor does OCR find any: {named}"
    return f"{len(pages)} page(s) hold no text (scanned pages need tesseract installed): {named}"
