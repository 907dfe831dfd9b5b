"""The indexes of items: postings, mentions and vectors, put in and taken out with the rows.

Postings are there for live items only. Mentions (links, participants, tags) stay for items that are
not live, marked so, because `find` filters archived items by them too; vectors stay until the item is
deleted or its text changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memos.errors import EmbedderMismatch, InvalidInput
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.sqlite.rows import Stored, fold

if TYPE_CHECKING:
    from memos.models.base import Vectors

LINK, PARTICIPANT, TAG = 1, 2, 3

_INSERT_POSTING = "INSERT INTO posting (cube_no, term, item_no, tf, length) VALUES (?, ?, ?, ?, ?)"
_DELETE_POSTING = "DELETE FROM posting WHERE cube_no = ? AND term = ? AND item_no = ?"
_INSERT_MENTION = "INSERT INTO mention (cube_no, sort, live, name, item_no) VALUES (?, ?, ?, ?, ?)"
_DELETE_MENTION = """
DELETE FROM mention WHERE cube_no = ? AND sort = ? AND live = ? AND name = ? AND item_no = ?
"""
_PUT_VECTOR = """
INSERT INTO vector (item_no, value) VALUES (?, ?) ON CONFLICT (item_no) DO UPDATE SET value = excluded.value
"""
_DELETE_VECTOR = "DELETE FROM vector WHERE item_no = ?"
_GET_META = "SELECT value FROM meta WHERE name = ?"
_PUT_META = """
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


@dataclass(frozen=True, slots=True)
class Binding:
    """The embedding model whose vectors the file holds."""

    fingerprint: str
    dim: int

    def check(self, expected: Binding | None) -> None:
        """EmbedderMismatch when this process was bound to another model than the file is now."""
        if expected is not None and expected != self:
            raise EmbedderMismatch(
                f"the stored vectors are of {self.fingerprint!r} ({self.dim}), this process encodes with "
                f"{expected.fingerprint!r} ({expected.dim}); restart it, or run `memos reembed`"
            )


def get_meta(connection: sqlite3.Connection, name: str) -> str | None:
    """One named value of the file."""
    row = connection.execute(_GET_META, (name,)).fetchone()
    return None if row is None else str(row[0])


def put_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Set one named value of the file."""
    connection.execute(_PUT_META, (name, value))


def get_binding(connection: sqlite3.Connection) -> Binding | None:
    """The model that the file is bound to."""
    dim = get_meta(connection, "embedder_dim")
    return None if dim is None else Binding(get_meta(connection, "embedder_fingerprint") or "", int(dim))


def put_binding(connection: sqlite3.Connection, binding: Binding) -> None:
    """Bind the file to a model."""
    put_meta(connection, "embedder_fingerprint", binding.fingerprint)
    put_meta(connection, "embedder_dim", str(binding.dim))


def vector_blob(vector: Vectors, item_id: str, binding: Binding | None) -> bytes:
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


def _postings(cube_no: int, stored: Stored) -> Iterator[tuple[Any, ...]]:
    if stored.item.live:
        length = sum(stored.terms.values())
        for term, count in stored.terms.items():
            yield cube_no, term, stored.no, count, length


def _mentions(cube_no: int, no: int, item: MemoryItem) -> Iterator[tuple[Any, ...]]:
    if item.status is ItemStatus.DELETED:
        return
    live = int(item.live)
    for sort, names in (
        (LINK, [fold(link) for link in item.links]),
        (PARTICIPANT, item.participants),
        (TAG, item.tags),
    ):
        for name in dict.fromkeys(names):
            if name:
                yield cube_no, sort, live, name, no


def put_entries(connection: sqlite3.Connection, cube_no: int, items: Sequence[Stored]) -> None:
    """Put items of one cube into postings and mentions, as their status asks."""
    connection.executemany(_INSERT_POSTING, (row for stored in items for row in _postings(cube_no, stored)))
    connection.executemany(
        _INSERT_MENTION, (row for stored in items for row in _mentions(cube_no, stored.no, stored.item))
    )


def take_entries(connection: sqlite3.Connection, cube_no: int, stored: Stored) -> None:
    """Take an item, as it stands in the file, out of postings and mentions."""
    connection.executemany(_DELETE_POSTING, (row[:3] for row in _postings(cube_no, stored)))
    connection.executemany(_DELETE_MENTION, _mentions(cube_no, stored.no, stored.item))


def same_entries(old: Stored, new: Stored) -> bool:
    """Whether postings and mentions of both are the same, so that they can stay."""
    return (
        old.item.status is not ItemStatus.DELETED
        and new.item.status is not ItemStatus.DELETED
        and old.item.live == new.item.live
        and old.terms == new.terms
        and old.item.links == new.item.links
        and old.item.participants == new.item.participants
        and old.item.tags == new.item.tags
    )


def put_vectors(connection: sqlite3.Connection, rows: Iterable[tuple[int, bytes]]) -> None:
    """Set vectors: (item number, blob)."""
    connection.executemany(_PUT_VECTOR, rows)


def drop_vector(connection: sqlite3.Connection, no: int) -> None:
    """Forget the vector of one item."""
    connection.execute(_DELETE_VECTOR, (no,))
