"""The row of a cube: its `seq`, its counters and the end of its journal chain."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from memos.memory.item import CubeSizes, ItemStatus, MemoryKind

_COLUMNS = (
    "no, id, seq, working_version, long_term, user, preference, working_only, archived, length, "
    "journal_rows, chain"
)
SELECT_CUBE = f"SELECT {_COLUMNS} FROM cube WHERE id = ?"
SELECT_CUBES = f"SELECT {_COLUMNS} FROM cube ORDER BY no"
_INSERT = "INSERT INTO cube (id, chain) VALUES (?, ?)"
_UPDATE = """
UPDATE cube SET seq = ?, working_version = ?, long_term = ?, user = ?, preference = ?, working_only = ?,
                archived = ?, length = ?, journal_rows = ?, chain = ?
WHERE no = ?
"""
_COUNT_WORKING = "SELECT count(*) FROM working WHERE cube_no = ?"


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

    def save(self, connection: sqlite3.Connection) -> None:
        """Write the row back."""
        connection.execute(
            _UPDATE,
            (
                self.seq,
                self.working_version,
                self.long_term,
                self.user,
                self.preference,
                self.working_only,
                self.archived,
                self.length,
                self.journal_rows,
                self.chain,
                self.no,
            ),
        )


def find_cube(connection: sqlite3.Connection, cube_id: str) -> CubeRow | None:
    """The cube of that id, if anything was ever stored in it."""
    row = connection.execute(SELECT_CUBE, (cube_id,)).fetchone()
    return None if row is None else CubeRow(*row)


def insert_cube(connection: sqlite3.Connection, cube_id: str, chain: bytes) -> CubeRow:
    """A new, empty cube at seq 0."""
    connection.execute(_INSERT, (cube_id, chain))
    return CubeRow(*connection.execute(SELECT_CUBE, (cube_id,)).fetchone())


def sizes_of(connection: sqlite3.Connection, cube: CubeRow) -> CubeSizes:
    """Live items by kind, and the places taken in working memory."""
    return CubeSizes(
        long_term=cube.long_term,
        user=cube.user,
        preference=cube.preference,
        working=connection.execute(_COUNT_WORKING, (cube.no,)).fetchone()[0],
        archived=cube.archived,
    )
