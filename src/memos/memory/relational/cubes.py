"""The row of a cube: its `seq`, its counters and the end of its journal chain."""

from __future__ import annotations

from dataclasses import dataclass

from memos.memory.item import CubeSizes, ItemStatus, MemoryKind


@dataclass(slots=True)
class CubeRow:
    """A cube as the current transaction sees it. `changed` says that its row must be written back."""

    no: int
    id: str
    seq: int
    working_version: int
    long_term: int
    user: int
    preference: int
    working_only: int
    archived: int
    length: int
    journal_rows: int
    chain: bytes
    changed: bool = False

    @property
    def live(self) -> int:
        """Live items of all kinds."""
        return self.long_term + self.user + self.preference + self.working_only

    def live_of(self, kind: MemoryKind) -> int:
        """Live items of one kind."""
        if kind is MemoryKind.LONG_TERM:
            return self.long_term
        if kind is MemoryKind.USER:
            return self.user
        return self.preference if kind is MemoryKind.PREFERENCE else self.working_only

    def change(self) -> None:
        """The transaction changes this cube: its `seq` rises, once."""
        if not self.changed:
            self.changed = True
            self.seq += 1

    def count(self, status: ItemStatus, kind: MemoryKind, *, live: bool, length: int, by: int) -> None:
        """Take an item into the counters (`by` 1) or out of them (-1)."""
        if live:
            self.length += by * length
            if kind is MemoryKind.LONG_TERM:
                self.long_term += by
            elif kind is MemoryKind.USER:
                self.user += by
            elif kind is MemoryKind.PREFERENCE:
                self.preference += by
            else:
                self.working_only += by
        elif status is ItemStatus.ARCHIVED:
            self.archived += by

    def sizes(self, *, working: int) -> CubeSizes:
        """Live items by kind; `working`: the places taken in working memory."""
        return CubeSizes(
            long_term=self.long_term,
            user=self.user,
            preference=self.preference,
            working=working,
            archived=self.archived,
        )
