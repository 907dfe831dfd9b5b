"""The stored memory: one `MemoryItem`, its kinds and its states, as values.

Inside the project an item is a frozen dataclass; `memos.memory.textual.TextualMemoryItem` is the
documented pydantic form at the edge. Where an item *is* (its kind) and whether it *stands in working
memory* are two things: working memory is an ordered, versioned set of references (`WorkingSet`), so
that one edit, archive or deletion of an item is an edit of it everywhere.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class MemoryKind(StrEnum):
    """Where an item lives. The values are the documented memory type strings."""

    LONG_TERM = "LongTermMemory"
    USER = "UserMemory"
    PREFERENCE = "PreferenceMemory"
    WORKING = "WorkingMemory"  # written to working memory only; becomes LONG_TERM when it leaves the set


class ItemStatus(StrEnum):
    """ACTIVATED and RESOLVING items are live: recalled, counted, eligible for working memory."""

    ACTIVATED = "activated"
    RESOLVING = "resolving"
    ARCHIVED = "archived"  # kept and readable, never recalled
    DELETED = "deleted"  # a tombstone: the text is gone from every index and from the row
    QUARANTINED = "quarantined"  # held for review, never recalled


LIVE = frozenset({ItemStatus.ACTIVATED, ItemStatus.RESOLVING})


class ReadState(StrEnum):
    """Whether a raw item still has to be read into derived items."""

    NONE = "none"
    DUE = "due"
    DONE = "done"


PART = "part"  # type of a source without which an item cannot stay: it is a summary of it


@dataclass(frozen=True, slots=True)
class Source:
    """Where an item comes from: a turn of a conversation, a document, or another item."""

    type: str  # "chat", "document", "item", "part", "feedback"
    role: str = ""
    message_id: str = ""
    item_id: str = ""
    content: str = ""
    name: str = ""  # file name or URL of a document
    at: datetime | None = None

    @property
    def key(self) -> str:
        """What counts as one source when hits are counted: the item, else the turn, else the document."""
        return self.item_id or self.message_id or self.name


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """One memory. All times are aware UTC datetimes."""

    id: str
    cube_id: str
    user_id: str
    memory: str  # the bare text; its date is in `happened_at`
    kind: MemoryKind = MemoryKind.LONG_TERM
    status: ItemStatus = ItemStatus.ACTIVATED
    version: int = 1  # of the row; +1 with every change
    raw: bool = True  # a turn or document as it came; False: derived from others, may be merged
    read: ReadState = ReadState.NONE
    key: str = ""  # a title of a few words
    background: str = ""
    participants: tuple[str, ...] = ()  # who speaks, as a field; not necessarily part of the text
    role: str = ""
    session_id: str = ""
    scenario: str = ""
    position: int = 0  # order inside the session, for neighbours
    turn_id: str = ""  # the chat turn that wrote it, which leaves it out of its own recall
    sources: tuple[Source, ...] = ()
    tags: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # names of entities
    confidence: float = 1.0
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))  # when learned
    updated_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    happened_at: datetime | None = None  # when it was said or true from
    valid_until: datetime | None = None  # when it stopped being true
    use_count: int = 0
    used_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # the caller's own `info`

    @property
    def live(self) -> bool:
        return self.status in LIVE

    @property
    def content_hash(self) -> str:
        """Same for texts that differ only in case, width or white space. 32 hex digits."""
        return content_hash(self.memory)


def content_hash(text: str) -> str:
    """blake2b-128 of the text under NFKC, case folding and folded white space."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class WorkingEntry:
    """One place in working memory, and why the item is there."""

    item_id: str
    score: float = 0.0
    reason: str = ""  # e.g. "recalled for 'dog name'", "kept: used twice"
    admitted_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """The working memory of a cube at one version: `entries[i]` is about `items[i]`, best first."""

    cube_id: str
    version: int
    entries: tuple[WorkingEntry, ...]
    items: tuple[MemoryItem, ...]


@dataclass(frozen=True, slots=True)
class CubeSizes:
    """Live items by kind; `working` counts the places taken in working memory."""

    long_term: int = 0
    user: int = 0
    preference: int = 0
    working: int = 0
    archived: int = 0


@dataclass(frozen=True, slots=True)
class Capacities:
    """How many live items a cube may hold of each kind; what is over is archived, never deleted."""

    long_term: int = 10_000
    user: int = 10_000
    preference: int = 10_000
    working: int = 20
