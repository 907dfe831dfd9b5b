"""A document as memories: one raw item a chunk, in the order of the document, each with its place.

A chunk is text of one place (a section of a page, rows of a sheet), under the headings that it stands under,
so that it can be understood, and found, alone. What belongs to one document shares its id as `session_id`:
neighbours are neighbours in the text, and the document goes as a whole. The id of a document comes from
its cube, user and name (or the caller's `file_id`), the id of a chunk from that, the bytes of the file and
its number: the same file read twice gives the same items, whoever reads it, so none can be stored twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from memos.documents.model import Document, Format, Part
from memos.errors import DocumentTooLarge
from memos.memory.attachments import Attachment
from memos.memory.item import MemoryItem, MemoryKind, ReadState, Source
from memos.memory.reader import split_text
from memos.memory.token_count import count_tokens

DOCUMENT_ROLE = "document"
DOCUMENT_TAG = "document"  # of a document's first chunk, by which documents are listed
DOCUMENT_KEY = "document"  # in an item's `extra`
HEADINGS_SHOWN = 3
PREFIX_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class Chunk:
    """Text of one place."""

    text: str
    part: Part


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """One attachment as read, cut into chunks."""

    attachment: Attachment
    document: Document
    chunks: tuple[Chunk, ...]
    checksum: str  # SHA-256 of the file, hexadecimal

    @property
    def identity(self) -> str:
        """What its versions share. Images are named by chance ("image.png"), so each stands for itself."""
        if self.attachment.identity or self.document.format is not Format.IMAGE:
            return self.attachment.identity or self.attachment.name
        return f"{self.attachment.name}#{self.checksum}"


def checksum_of(payload: bytes) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(payload).hexdigest()


def checksum_tag(checksum: str) -> str:
    """The tag of a document's first chunk by which the same bytes are found under another name."""
    return f"sha256:{checksum}"


def document_id(cube_id: str, user_id: str, identity: str) -> str:
    """The id that all versions of one document of a user in a cube share."""
    return "doc-" + _digest(cube_id, user_id, identity)


def chunk_id(of_document: str, checksum: str, generation: int, number: int) -> str:
    """The id of a chunk. `generation` counts how often the same bytes were deleted or replaced before."""
    return "chunk-" + _digest(of_document, checksum, str(generation), str(number))


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def chunks_of(
    document: Document, *, chars_max: int, tokens_max: int, chunks_max: int, name: str
) -> tuple[Chunk, ...]:
    """The chunks of a document in order. DocumentTooLarge for too many."""
    found: list[Chunk] = []
    for chunk in _chunks(document.parts, chars_max, tokens_max):
        found.append(chunk)
        if len(found) > chunks_max:
            raise DocumentTooLarge(
                f"{name} makes more than {chunks_max} memories: split it, or raise MEMOS_DOCUMENTS__CHUNKS_MAX"
            )
    return tuple(found)


