"""In which order memories stand in the block, so that an update leaves its beginning as it was. Pure.

Order is residence time: oldest first, newcomers at the tail. A memory that only lost its rank stays where
it is as slack, as long as slack is at most `slack` of the wanted tokens; one that was deleted, changed or
contradicted goes at once. Over budget, the block is cut where leaving entries out frees enough for the
least to be computed again. A memory that returns while it still stands there costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

SLACK = 0.25


@dataclass(frozen=True, slots=True)
class Wanted:
    """A memory that ought to stand in the block. tokens: of its line."""

    item_id: str
    version: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Resident:
    """A memory that stands there. mark: the short name that the block calls it by (`m7`), given once."""

    item_id: str
    version: int
    mark: int
    tokens: int


@dataclass(frozen=True, slots=True)
class LayoutState:
    """What stands in the block of one cube and reader, oldest first; `next_mark` is not used yet."""

    residents: tuple[Resident, ...] = ()
    next_mark: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """The next state. `kept` entries at the beginning are as before; tokens are those of entries alone."""

    state: LayoutState
    kept: int
    kept_tokens: int
    tokens: int
    rank: tuple[int, ...] = field(default=())  # marks, most relevant first

    @property
    def reuse(self) -> float:
        """The share of the block's tokens that need not be computed again; 1 for an empty block."""
        return self.kept_tokens / self.tokens if self.tokens else 1.0


def namespace_of(reader: str, cube_ids: Sequence[str], *, salt: str = "") -> str:
    """Who may share a prefix: one reader of these cubes, in this order. Tells neither name.

    salt: of the store, so that two stores behind one server share nothing.
    """
    said = "\x1f".join((salt, reader, *cube_ids)).encode()
    return hashlib.sha256(b"memos activation namespace\x1e" + said).hexdigest()[:32]
