"""What a store keeps of blocks and kept prefixes, and the index from a memory to those that hold it.

What a store with this part guarantees
* An item that is edited, corrected, archived, quarantined or deleted leaves every block in the transaction
  of that change, and ends what every kept prefix with it may be used for (`KeptPrefix.sound`). Others stay.
* No memory's text is kept here. `header` is the caller's system text and our rules.
* `PutPrefix` and `DoomPrefixes` are changes like others: with a task's mark and logs in one transaction.
* A doomed prefix stays on record until `forget_prefixes`, so that what a crash left lying is still found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol, runtime_checkable

from memos.memory.activation.base import MissReason
from memos.memory.activation.layout import LayoutState


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """What chats over one block came to. Tokens: summed; `reused` counts chats whose server told.

    update_reuse: the share of the block's tokens that outlived its last change.
    """

    hits: int = 0
    misses: int = 0
    last_miss: str = ""
    last_miss_at: float | None = None
    predicted: int = 0
    told: int = 0  # chats whose server said what it reused
    reused: int = 0
    read: int = 0  # tokens of the prompts of those
    update_reuse: float | None = None

    def after(self, outcome: ChatReuse, at: float) -> BlockCounts:
        """With one chat more."""
        known = outcome.reused is not None
        miss = outcome.is_miss
        return replace(
            self,
            hits=self.hits + outcome.is_hit,
            misses=self.misses + miss,
            last_miss=str(outcome.reason) if miss else self.last_miss,
            last_miss_at=at if miss else self.last_miss_at,
            predicted=self.predicted + outcome.predicted,
            told=self.told + known,
            reused=self.reused + (outcome.reused or 0),
            read=self.read + (outcome.prompt if known else 0),
        )


@dataclass(frozen=True, slots=True)
class ChatReuse:
    """What one chat reused. predicted: tokens that should not have to be read again, by our count; reused:
    by the server's, None where it does not say; prompt: all tokens of the prompt, 0 where it does not say."""

    predicted: int
    reused: int | None
    prompt: int = 0
    reason: MissReason = MissReason.NONE

    @property
    def is_hit(self) -> bool:
        """Whether something was reused, as the server tells."""
        return bool(self.reused)

    @property
    def is_miss(self) -> bool:
        """Whether nothing was, as far as is known. A server that does not tell makes neither hit nor miss."""
        return not self.is_hit and self.reason is not MissReason.UNTOLD


@dataclass(frozen=True, slots=True)
class Block:
    """The block of one reader. `unbroken` residents at the beginning stand where the newest chat had them.

    version 0: not stored yet.
    """

    namespace: str
    user_id: str
    cube_ids: tuple[str, ...]
    language: str
    header: str = ""
    version: int = 0
    state: LayoutState = field(default_factory=LayoutState)
    unbroken: int = 0
    chats: int = 0
    chats_since_change: int = 0
    changes: int = 0
    changed_at: datetime | None = None
    used_at: datetime | None = None
    counts: BlockCounts = field(default_factory=BlockCounts)


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """A prefix that a runtime keeps: what a `Handle` needs, without the text of memories.

    item_ids, versions: the memories in it, in order. sound: how many of them may still be used.
    """

    id: str
    namespace: str
    user_id: str
    backend: str
    fingerprint: str
    header: str
    tokens: int
    bytes: int
    ends: tuple[int, ...]
    item_ids: tuple[str, ...]
    versions: tuple[int, ...]
    sound: int
    extra: Mapping[str, str] = field(default_factory=dict)
    doomed: str = ""
    built_at: datetime | None = None

    @property
    def is_sound(self) -> bool:
        """Whether nothing in it changed."""
        return not self.doomed and self.sound == len(self.item_ids)


@dataclass(frozen=True, slots=True)
class PutPrefix:
    """A prefix was prepared. Others of its namespace and runtime are doomed: it takes their place.

    An item in it that is not live any more, or whose line is another one than in the block of the namespace
    (it changed while the prefix was made), makes it unsound from there on.
    """

    prefix: KeptPrefix
    reason: str


@dataclass(frozen=True, slots=True)
class DoomPrefixes:
    """These prefixes are to be removed."""

    backend: str
    ids: tuple[str, ...]
    reason: str


@runtime_checkable
class BlockIndex(Protocol):
    """The blocks."""

    def block(self, namespace: str) -> Block | None:
        """One block."""
        ...

    def put_block(self, block: Block) -> Block:
        """Store what stands there now, as the version after `block.version`; returns it so.

        VersionConflict when somebody changed it meanwhile. Items that are not live any more, or whose line is
        another one than the resident's (edited, corrected between reading and storing), are left out.
        """
        ...

    def note_chat(self, namespace: str, outcome: ChatReuse) -> None:
        """Count a chat. Unknown namespaces are passed over."""
        ...

    def blocks(self, *, cube_id: str | None = None, user_id: str | None = None) -> list[Block]:
        """All, or those of a cube or user; used last first."""
        ...


@runtime_checkable
class PrefixIndex(BlockIndex, Protocol):
    """Blocks and kept prefixes."""

    def prefixes(self, *, namespaces: Sequence[str] | None = None, doomed: bool = False) -> list[KeptPrefix]:
        """Of these namespaces, or all, newest first; without the doomed ones, or with them alone."""
        ...

    def forget_prefixes(self, backend: str, ids: Sequence[str]) -> int:
        """They were removed; returns how many were on record."""
        ...
