"""Attachments read into chunks: the bounds, the process, and who looks at pictures.

An image is read by the vision model where one is configured, else by OCR where tesseract is installed, else
by what the file tells of itself; `Document.notes` and `about["read_by"]` say which. A model that fails costs
no image: the next in this order reads it, and the notes say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from memos import log
from memos.documents.model import Document, Format, Limits, Options, Part
from memos.documents.sandbox import Sandbox
from memos.errors import DocumentUnsupported, ModelError
from memos.memory.attachments import Attachment
from memos.memory.document_items import ReadDocument, checksum_of, chunks_of
from memos.memory.hygiene import TOKENS_MAX

Images = Literal["auto", "model", "ocr", "metadata"]

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model sees in a picture."""

    description: str
    text: str = ""
    model: str = ""


class Viewer(Protocol):
    """Looks at a picture. Raises ModelError."""

    def look(self, picture: str, name: str) -> Seen:
        """picture: a data URL."""
        ...


@dataclass(frozen=True, slots=True)
class IntakeRules:
    """How documents are read."""

    limits: Limits = field(default_factory=Limits)
    chunk_chars: int = 1_000
    chunks_max: int = 5_000
    tokens_max: int = TOKENS_MAX
    images: Images = "auto"
    ocr_languages: str = "eng"


class DocumentIntake:
    """Reads attachments. Thread-safe; keeps nothing between calls."""

    def __init__(self, rules: IntakeRules | None = None, *, viewer: Viewer | None = None) -> None:
        self.rules = rules or IntakeRules()
        self._viewer = viewer if self.rules.images in ("auto", "model") else None

    def sandbox(self) -> Sandbox:
        """A process to read several calls' documents in; close it."""
        options = Options(ocr=self.rules.images not in ("metadata",), ocr_languages=self.rules.ocr_languages)
        return Sandbox(self.rules.limits, options)

    def read(
        self, attachments: Sequence[Attachment], *, sandbox: Sandbox | None = None
    ) -> tuple[list[ReadDocument], list[tuple[Attachment, str]]]:
        """(what was read, what was passed over and why).

        Raises DocumentError; a format without a reader here is an error for explicit attachments only.
        """
        found: list[ReadDocument] = []
        passed: list[tuple[Attachment, str]] = []
        if not attachments:
            return found, passed
        used = sandbox or self.sandbox()
        try:
            for attachment in attachments:
                try:
                    found.append(self._read(used, attachment))
                except DocumentUnsupported as error:
                    if attachment.explicit:
                        raise
                    passed.append((attachment, str(error)))
        finally:
            if sandbox is None:
                used.close()
        return found, passed

    def _read(self, sandbox: Sandbox, attachment: Attachment) -> ReadDocument:
        document = sandbox.read(
            attachment.payload,
            attachment.name,
            media_type=attachment.media_type,
            picture=self._viewer is not None,
        )
        if document.format is Format.IMAGE and document.picture:
            document = self._seen(document, attachment.name)
        rules = self.rules
        return ReadDocument(
            attachment,
            document,
            chunks_of(
                document,
                chars_max=rules.chunk_chars,
                tokens_max=rules.tokens_max,
                chunks_max=rules.chunks_max,
                name=attachment.name,
            ),
            checksum_of(attachment.payload),
        )

    def _seen(self, document: Document, name: str) -> Document:
        picture, document = document.picture, replace(document, picture="")
        if self._viewer is None:
            return document
        try:
            seen = self._viewer.look(picture, name)
        except ModelError as error:
            logger.warning("intake.picture_not_seen", error=type(error).__name__)
            return document.with_notes(f"the vision model failed ({error})")
        parts = [replace(document.parts[0], text=f"{document.parts[0].text}. {seen.description}")]
        parts += [Part(seen.text, kind="ocr")] if seen.text.strip() else []
        return replace(
            document,
            parts=tuple(parts),
            about={**document.about, "read_by": "model", "model": seen.model},
            notes=(f"described by the model {seen.model}",),
        )
