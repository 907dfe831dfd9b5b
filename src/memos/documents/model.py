"""What a reader gives: a document as parts of text, each with its place, and the bounds it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from memos.errors import DocumentTooLarge

MEBIBYTE = 1024 * 1024


class Format(StrEnum):
    """The kinds of documents that are told apart."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    CSV = "csv"
    JSON = "json"
    PDF = "pdf"
    DOCX = "docx"
    PPTX = "pptx"
    XLSX = "xlsx"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of reading one document. What reaches one is refused whole."""

    bytes_max: int = 32 * MEBIBYTE
    pages_max: int = 2_000  # pages of a PDF, slides, sheets
    rows_max: int = 100_000  # of tables
    chars_max: int = 5_000_000  # of text, all parts together
    seconds_max: float = 60.0
    memory_bytes_max: int = 1_024 * MEBIBYTE
    expanded_bytes_max: int = 256 * MEBIBYTE  # of a compressed file
    expansion_ratio_max: int = 200  # of one entry over `RATIO_FREE_BYTES`
    pixels_max: int = 50_000_000

    def check_bytes(self, size: int, name: str) -> None:
        """DocumentTooLarge for a file of too many bytes."""
        if size > self.bytes_max:
            raise too_large(name, f"{size} bytes", "bytes_max", self.bytes_max)


@dataclass(frozen=True, slots=True)
class Options:
    """How images and scanned pages are read."""

    ocr: bool = True  # with tesseract, where it is installed
    ocr_languages: str = "eng"
    picture: bool = False  # hand the image over, made small, for a model


@dataclass(frozen=True, slots=True)
class Part:
    """A run of text of one place. Parts with the same place may be joined, others not."""

    text: str
    headings: tuple[str, ...] = ()  # from the outermost in
    page: int | None = None  # from 1; of slides too
    sheet: str = ""
    rows: tuple[int, int] | None = None  # first and last, from 1
    kind: str = "text"  # "text", "row", "notes", "ocr"

    @property
    def place(self) -> tuple[object, ...]:
        return self.headings, self.page, self.sheet, self.kind


@dataclass(frozen=True, slots=True)
class Document:
    """One file as read. `about` is what it tells of itself; `notes` say what was left out and why."""

    format: Format
    parts: tuple[Part, ...]
    title: str = ""
    pages: int = 0
    encoding: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    picture: str = ""  # a data URL, when `Options.picture` asked for it

    @property
    def chars(self) -> int:
        return sum(len(part.text) for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """For the way between processes."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Document:
        """The inverse of `as_json`."""
        parts = tuple(
            Part(
                text=one["text"],
                headings=tuple(one["headings"]),
                page=one["page"],
                sheet=one["sheet"],
                rows=None if one["rows"] is None else (one["rows"][0], one["rows"][1]),
                kind=one["kind"],
            )
            for one in given["parts"]
        )
        return cls(
            format=Format(given["format"]),
            parts=parts,
            title=given["title"],
            pages=given["pages"],
            encoding=given["encoding"],
            about=dict(given["about"]),
            notes=tuple(given["notes"]),
            picture=given["picture"],
        )

    def with_notes(self, *notes: str) -> Document:
        """The same, saying more."""
        return replace(self, notes=(*self.notes, *notes))


class Budget:
    """Counts what a reader takes out of one document; DocumentTooLarge where a bound is reached."""

    def __init__(self, limits: Limits, name: str) -> None:
        self.limits = limits
        self.name = name
        self._chars = 0
        self._rows = 0
        self._expanded = 0

    def text(self, text: str) -> str:
        """`text`, counted."""
        self._chars += len(text)
        if self._chars > self.limits.chars_max:
            raise DocumentTooLarge(
                f"{self.name} holds more than {self.limits.chars_max} characters of text: split it, or raise "
                "MEMOS_DOCUMENTS__CHUNKS_MAX"
            )
        return text

    def row(self) -> None:
        self._rows += 1
        if self._rows > self.limits.rows_max:
            raise too_large(
                self.name, f"more than {self.limits.rows_max} rows", "rows_max", self.limits.rows_max
            )

    def pages(self, count: int, what: str = "pages") -> None:
        if count > self.limits.pages_max:
            raise too_large(self.name, f"{count} {what}", "pages_max", self.limits.pages_max)

    def expanded(self, size: int) -> None:
        self._expanded += size
        if self._expanded > self.limits.expanded_bytes_max:
            raise too_large(
                self.name,
                f"more than {self.limits.expanded_bytes_max} bytes when unpacked",
                "expanded_bytes_max",
                self.limits.expanded_bytes_max,
            )


def too_large(name: str, what: str, setting: str, bound: float) -> DocumentTooLarge:
    """The error of one bound."""
    return DocumentTooLarge(
        f"{name} has {what}; at most {bound:g} are read: split it, or raise MEMOS_DOCUMENTS__{setting.upper()}"
    )
