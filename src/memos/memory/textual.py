"""The documented form of a memory at the edge: `TextualMemoryItem` with `.id`, `.memory`, `.metadata`.

Inside the project a memory is a `MemoryItem`; this is what `retriever.search` and the API hand out.
`.memory` is the bare text: its date, its speakers and how well it fits are metadata. Unknown metadata
is kept, so that what callers attach comes back.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from memos.memory.item import MemoryItem, Source

Status = Literal["activated", "resolving", "archived", "deleted", "quarantined"]


class SourceMessage(BaseModel):
    """Where a memory comes from."""

    model_config = ConfigDict(extra="allow")

    type: str = "chat"
    role: str = ""
    message_id: str = ""
    item_id: str = ""
    content: str = ""
    name: str = ""
    chat_time: str = ""

    @classmethod
    def from_source(cls, source: Source) -> SourceMessage:
        return cls(
            type=source.type,
            role=source.role,
            message_id=source.message_id,
            item_id=source.item_id,
            content=source.content,
            name=source.name,
            chat_time=_iso(source.at),
        )


class TextualMemoryMetadata(BaseModel):
    """What is known of a memory besides its text. Times are ISO 8601 in UTC, "" for none."""

    model_config = ConfigDict(extra="allow")

    user_id: str = ""
    session_id: str = ""
    status: Status = "activated"
    memory_type: str = "LongTermMemory"
    key: str = ""
    tags: list[str] = Field(default_factory=list)
    confidence: float = Field(1.0, description="in [0, 1]")
    sources: list[SourceMessage] = Field(default_factory=list)
    embedding: list[float] | None = Field(None, description="never sent by default")
    created_at: str = Field("", description="when it was learned")
    updated_at: str = ""
    happened_at: str = Field("", description="when it was said or true from")
    valid_until: str = Field("", description="when it stopped being true")
    usage: list[str] = Field(default_factory=list, description="when it was last used, one entry")
    use_count: int = 0
    background: str = ""
    info: dict[str, Any] = Field(default_factory=dict, description="what the caller gave as info")
    visibility: str = "private"
    version: int = 1
    history: list[str] = Field(default_factory=list)
    mem_cube_id: str = ""
    participants: list[str] = Field(default_factory=list)
    role: str = ""
    scenario: str = ""
    position: int = 0
    links: list[str] = Field(default_factory=list, description="names of entities")
    raw: bool = Field(True, description="a turn as it came; false: derived from others")
    relativity: float | None = Field(None, description="how well it fits the query, in [0, 1]")


class TextualMemoryItem(BaseModel):
    """One memory as callers see it."""

    id: str
    memory: str
    metadata: TextualMemoryMetadata = Field(default_factory=TextualMemoryMetadata)

    @classmethod
    def from_item(cls, item: MemoryItem, *, relativity: float | None = None) -> TextualMemoryItem:
        """The documented form of `item`; `relativity` when it was recalled for a query."""
        return cls(
            id=item.id,
            memory=item.memory,
            metadata=TextualMemoryMetadata(
                user_id=item.user_id,
                session_id=item.session_id,
                status=item.status.value,
                memory_type=item.kind.value,
                key=item.key,
                tags=list(item.tags),
                confidence=item.confidence,
                sources=[SourceMessage.from_source(source) for source in item.sources],
                created_at=_iso(item.created_at),
                updated_at=_iso(item.updated_at),
                happened_at=_iso(item.happened_at),
                valid_until=_iso(item.valid_until),
                usage=[_iso(item.used_at)] if item.used_at is not None else [],
                use_count=item.use_count,
                background=item.background,
                info=dict(item.extra),
                version=item.version,
                mem_cube_id=item.cube_id,
                participants=list(item.participants),
                role=item.role,
                scenario=item.scenario,
                position=item.position,
                links=list(item.links),
                raw=item.raw,
                relativity=relativity,
            ),
        )


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()
