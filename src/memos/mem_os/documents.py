"""Reads one text file of the caller's own machine. Never used by the server, whose callers are others."""

from __future__ import annotations

from pathlib import Path

from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import CONTENT_BYTES_MAX, check_text

SUFFIXES = (".txt", ".md", ".markdown")


def read_document(path: Path) -> str:
    """The text of a file. Raises InvalidInput for another type, a folder, too much, or bytes without text."""
    file = path.expanduser()
    if file.suffix.lower() not in SUFFIXES:
        raise InvalidInput(
            f"doc_path={str(path)!r} must end in {', '.join(SUFFIXES)}: only plain text is read"
        )
    try:
        if file.stat().st_size > CONTENT_BYTES_MAX:
            raise InvalidInput(f"doc_path={str(path)!r} has over {CONTENT_BYTES_MAX} bytes: split it")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"doc_path={str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"doc_path={str(path)!r} is not UTF-8 text: {error.reason}") from error
    return check_text("doc_path", text)