def _chunks(parts: Sequence[Part], chars_max: int, tokens_max: int) -> Iterator[Chunk]:
    open_part: Part | None = None
    for part in parts:
        prefix = _prefix(part)
        room = max(chars_max // 2, chars_max - len(prefix))
        tokens_room = max(1, tokens_max - count_tokens(prefix) - 1)
        for piece in _pieces(part.text, room, tokens_room):
            alone = replace(part, text=piece)
            if open_part is not None and (joined := _joined(open_part, alone, room, tokens_room)):
                open_part = joined
                continue
            if open_part is not None:
                yield _chunk(open_part)
            open_part = alone
    if open_part is not None:
        yield _chunk(open_part)


def _joined(before: Part, after: Part, chars_max: int, tokens_max: int) -> Part | None:
    """The two as one, where they are of one place and short enough."""
    if before.place != after.place or len(before.text) + 1 + len(after.text) > chars_max:
        return None
    text = f"{before.text}\n{after.text}"
    if count_tokens(text) > tokens_max:
        return None
    rows = (before.rows[0], after.rows[1]) if before.rows and after.rows else None
    return replace(before, text=text, rows=rows)


def _pieces(text: str, chars_max: int, tokens_max: int) -> Iterator[str]:
    """Paragraphs; those that are too long cut at sentences."""
    if len(text) <= chars_max and count_tokens(text) <= tokens_max:
        yield text
        return
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            yield from split_text(paragraph, chars_max, tokens_max=tokens_max)


def _chunk(part: Part) -> Chunk:
    prefix = _prefix(part)
    return Chunk(f"{prefix}\n{part.text}" if prefix else part.text, part)


def _prefix(part: Part) -> str:
    """The line above a chunk: the headings it stands under."""
    names = [part.sheet] if part.sheet else list(part.headings[-HEADINGS_SHOWN:])
    return " › ".join(names)[:PREFIX_CHARS_MAX]


def place_text(part: Part, document: Document) -> str:
    """Where a chunk stands, for people: "page 2, Warranty › Terms"."""
    told = []
    if part.sheet:
        told.append(f"sheet {part.sheet}")
    elif part.page is not None and document.pages:
        told.append(f"{'slide' if document.format == 'pptx' else 'page'} {part.page}")
    if part.rows is not None:
        first, last = part.rows
        told.append(f"row {first}" if first == last else f"rows {first}–{last}")
    if part.headings:
        told.append(" › ".join(part.headings))
    if part.kind in ("notes", "ocr"):
        told.append({"notes": "notes", "ocr": "read by OCR"}[part.kind])
    return ", ".join(told)


def items_of(
    read: ReadDocument,
    *,
    cube_id: str,
    user_id: str,
    generation: int,
    now: datetime,
    session_id: str = "",
    turn_id: str = "",
    info: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    due: ReadState = ReadState.NONE,
) -> list[MemoryItem]:
    """The items of one document. `session_id` is the conversation that it was shown in."""
    document, attachment = read.document, read.attachment
    whole = document_id(cube_id, user_id, read.identity)
    shared = {
        "id": whole,
        "name": attachment.name,
        "format": document.format.value,
        "title": document.title,
        "pages": document.pages,
        "parts": len(read.chunks),
        "checksum": read.checksum,
        "generation": generation,
        "bytes": len(attachment.payload),
    }
    if attachment.speaker or session_id:
        shared |= {"shared_by": attachment.speaker or attachment.role, "session_id": session_id}
    items = []
    for number, chunk in enumerate(read.chunks):
        place = place_text(chunk.part, document)
        about: dict[str, Any] = {**shared, "part": number + 1, "place": place}
        if chunk.part.page is not None and document.pages:
            about["page"] = chunk.part.page
        if chunk.part.sheet:
            about["sheet"] = chunk.part.sheet
        if chunk.part.rows is not None:
            about["rows"] = list(chunk.part.rows)
        if chunk.part.headings:
            about["headings"] = list(chunk.part.headings)
        if number == 0:
            about |= {
                "about": dict(document.about),
                "notes": list(document.notes),
                "encoding": document.encoding,
            }
        own = (*tags, DOCUMENT_TAG, checksum_tag(read.checksum)) if number == 0 else tuple(tags)
        items.append(
            MemoryItem(
                id=chunk_id(whole, read.checksum, generation, number),
                cube_id=cube_id,
                user_id=user_id,
                memory=chunk.text,
                kind=MemoryKind.LONG_TERM,
                read=due,
                key=", ".join(filter(None, (attachment.name, place)))[:300],
                role=DOCUMENT_ROLE,
                session_id=whole,
                position=number,
                turn_id=turn_id,
                sources=(
                    Source(
                        type="document",
                        role=DOCUMENT_ROLE,
                        message_id=whole,
                        name=attachment.name,
                        content=place,
                        at=attachment.at,
                    ),
                ),
                tags=own,
                created_at=now,
                updated_at=now,
                happened_at=attachment.at,
                extra={
                    **(info or {}),
                    "file": attachment.name,
                    "file_id": whole,
                    DOCUMENT_KEY: about,
                },
            )
        )
    return items


def document_of(item: MemoryItem) -> Mapping[str, Any]:
    """What an item tells of the document it is a chunk of; {} for other items."""
    found = item.extra.get(DOCUMENT_KEY)
    return found if isinstance(found, Mapping) and item.role == DOCUMENT_ROLE else {}
