"""The vectors of a cube in memory, one state per `seq`.

Append-only: a row of the matrix never changes once it is there. A replaced or removed vector is masked
out in the next state, so states of different `seq` share one matrix, and a search needs no lock. States
are made under the lock of their cube's cache.

Small cubes are kept as they are stored. From `QUANTISED_MIN` vectors on a cube is kept as one signed byte a
number, with a scale for each vector: a quarter of the memory, and compared faster, because less memory is
read. A byte rounds by at most half a step, so a cosine is off by a sum of `dim` small errors with a standard
deviation of at most step / sqrt(12). Who searches takes every vector that could be among the best by
`MARGIN_DEVIATIONS` of that on both sides and compares it exactly, as the store has it in the same snapshot.
There is no index file that could be stale: what is here comes out of the rows, and a restart reads them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import sqrt

import numpy as np
import numpy.typing as npt

from memos.memory.relational.tables import RecallTables

QUANTISED_MIN = 500  # vectors of a cube, from which on bytes are kept
MARGIN_DEVIATIONS = 4.0
BLOCK_ROWS = 4_096  # read at a time
COMPARED_ROWS = 512  # compared at a time: as numbers they stay in the processor's cache
_MASKED_SHARE_MAX = 0.25  # of a matrix, before it is packed

Numbers = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]
Codes = npt.NDArray[np.float32] | npt.NDArray[np.int8]


class _Rows:
    """A matrix that only grows. Rows below `used` never change."""

    def __init__(self, dim: int, capacity: int, *, quantised: bool) -> None:
        self.quantised = quantised
        size = (capacity, dim)
        self.codes: Codes = np.empty(size, dtype=np.int8) if quantised else np.empty(size, dtype=np.float32)
        self.steps: Matrix = np.empty(capacity if quantised else 0, dtype=np.float32)
        self.nos: Numbers = np.empty(capacity, dtype=np.int64)
        self.step_max = 0.0
        self.used = 0

    @property
    def dim(self) -> int:
        return int(self.codes.shape[1])

    @property
    def bytes(self) -> int:
        return self.codes.nbytes + self.steps.nbytes + self.nos.nbytes

    def append(self, nos: Numbers, matrix: Matrix) -> None:
        """Add vectors (n, dim) as they are stored."""
        end = self.used + len(nos)
        if self.quantised:
            codes, steps = _quantised(matrix)
            self._put(nos, codes, steps)
        else:
            self.codes[self.used : end] = matrix
            self.nos[self.used : end] = nos
            self.used = end

    def append_from(self, other: _Rows, count: int) -> None:
        """Add the first `count` rows of another matrix of the same sort."""
        self._put(other.nos[:count], other.codes[:count], other.steps[:count])

    def _put(self, nos: Numbers, codes: Codes, steps: Matrix) -> None:
        end = self.used + len(nos)
        self.codes[self.used : end] = codes
        self.nos[self.used : end] = nos
        if self.quantised:
            self.steps[self.used : end] = steps
            self.step_max = max(self.step_max, float(steps.max(initial=0.0)))
        self.used = end


def _quantised(matrix: Matrix) -> tuple[npt.NDArray[np.int8], Matrix]:
    """Codes and the step of each row: a number is its code times the step of its row."""
    steps = np.abs(matrix).max(axis=1) / np.float32(127)
    steps[steps == 0.0] = 1.0
    codes = np.rint(matrix / steps[:, None]).astype(np.int8)
    return codes, steps.astype(np.float32)


@dataclass(frozen=True, slots=True)
class VectorState:
    """The vectors of a cube at one `seq`: the first `count` rows but for the masked ones."""

    seq: int
    rows: _Rows
    count: int
    masked: npt.NDArray[np.bool_] | None

    @property
    def dim(self) -> int:
        """Numbers of a vector; 0 while there is none."""
        return self.rows.dim

    @property
    def bytes(self) -> int:
        return self.rows.bytes

    @property
    def margin(self) -> float:
        """How far below the last of the best a cosine may seem that belongs to them; 0: cosines are exact."""
        return 2 * MARGIN_DEVIATIONS * self.rows.step_max / sqrt(12)

    def cosines(self, wanted: Matrix) -> tuple[Numbers, Matrix]:
        """Number and cosine of each vector with the unit vector `(dim,)`, within half the `margin`."""
        nos, codes = self.rows.nos[: self.count], self.rows.codes[: self.count]
        if not self.rows.quantised:
            cosines: Matrix = codes @ wanted
        else:
            cosines = np.empty(self.count, dtype=np.float32)
            block = np.empty((min(COMPARED_ROWS, self.count), self.dim), dtype=np.float32)
            for start in range(0, self.count, COMPARED_ROWS):
                part = codes[start : start + COMPARED_ROWS]
                np.copyto(block[: len(part)], part)
                np.dot(block[: len(part)], wanted, out=cosines[start : start + len(part)])
            cosines *= self.rows.steps[: self.count]
        if self.masked is None:
            return nos, cosines
        return nos[~self.masked], cosines[~self.masked]


def vector_table(rows: list[tuple[int, bytes]]) -> tuple[Numbers, Matrix]:
    """(n,) numbers and (n, dim) vectors of rows (number, little-endian float32)."""
    nos = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
    dim = len(rows[0][1]) // 4 if rows else 0
    matrix = np.frombuffer(b"".join([row[1] for row in rows]), dtype="<f4").reshape(len(rows), dim)
    return nos, matrix


def _blocks(rows: Iterable[tuple[int, bytes]]) -> Iterator[tuple[Numbers, Matrix]]:
    """The rows in tables of `BLOCK_ROWS`, so that no second copy of all of them is ever held."""
    left = iter(rows)
    while block := list(islice(left, BLOCK_ROWS)):
        yield vector_table(block)


def load_vectors(tables: RecallTables, cube_no: int, seq: int) -> VectorState:
    """The state read whole, with some room to grow."""
    rows = _Rows(0, 0, quantised=False)
    for nos, matrix in _blocks(tables.vectors(cube_no)):
        count = rows.used + len(nos)
        quantised = count >= QUANTISED_MIN
        if count > len(rows.nos) or quantised is not rows.quantised:
            rows = _grown(rows, rows.used, count, dim=matrix.shape[1], quantised=quantised)
        rows.append(nos, matrix)
    if rows.used < len(rows.nos) // 2:
        rows = _grown(rows, rows.used, rows.used, dim=rows.dim, quantised=rows.quantised)
    return VectorState(seq, rows, rows.used, None)


def _grown(rows: _Rows, used: int, count: int, *, dim: int, quantised: bool) -> _Rows:
    """A larger matrix with the first `used` rows, and room for `count` and some more."""
    larger = _Rows(dim, count + count // 4 + 16, quantised=quantised)
    if used and quantised is rows.quantised:
        larger.append_from(rows, used)
    elif used:
        larger.append(rows.nos[:used], np.asarray(rows.codes[:used], dtype=np.float32))
    return larger


def bring_up_vectors(tables: RecallTables, cube_no: int, state: VectorState, seq: int) -> VectorState | None:
    """`state` with what changed since; None when reading everything again is the better way."""
    changed = [no for no, _ in tables.changed(cube_no, state.seq)]
    if not changed:
        return VectorState(seq, state.rows, state.count, state.masked)
    if len(changed) > max(1_000, state.count // 2):
        return None
    rows = state.rows
    stale = np.isin(rows.nos[: state.count], np.array(changed, dtype=np.int64))
    masked = stale if state.masked is None else state.masked | stale
    nos, matrix = vector_table(list(tables.vectors(cube_no, after=state.seq)))
    if len(nos) and matrix.shape[1] != rows.dim:
        return None  # another model's vectors, or the first ones
    count = state.count + len(nos)
    if masked.sum() > _MASKED_SHARE_MAX * count + 64:
        return None
    if rows.used != state.count or count > len(rows.nos):
        # Somebody else has appended to this matrix already, or it is full: go on in a larger one.
        quantised = rows.quantised or count >= QUANTISED_MIN
        rows = _grown(rows, state.count, count, dim=rows.dim, quantised=quantised)
    if len(nos):
        rows.append(nos, matrix)
    if not masked.any():
        return VectorState(seq, rows, count, None)
    return VectorState(seq, rows, count, np.concatenate([masked, np.zeros(len(nos), dtype=np.bool_)]))
