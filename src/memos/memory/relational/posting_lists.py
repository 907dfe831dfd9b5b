"""The posting list of one term in one cube, as arrays that BM25 computes with. Immutable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from memos.memory.relational.tables import Posting, RecallTables

PATCHED_MAX = 200  # changed items, above which a list is read again


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
        self, tables: RecallTables, cube_no: int, term: str, seq: int, changed: Sequence[int]
    ) -> PostingList:
        """The list at `seq`, given the items that changed since this one."""
        if len(changed) > PATCHED_MAX:
            return load_postings(tables, cube_no, [term], seq)[term]
        rows = tables.postings(cube_no, [term], changed)[term]
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


def load_postings(
    tables: RecallTables, cube_no: int, terms: Sequence[str], seq: int
) -> Mapping[str, PostingList]:
    """The lists of the terms, read whole."""
    return {term: _as_list(rows, seq) for term, rows in tables.postings(cube_no, terms).items()}


def _as_list(rows: Sequence[Posting], seq: int) -> PostingList:
    table = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=3 * len(rows)).reshape(-1, 3)
    return PostingList(
        seq, table[:, 0].copy(), table[:, 1].astype(np.float32), table[:, 2].astype(np.float32)
    )
