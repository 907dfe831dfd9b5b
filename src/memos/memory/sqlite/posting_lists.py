"""The posting list of one term in one cube, as arrays that BM25 computes with. Immutable."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from memos.memory.sqlite.lookup import chunks, marks

PATCHED_MAX = 200  # changed items, above which a list is read again

_ALL = "SELECT item_no, tf, length FROM posting WHERE cube_no = ? AND term = ?"
_SOME = "SELECT item_no, tf, length FROM posting WHERE cube_no = ? AND term = ? AND item_no IN ({marks})"


@dataclass(frozen=True, slots=True, eq=False)
class PostingList:
    """The live items that bear a term: `counts[i]` times in item `nos[i]`, which has `lengths[i]` terms."""

    seq: int
    nos: npt.NDArray[np.int64]
    counts: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.float32]

    @property
    def bytes(self) -> int:
        return self.nos.nbytes + self.counts.nbytes + self.lengths.nbytes

    def brought_up(
        self, connection: sqlite3.Connection, cube_no: int, term: str, seq: int, changed: Sequence[int]
    ) -> PostingList:
        """The list at `seq`, given the items that changed since this one."""
        if len(changed) > PATCHED_MAX:
            return load_postings(connection, cube_no, term, seq)
        rows = [
            row
            for part in chunks(changed)
            for row in connection.execute(_SOME.format(marks=marks(len(part))), (cube_no, term, *part))
        ]
        kept = np.isin(self.nos, np.array(changed, dtype=np.int64), invert=True)
        if not rows and kept.all():
            return PostingList(seq, self.nos, self.counts, self.lengths)
        fresh = _as_list(rows, seq)
        return PostingList(
            seq,
            np.concatenate([self.nos[kept], fresh.nos]),
            np.concatenate([self.counts[kept], fresh.counts]),
            np.concatenate([self.lengths[kept], fresh.lengths]),
        )


def load_postings(connection: sqlite3.Connection, cube_no: int, term: str, seq: int) -> PostingList:
    """The list read whole from the file."""
    return _as_list(connection.execute(_ALL, (cube_no, term)).fetchall(), seq)


def _as_list(rows: list[tuple[int, int, int]], seq: int) -> PostingList:
    table = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=3 * len(rows)).reshape(-1, 3)
    return PostingList(
        seq, table[:, 0].copy(), table[:, 1].astype(np.float32), table[:, 2].astype(np.float32)
    )
