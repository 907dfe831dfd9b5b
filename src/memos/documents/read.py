"""`read_document`: one file, in this process. `sandbox` calls it where it can be killed; tests call it here."""

from __future__ import annotations

from dataclasses import replace

from memos.documents.decode import decode
from memos.documents.model import Budget, Document, Format, Limits, Options, Part
from memos.documents.sniff import sniff
from memos.errors import DocumentEmpty


def read_document(
    payload: bytes,
    name: str,
    *,
    media_type: str = "",
    limits: Limits | None = None,
    options: Options | None = None,
) -> Document:
    """The document in `payload`. `name` is what the file is called, for errors and the kind of text.

    Raises DocumentError and its children only, MemoryError and RecursionError aside.
    """
    limits, options = limits or Limits(), options or Options()
    limits.check_bytes(len(payload), name)
    found = sniff(payload, name, media_type)
    budget = Budget(limits, name)
    document = _read(payload, found, media_type, budget, options)
    if not document.parts and document.title.strip():
        document = replace(document, parts=(Part(budget.text(document.title)),))
    if not any(part.text.strip() for part in document.parts):
        reasons = f" ({'; '.join(document.notes)})" if document.notes else ""
        raise DocumentEmpty(f"{name} holds no text{reasons}")
    return document


def _read(payload: bytes, found: Format, media_type: str, budget: Budget, options: Options) -> Document:
    match found:
        case Format.PDF:
            from memos.documents.pdf import read_pdf

            return read_pdf(payload, budget, options)
        case Format.IMAGE:
            from memos.documents.image import read_image

            return read_image(payload, budget, options)
        case Format.DOCX:
            from memos.documents.docx import read_docx

            return read_docx(payload, budget)
        case Format.PPTX:
            from memos.documents.pptx import read_pptx

            return read_pptx(payload, budget)
        case Format.XLSX:
            from memos.documents.xlsx import read_xlsx

            return read_xlsx(payload, budget)
        case _:
            return _read_text(payload, found, media_type, budget)


def _read_text(payload: bytes, found: Format, media_type: str, budget: Budget) -> Document:
    charset = media_type.partition("charset=")[2].strip(" \"'")
    text, encoding = decode(payload, budget.name, declares=found is Format.HTML, declared=charset)
    title = ""
    about: dict[str, str] = {}
    parts: list[Part]
    if found is Format.MARKDOWN:
        from memos.documents.text import markdown_parts

        title, parts = markdown_parts(text, budget)
    elif found is Format.HTML:
        from memos.documents.html import html_parts

        title, parts, language = html_parts(text, budget)
        about = {"language": language} if language else {}
    elif found is Format.CSV:
        from memos.documents.table import csv_parts

        parts = csv_parts(text, budget.name, budget)
    elif found is Format.JSON:
        from memos.documents.json_text import json_parts

        parts = json_parts(text, budget.name, budget)
    else:
        from memos.documents.text import plain_parts

        parts = plain_parts(text, budget)
    return Document(found, tuple(parts), title=title, encoding=encoding, about=about)
