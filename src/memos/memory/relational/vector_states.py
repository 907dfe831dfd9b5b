"""The vectors of a cube in memory, one state per `seq`.

Append-only: a row of the matrix never changes once it is there. A replaced or removed vector is masked
out in the next state, so states of different `seq` share one matrix, and a search needs no lock. States
are made under the lock of their cube's cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memos.memory.relational.tables import RecallTables

_MASKED_SHARE_MAX = 0.25  # of a matrix, before it is packed


class _Rows:
    """A matrix that only grows. Rows below `used` never change."""

    def __init__(self, dim: int, capacity: int) -> None:
        self.matrix: npt.NDArray[np.float32] = np.empty((capacity, dim), dtype=np.float32)
        self.nos: npt.NDArray[np.int64] = np.empty(capacity, dtype=np.int64)
        self.used = 0

    def append(self, nos: npt.NDArray[np.int64], matrix: npt.NDArray[np.float32]) -> None:
        end = self.used + len(nos)
        self.matrix[self.used : end] = matrix
        self.nos[self.used : end] = nos
        self.used = end


@dataclass(frozen=True, slots=True)
class VectorState:
    """The vectors of a cube at one `seq`: the first `count` rows but for the masked ones."""

    seq: int
    rows: _Rows
    count: int
    masked: npt.NDArray[np.bool_] | None

    @property
    def nos(self) -> npt.NDArray[np.int64]:
        """(count,) item numbers; masked rows included."""
        return self.rows.nos[: self.count]

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """(count, dim); masked rows included."""
        return self.rows.matrix[: self.count]

    @property
    def bytes(self) -> int:
        return self.rows.matrix.nbytes + self.rows.nos.nbytes


def vector_table(
    rows: list[tuple[int, bytes]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """(n,) numbers and (n, dim) vectors of rows (number, little-endian float32)."""
    nos = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
    dim = len(rows[0][1]) // 4 if rows else 0
    matrix = np.frombuffer(b"".join([row[1] for row in rows]), dtype="<f4").reshape(len(rows), dim)
    return nos, matrix


def load_vectors(tables: RecallTables, cube_no: int, seq: int) -> VectorState:
    """The state read whole, with some room to grow."""
    nos, matrix = vector_table(tables.vectors(cube_no))
    rows = _Rows(matrix.shape[1], len(nos) + len(nos) // 4 + 16)
    rows.append(nos, matrix)
    return VectorState(seq, rows, len(nos), None)


def bring_up_vectors(tables: RecallTables, cube_no: int, state: VectorState, seq: int) -> VectorState | None:
    """`state` with what changed since; None when reading everything again is the better way."""
    changed = [no for no, _ in tables.changed(cube_no, state.seq)]
    if not changed:
        return VectorState(seq, state.rows, state.count, state.masked)
    if len(changed) > max(1_000, state.count // 2):
        return None
    stale = np.isin(state.nos, np.array(changed, dtype=np.int64))
    masked = stale if state.masked is None else state.masked | stale
    nos, matrix = vector_table(tables.vectors(cube_no, after=state.seq))
    rows = state.rows
    if len(nos) and matrix.shape[1] != rows.matrix.shape[1]:
        return None  # another model's vectors, or the first ones
    count = state.count + len(nos)
    if masked.sum() > _MASKED_SHARE_MAX * count + 64:
        return None
    if rows.used != state.count or count > len(rows.nos):
        # Somebody else has appended to this matrix already, or it is full: go on in a larger one.
        rows = _Rows(rows.matrix.shape[1], count + count // 4 + 16)
        rows.append(state.nos, state.matrix)
    if len(nos):
        rows.append(nos, matrix)
    if not masked.any():
        return VectorState(seq, rows, count, None)
    return VectorState(seq, rows, count, np.concatenate([masked, np.zeros(len(nos), dtype=np.bool_)]))
