"""What recall reads again and again, kept in memory per cube: vectors and facets.

Guarantees: a view gets exactly what its own snapshot holds, however many threads and processes write.
A cache entry is brought up from the rows whose `seq` is newer, read in the view's transaction; vectors
of an older snapshot than the newest cached one come from the few states kept, or from the file.
Cubes used longest ago leave when the bytes of all of them are over the bound.

Vectors are append-only: a row of the matrix never changes once it is there. A replaced or removed
vector is masked out in the next state, so states of different `seq` share one matrix, and a search
needs no lock.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from memos.memory.sqlite.lookup import chunks, marks
from memos.memory.sqlite.rows import FACET_COLUMNS, facet_of
from memos.memory.store import Facet

STATES_KEPT = 3
FACETS_MAX = 20_000  # of one cube
FACET_BYTES = 1_024  # what one facet is taken to weigh
CUBE_BYTES = 1_024  # and a cube by itself, so that empty ones are bounded too
_MASKED_SHARE_MAX = 0.25  # of a matrix, before it is packed

_ALL_VECTORS = """
SELECT vector.item_no, vector.value FROM item JOIN vector ON vector.item_no = item.no
WHERE item.cube_no = ? AND item.live = 1 ORDER BY item.no
"""
_CHANGED = "SELECT no FROM item WHERE cube_no = ? AND seq > ?"
_CHANGED_VECTORS = """
SELECT vector.item_no, vector.value FROM item JOIN vector ON vector.item_no = item.no
WHERE item.cube_no = ? AND item.seq > ? AND item.live = 1 ORDER BY item.no
"""
# The plus signs keep the planner off the indexes by cube: the numbers are the short way.
_FACETS = f"SELECT {FACET_COLUMNS} FROM item WHERE +cube_no = ? AND +live = 1 AND no IN ({{marks}})"


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


@dataclass(slots=True)
class _CubeCache:
    lock: threading.Lock = field(default_factory=threading.Lock)
    states: list[VectorState] = field(default_factory=list)  # oldest first
    facets: dict[int, tuple[int, Facet]] = field(default_factory=dict)  # no -> (seq of the row, facet)
    facets_seq: int = -1

    accounted_bytes: int = 0

    @property
    def bytes(self) -> int:
        matrices = {id(state.rows): state.bytes for state in self.states}
        return CUBE_BYTES + sum(matrices.values()) + len(self.facets) * FACET_BYTES


class RecallCache:
    """Vectors and facets of the cubes used last. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._cubes: OrderedDict[int, _CubeCache] = OrderedDict()
        self._bytes = 0

    def _cube(self, cube_no: int) -> _CubeCache:
        with self._lock:
            cube = self._cubes.setdefault(cube_no, _CubeCache())
            self._cubes.move_to_end(cube_no)
            return cube

    def _account(self, cube_no: int, cube: _CubeCache) -> None:
        """Take the cube's present size into the sum; let cubes go while that is over the bound."""
        with self._lock:
            if self._cubes.get(cube_no) is not cube:
                return  # it was let go meanwhile; whoever holds it still may use it up
            size = cube.bytes
            self._bytes += size - cube.accounted_bytes
            cube.accounted_bytes = size
            while self._bytes > self._bytes_max and self._cubes:
                self._bytes -= self._cubes.popitem(last=False)[1].accounted_bytes

    @property
    def bytes(self) -> int:
        """What all cubes take now."""
        return self._bytes

    def vectors(self, connection: sqlite3.Connection, cube_no: int, seq: int) -> VectorState:
        """The vectors of the cube in the snapshot of `connection`, which stands at `seq`."""
        cube = self._cube(cube_no)
        with cube.lock:
            older = [state for state in cube.states if state.seq <= seq]
            if older and older[-1].seq == seq:
                return older[-1]
            newest = cube.states[-1] if cube.states else None
            state = _brought_up(connection, cube_no, older[-1], seq) if older else None
            if state is None:
                state = _loaded(connection, cube_no, seq)
            if newest is None or newest.seq < seq:
                cube.states = [*cube.states[1 - STATES_KEPT :], state]
        self._account(cube_no, cube)
        return state

    def facets(
        self, connection: sqlite3.Connection, cube_no: int, seq: int, nos: Iterable[int]
    ) -> dict[int, Facet]:
        """The facets of live items in the snapshot of `connection`, which stands at `seq`."""
        cube = self._cube(cube_no)
        found: dict[int, Facet] = {}
        missing: list[int] = []
        with cube.lock:
            if cube.facets_seq < seq:
                for row in connection.execute(_CHANGED, (cube_no, cube.facets_seq)):
                    cube.facets.pop(row[0], None)
                cube.facets_seq = seq
            cached = cube.facets
            for no in nos:
                entry = cached.get(no)
                # In an older snapshot a newer row is another one; it is read from the file instead.
                if entry is not None and entry[0] <= seq:
                    found[no] = entry[1]
                else:
                    missing.append(no)
        if not missing:
            return found
        loaded = [
            (row[1], facet_of(row))
            for part in chunks(missing)
            for row in connection.execute(_FACETS.format(marks=marks(len(part))), (cube_no, *part))
        ]
        found.update((facet.no, facet) for _, facet in loaded)
        with cube.lock:
            if cube.facets_seq == seq:
                if len(cube.facets) + len(loaded) > FACETS_MAX:
                    cube.facets.clear()
                cube.facets.update((facet.no, (row_seq, facet)) for row_seq, facet in loaded[:FACETS_MAX])
        self._account(cube_no, cube)
        return found


def _table(
    rows: list[tuple[int, bytes]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    nos = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
    dim = len(rows[0][1]) // 4 if rows else 0
    matrix = np.frombuffer(b"".join([row[1] for row in rows]), dtype="<f4").reshape(len(rows), dim)
    return nos, matrix


def _loaded(connection: sqlite3.Connection, cube_no: int, seq: int) -> VectorState:
    """The state read whole from the file, with some room to grow."""
    nos, matrix = _table(connection.execute(_ALL_VECTORS, (cube_no,)).fetchall())
    rows = _Rows(matrix.shape[1], len(nos) + len(nos) // 4 + 16)
    rows.append(nos, matrix)
    return VectorState(seq, rows, len(nos), None)


def _brought_up(
    connection: sqlite3.Connection, cube_no: int, state: VectorState, seq: int
) -> VectorState | None:
    """`state` with what changed since; None when reading everything again is the better way."""
    changed = [row[0] for row in connection.execute(_CHANGED, (cube_no, state.seq))]
    if not changed:
        return VectorState(seq, state.rows, state.count, state.masked)
    if len(changed) > max(1_000, state.count // 2):
        return None
    stale = np.isin(state.nos, np.array(changed, dtype=np.int64))
    masked = stale if state.masked is None else state.masked | stale
    nos, matrix = _table(connection.execute(_CHANGED_VECTORS, (cube_no, state.seq)).fetchall())
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
