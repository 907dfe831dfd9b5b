"""Files of the caller's own machine, for `MOS.add` and the command line. Never used by the server, whose
callers are others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from memos.documents.sniff import READ_SUFFIXES
from memos.errors import DocumentTooLarge, InvalidInput
from memos.memory.attachments import Attachment, file_name

FILES_MAX = 100_000


def attachment(path: Path, *, bytes_max: int) -> Attachment:
    """The file, as one that was asked for. Its full path tells it from others of the same name.

    Raises InvalidInput for a folder or what cannot be read, DocumentTooLarge.
    """
    file = path.expanduser()
    try:
        if not file.is_file():
            what = "is a folder" if file.is_dir() else "is no file that can be read"
            raise InvalidInput(f"{str(path)!r} {what}")
        size = file.stat().st_size
        if size > bytes_max:
            raise DocumentTooLarge(
                f"{str(path)!r} has {size} bytes; at most {bytes_max} are read: split it, or raise "
                "MEMOS_DOCUMENTS__BYTES_MAX"
            )
        with file.open("rb") as stream:
            payload = stream.read(bytes_max + 1)  # it may have grown, or be no plain file
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    name = file_name(file.name) or "file"
    return Attachment(0, name, payload, identity=str(file.resolve()), explicit=True)


def files_of(patterns: Sequence[str]) -> Iterator[Path]:
    """The files that paths, folders and patterns name, each once, in order.

    A folder gives the files below it whose suffix is one that can be read, hidden ones left out. A
    pattern (`docs/**/*.pdf`) gives what it matches. Raises InvalidInput for what names nothing.
    """
    seen: set[Path] = set()
    for pattern in patterns:
        found = False
        for file in _named(pattern):
            found = True
            place = file.resolve()
            if place not in seen:
                seen.add(place)
                if len(seen) > FILES_MAX:
                    raise InvalidInput(f"more than {FILES_MAX} files are named; add them in parts")
                yield file
        if not found:
            raise InvalidInput(f"{pattern!r} names no file that can be read")


def _named(pattern: str) -> Iterator[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if not hidden and file.suffix.lower() in READ_SUFFIXES and file.is_file():
                yield file
    elif path.exists() or not any(sign in pattern for sign in "*?["):
        yield path
    else:
        root = Path(path.anchor) if path.is_absolute() else Path()
        relative = str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)
        yield from (file for file in sorted(root.glob(relative)) if file.is_file())
