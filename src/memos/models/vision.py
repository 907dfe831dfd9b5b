"""A picture put into words by a chat model that sees: what is in it, and the text that stands in it.

One structured question a picture, by the prompt `image_describing`. It fulfils `memory.intake.Viewer`. What the
model says is a model's word about a picture of somebody's: it is screened like any text before it is recalled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memos import prompts
from memos.errors import BadCompletion
from memos.memory.intake import Seen
from memos.models.ask import language_of
from memos.models.base import LLM, ChatMessage
from memos.models.structured import mismatch

STEP = "image_describing"
DESCRIPTION_CHARS_MAX = 4_000
TEXT_CHARS_MAX = 50_000

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"description": {"type": "string"}, "text": {"type": "string"}},
    "required": ["description", "text"],
    "additionalProperties": False,
}


class VisionModel:
    """Looks at pictures. Thread-safe, as the model is."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    def look(self, picture: str, name: str) -> Seen:
        """picture: a data URL; name: what the file is called. Raises ModelError."""
        about, question = prompts.parts(STEP, language_of(name))
        messages = [
            ChatMessage("system", about.template.strip()),
            ChatMessage("user", question.substitute(name=name).strip(), images=(picture,)),
        ]
        done = self._llm.complete(messages, schema=SCHEMA, temperature=0.0)
        said = done.parsed or {}
        fault = mismatch(dict(said), SCHEMA)
        if fault or not str(said.get("description", "")).strip():
            raise BadCompletion(fault or "the description is empty", done.text)
        description = " ".join(str(said["description"]).replace("\0", "").split())
        return Seen(
            description[:DESCRIPTION_CHARS_MAX],
            str(said["text"]).replace("\0", "").strip()[:TEXT_CHARS_MAX],
            self._llm.name,
        )
