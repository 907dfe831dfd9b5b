"""How files are read, by the documents section of the settings. A part of the composition root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memos.errors import ConfigError

if TYPE_CHECKING:
    from memos.memory.intake import DocumentIntake
    from memos.models.base import LLM
    from memos.settings import Settings


def build_intake(settings: Settings, vision: LLM | None = None) -> DocumentIntake:
    """The reader of attachments. Starts nothing: a process is started for each call that brings files.

    Raises ConfigError where images shall be read by a model and none is named.
    """
    from memos.documents.model import Limits
    from memos.memory.intake import DocumentIntake, IntakeRules
    from memos.models.vision import VisionModel

    chosen = settings.documents
    limits = Limits(
        bytes_max=chosen.bytes_max,
        pages_max=chosen.pages_max,
        rows_max=chosen.rows_max,
        chars_max=chosen.chunk_chars * chosen.chunks_max,
        seconds_max=chosen.seconds_max,
        memory_bytes_max=chosen.memory_bytes_max,
        expanded_bytes_max=chosen.expanded_bytes_max,
        expansion_ratio_max=chosen.expansion_ratio_max,
        pixels_max=chosen.pixels_max,
    )
    rules = IntakeRules(
        limits=limits,
        chunk_chars=chosen.chunk_chars,
        chunks_max=chosen.chunks_max,
        tokens_max=settings.memory.item_tokens_max,
        images=chosen.images,
        ocr_languages=chosen.ocr_languages,
    )
    if chosen.images == "model" and vision is None:
        raise ConfigError(
            "MEMOS_DOCUMENTS__IMAGES=model needs a model that sees: set MEMOS_MODELS__VISION_MODEL"
        )
    return DocumentIntake(rules, viewer=None if vision is None else VisionModel(vision))
