"""What recall reads again and again, kept in memory per cube: vectors, facets and long posting lists.

Guarantees: a view gets exactly what its own snapshot holds, however many threads and processes write.
A cache is brought up from the rows whose `seq` is newer, read in the view's transaction; a view of an
older snapshot than the cache reads from the store what has changed since. Cubes used longest ago leave
when the bytes of all of them are over the bound.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from memos.memory.relational.posting_lists import PostingList, load_postings
from memos.memory.relational.tables import RecallTables
from memos.memory.relational.vector_states import VectorState, bring_up_vectors, load_vectors
from memos.memory.store import Facet

STATES_KEPT = 3
FACETS_MAX = 20_000  # of one cube
FACET_BYTES = 1_024  # what one facet is taken to weigh
CUBE_BYTES = 1_024  # and a cube by itself, so that empty ones are bounded too
LONG_POSTINGS_MIN = 128  # items that bear a term, from which on its list is kept
LISTS_MAX = 5_000  # of one cube
CHANGES_MAX = 2_000  # remembered to bring up lists with; more, and they are read again


@dataclass(slots=True)
class _CubeCache:
    lock: threading.Lock = field(default_factory=threading.Lock)
    states: list[VectorState] = field(default_factory=list)  # oldest first
    seq: int = -1  # where facets and posting lists stand
    facets: dict[int, tuple[int, Facet]] = field(default_factory=dict)  # no -> (seq of the row, facet)
    lists: OrderedDict[str, PostingList] = field(default_factory=OrderedDict)  # by term, last used last
    changes: list[tuple[int, int]] = field(default_factory=list)  # (seq, no), of items, in order
    list_bytes: int = 0
    accounted_bytes: int = 0

    @property
    def bytes(self) -> int:
        matrices = {id(state.rows): state.bytes for state in self.states}
        return CUBE_BYTES + sum(matrices.values()) + len(self.facets) * FACET_BYTES + self.list_bytes

    def bring_up(self, tables: RecallTables, cube_no: int, seq: int) -> None:
        """Let facets and lists go on to `seq`; never back. Under the lock."""
        if self.seq < 0:
            self.seq = seq  # nothing is cached yet
        if self.seq >= seq:
            return
        for no, row_seq in tables.changed(cube_no, self.seq):
            self.facets.pop(no, None)
            self.changes.append((row_seq, no))
        self.seq = seq
        if len(self.changes) > CHANGES_MAX:
            self.changes.clear()
            self.lists.clear()
            self.list_bytes = 0

    def changed_since(self, seq: int) -> list[int]:
        """The items that changed after `seq`. Under the lock."""
        changed = []
        for row_seq, no in reversed(self.changes):
            if row_seq <= seq:
                break
            changed.append(no)
        return changed

    def keep_list(self, term: str, found: PostingList) -> None:
        """Put a list in place of the one before; the one used longest ago goes. Under the lock."""
        before = self.lists.pop(term, None)
        self.list_bytes += found.bytes - (0 if before is None else before.bytes)
        self.lists[term] = found
        while len(self.lists) > LISTS_MAX:
            self.list_bytes -= self.lists.popitem(last=False)[1].bytes


class RecallCache:
    """The caches of the cubes used last. Thread-safe."""

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

    def vectors(self, tables: RecallTables, cube_no: int, seq: int) -> VectorState:
        """The vectors of the cube in the snapshot of `tables`, which stands at `seq`."""
        cube = self._cube(cube_no)
        with cube.lock:
            older = [state for state in cube.states if state.seq <= seq]
            if older and older[-1].seq == seq:
                return older[-1]
            newest = cube.states[-1] if cube.states else None
            state = bring_up_vectors(tables, cube_no, older[-1], seq) if older else None
            if state is None:
                state = load_vectors(tables, cube_no, seq)
            if newest is None or newest.seq < seq:
                cube.states = [*cube.states[1 - STATES_KEPT :], state]
        self._account(cube_no, cube)
        return state

    def facets(self, tables: RecallTables, cube_no: int, seq: int, nos: Iterable[int]) -> dict[int, Facet]:
        """The facets of live items in the snapshot of `tables`, which stands at `seq`."""
        cube = self._cube(cube_no)
        found: dict[int, Facet] = {}
        missing: list[int] = []
        with cube.lock:
            cube.bring_up(tables, cube_no, seq)
            cached = cube.facets
            for no in nos:
                entry = cached.get(no)
                # In an older snapshot a newer row is another one; it is read from the store instead.
                if entry is not None and entry[0] <= seq:
                    found[no] = entry[1]
                else:
                    missing.append(no)
        if not missing:
            return found
        loaded = tables.facets(cube_no, missing)
        found.update((facet.no, facet) for _, facet in loaded)
        with cube.lock:
            if cube.seq == seq:
                if len(cube.facets) + len(loaded) > FACETS_MAX:
                    cube.facets.clear()
                cube.facets.update((facet.no, (row_seq, facet)) for row_seq, facet in loaded[:FACETS_MAX])
        self._account(cube_no, cube)
        return found

    def postings(
        self, tables: RecallTables, cube_no: int, seq: int, terms: Sequence[str]
    ) -> dict[str, PostingList]:
        """Who bears each term in the snapshot of `tables`, which stands at `seq`."""
        cube = self._cube(cube_no)
        with cube.lock:
            cube.bring_up(tables, cube_no, seq)
            if cube.seq != seq:
                return dict(load_postings(tables, cube_no, terms, seq))
            found: dict[str, PostingList] = {}
            unknown: list[str] = []
            for term in terms:
                kept = cube.lists.get(term)
                if kept is None:
                    unknown.append(term)
                elif changed := cube.changed_since(kept.seq):
                    found[term] = kept.brought_up(tables, cube_no, term, seq, changed)
                    cube.keep_list(term, found[term])
                else:
                    cube.lists.move_to_end(term)
                    found[term] = kept
            if unknown:
                for term, loaded in load_postings(tables, cube_no, unknown, seq).items():
                    found[term] = loaded
                    if len(loaded.nos) >= LONG_POSTINGS_MIN:
                        cube.keep_list(term, loaded)
        self._account(cube_no, cube)
        return found
