"""What indexes hold of an item, as values: term counts, mentions, the bytes of a vector.

Terms are indexed of live items only. Mentions (links, participants, tags) stay for items that are not live,
marked so, because `find` filters archived items by them too; vectors stay until the item is deleted or its
text changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memos.errors import EmbedderMismatch, InvalidInput
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.relational.rows import Stored, fold

if TYPE_CHECKING:
    from memos.memory.relational.tables import MetaTable
    from memos.models.base import Vectors

LINK, PARTICIPANT, TAG = 1, 2, 3
_DIM, _FINGERPRINT = "embedder_dim", "embedder_fingerprint"


@dataclass(frozen=True, slots=True)
class Binding:
    """The embedding model whose vectors the store holds."""

    fingerprint: str
    dim: int

    def check(self, expected: Binding | None) -> None:
        """EmbedderMismatch when this process was bound to another model than the store is now."""
        if expected is not None and expected != self:
            raise EmbedderMismatch(
                f"the stored vectors are of {self.fingerprint!r} ({self.dim}), this process encodes with "
                f"{expected.fingerprint!r} ({expected.dim}); restart it, or run `memos reembed`"
            )


def get_binding(meta: MetaTable) -> Binding | None:
    """The model that the store is bound to."""
    dim = meta.get(_DIM)
    return None if dim is None else Binding(meta.get(_FINGERPRINT) or "", int(dim))


def put_binding(meta: MetaTable, binding: Binding) -> None:
    """Bind the store to a model."""
    meta.put(_FINGERPRINT, binding.fingerprint)
    meta.put(_DIM, str(binding.dim))


def vector_bytes(vector: Vectors, item_id: str, binding: Binding | None) -> bytes:
    """The bytes to store. Raises InvalidInput when the vector is not one of the bound model's."""
    import numpy as np

    if binding is None:
        raise InvalidInput(
            f"item {item_id!r} brings a vector but no model is bound; call bind_embedder first"
        )
    row = np.asarray(vector, dtype="<f4")
    if row.shape != (binding.dim,):
        raise InvalidInput(f"the vector of item {item_id!r} has shape {row.shape}, not ({binding.dim},)")
    if not np.isfinite(row).all():
        raise InvalidInput(f"the vector of item {item_id!r} holds a number that is not finite")
    return row.tobytes()


def mentions(item: MemoryItem) -> Iterator[tuple[int, str]]:
    """(sort, name) of everything that the item names, each once: links folded, the others as written."""
    if item.status is ItemStatus.DELETED:
        return
    for sort, names in (
        (LINK, [fold(link) for link in item.links]),
        (PARTICIPANT, item.participants),
        (TAG, item.tags),
    ):
        for name in dict.fromkeys(names):
            if name:
                yield sort, name


def same_entries(old: Stored, new: Stored) -> bool:
    """Whether terms and mentions of both are the same, so that they can stay."""
    return (
        old.item.status is not ItemStatus.DELETED
        and new.item.status is not ItemStatus.DELETED
        and old.item.live == new.item.live
        and old.terms == new.terms
        and old.item.links == new.item.links
        and old.item.participants == new.item.participants
        and old.item.tags == new.item.tags
    )
