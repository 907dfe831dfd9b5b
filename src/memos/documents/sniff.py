"""What a file holds, told by its first bytes. A name only decides between kinds of plain text.

A file whose name promises a binary format that its bytes do not keep is refused: it is damaged, or the
page of an error that was saved under that name.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import PurePosixPath

from memos.documents.model import Format
from memos.errors import DocumentEmpty, DocumentEncrypted, DocumentUnreadable, DocumentUnsupported

HEAD_BYTES = 1024

_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*")
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"{\\rtf", "an RTF file: save it as DOCX"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ\x00", "an xz archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"SQLite format 3\x00", "a database"),
    (b"OggS", "a sound or film"),
    (b"ID3", "a sound"),
    (b"\x1aE\xdf\xa3", "a film"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_OFFICE = {"word/": Format.DOCX, "ppt/": Format.PPTX, "xl/": Format.XLSX}
_BINARY_SUFFIXES = {
    ".pdf": "a PDF",
    ".docx": "a DOCX",
    ".pptx": "a PPTX",
    ".xlsx": "an XLSX",
    ".png": "an image",
    ".jpg": "an image",
    ".jpeg": "an image",
    ".gif": "an image",
    ".webp": "an image",
    ".bmp": "an image",
    ".tif": "an image",
    ".tiff": "an image",
}
_TEXTS = {
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".xhtml": Format.HTML,
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".json": Format.JSON,
    ".jsonl": Format.JSON,
    ".ndjson": Format.JSON,
}
_TEXT_TYPES = {
    "text/markdown": Format.MARKDOWN,
    "text/html": Format.HTML,
    "application/xhtml+xml": Format.HTML,
    "text/csv": Format.CSV,
    "text/tab-separated-values": Format.CSV,
    "application/json": Format.JSON,
    "application/x-ndjson": Format.JSON,
}
_HTML = re.compile(
    rb"^\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,500}?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.I | re.S
)

READ_SUFFIXES = (*_TEXTS, *_BINARY_SUFFIXES, ".txt", ".text", ".log", ".rst")


def sniff(payload: bytes, name: str, media_type: str = "") -> Format:
    """The format. Raises DocumentEmpty, DocumentEncrypted, DocumentUnreadable, DocumentUnsupported."""
    if not payload.strip(b"\x00\t\r\n\f\v "):
        raise DocumentEmpty(f"{name} is empty")
    found = _binary(payload, name)
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    if found is not None:
        return found
    promised = _BINARY_SUFFIXES.get(suffix)
    if promised is not None:
        raise DocumentUnreadable(
            f"{name} is named as {promised} but does not begin like one: it is damaged or something else"
        )
    if _HTML.match(payload[:HEAD_BYTES]):
        return Format.HTML
    declared = media_type.partition(";")[0].strip().lower()
    return _TEXTS.get(suffix) or _TEXT_TYPES.get(declared) or Format.TEXT


def _binary(payload: bytes, name: str) -> Format | None:
    head = payload[:HEAD_BYTES]
    if b"%PDF-" in head and not _HTML.match(head):
        return Format.PDF
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _packed(payload, name)
    if head.startswith(_OLE):
        if _ENCRYPTED_PACKAGE in payload:
            raise DocumentEncrypted(f"{name} is protected by a password: save it without one, then add it")
        raise DocumentUnsupported(f"{name} is in an old Office format: save it as DOCX, PPTX or XLSX")
    if head.startswith(_IMAGES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return Format.IMAGE
    if head[4:8] == b"ftyp":
        raise DocumentUnsupported(f"{name} is a film, a sound or a HEIC image: save an image as JPEG or PNG")
    for start, what in _OTHERS:
        if head.startswith(start):
            raise DocumentUnsupported(f"{name} is {what}")
    return None


def _packed(payload: bytes, name: str) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
        raise DocumentUnreadable(f"{name} is a damaged or cut off package: {error}") from error
    if "[Content_Types].xml" in names:
        for folder, found in _OFFICE.items():
            if any(one.startswith(folder) for one in names):
                return found
    raise DocumentUnsupported(
        f"{name} is an archive and no DOCX, PPTX or XLSX: unpack it, then add what it holds"
    )
