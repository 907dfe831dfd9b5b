"""One cube in one snapshot: the channels of recall over SQLite."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memos.errors import EmbedderMismatch
from memos.memory.item import MemoryItem, WorkingSet
from memos.memory.sqlite.cache import RecallCache
from memos.memory.sqlite.cubes import CubeRow, find_cube
from memos.memory.sqlite.faults import translating
from memos.memory.sqlite.filters import select_live
from memos.memory.sqlite.index import LINK, PARTICIPANT, Binding, get_binding
from memos.memory.sqlite.lookup import chunks, marks
from memos.memory.sqlite.places import read_working
from memos.memory.sqlite.rows import ITEM_COLUMNS, fold, item_of
from memos.memory.store import Facet, ItemFilter
from memos.models.base import Vectors

DENSE_WIDTH_MAX = 2_000_000  # numbers over which scores are summed by place rather than by sorting
K1, B = 0.6, 0.2  # short turns: early saturation, hardly any correction for length

_BEARING = "SELECT count(*) FROM posting WHERE cube_no = ? AND term = ?"
_LINKED = f"SELECT item_no FROM mention WHERE cube_no = ? AND sort = {LINK} AND live = 1 AND name = ?"
_BEFORE = """
SELECT no FROM item
WHERE cube_no = ? AND session_id = ? AND live = 1 AND session_id <> '' AND (position, no) < (?, ?)
ORDER BY position DESC, no DESC LIMIT ?
"""
_AFTER = """
SELECT no FROM item
WHERE cube_no = ? AND session_id = ? AND live = 1 AND session_id <> '' AND (position, no) > (?, ?)
ORDER BY position, no LIMIT ?
"""
# The plus signs keep the planner off the indexes by cube: the numbers are the short way.
_ITEMS = f"SELECT item.no, {ITEM_COLUMNS} FROM item WHERE +cube_no = ? AND +live = 1 AND no IN ({{marks}})"
# A loose index scan: one step per name, however many items bear it.
_PARTICIPANTS = f"""
WITH RECURSIVE one (name) AS (
    SELECT min(name) FROM mention WHERE cube_no = :cube AND sort = {PARTICIPANT} AND live = 1
    UNION ALL
    SELECT (SELECT min(name) FROM mention
            WHERE cube_no = :cube AND sort = {PARTICIPANT} AND live = 1 AND name > one.name)
    FROM one WHERE one.name IS NOT NULL
)
SELECT name FROM one WHERE name IS NOT NULL
"""


class SqliteReadView:
    """Fulfils `memos.memory.store.ReadView`. Lives as long as the transaction of its connection."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        cube_id: str,
        *,
        cache: RecallCache,
        bound_as: Binding | None,
        path: Path,
    ) -> None:
        self._connection = connection
        self._cache = cache
        self._bound_as = bound_as
        self._path = path
        self._bearing: dict[str, int] = {}  # term -> items that hold it
        cube = find_cube(connection, cube_id)
        self._cube: CubeRow | None = cube
        self.cube_id = cube_id
        self.seq = 0 if cube is None else cube.seq
        self.size = 0 if cube is None else cube.live

    def search_text(
        self, terms: Mapping[str, float], *, limit: int, allowed: frozenset[int] | None = None
    ) -> dict[int, float]:
        """BM25 after Robertson & Zaragoza 2009, section 3.4; ties go to the newer item."""
        if self._cube is None or not self.size:
            return {}
        mean_length = max(1.0, self._cube.length / self.size)
        found: list[npt.NDArray[np.int64]] = []
        scored: list[npt.NDArray[np.float64]] = []
        with translating(self._path):
            for term, weight in terms.items():
                one = self._cache.postings(self._connection, self._cube.no, self.seq, term)
                self._bearing[term] = len(one.nos)
                if not len(one.nos) or weight <= 0:
                    continue
                saturation = K1 * (1 - B + B * one.lengths.astype(np.float64) / mean_length)
                found.append(one.nos)
                scored.append(
                    weight * _rarity(self.size, len(one.nos)) * one.counts / (one.counts + saturation)
                )
        return _best_of(found, scored, limit=limit, allowed=allowed)

    def rarity(self, terms: Iterable[str]) -> dict[str, float]:
        """The IDF of each term; as a score reaches at most weight times IDF, it bounds a query's score."""
        wanted = list(dict.fromkeys(terms))
        if self._cube is not None:
            with translating(self._path):
                for term in wanted:
                    if term not in self._bearing:
                        row = self._connection.execute(_BEARING, (self._cube.no, term)).fetchone()
                        self._bearing[term] = row[0]
        return {term: _rarity(self.size, self._bearing.get(term, 0)) for term in wanted}

    def search_vector(
        self, vector: Vectors, *, limit: int, allowed: frozenset[int] | None = None
    ) -> dict[int, float]:
        """Every vector of the cube is compared; items without one are not found here."""
        if self._cube is None or not self.size or limit < 1:
            return {}
        with translating(self._path):
            self._refuse_other_model()
            state = self._cache.vectors(self._connection, self._cube.no, self.seq)
        if not state.count:
            return {}
        wanted = np.asarray(vector, dtype=np.float32)
        if wanted.shape != (state.matrix.shape[1],):
            raise EmbedderMismatch(
                f"the query's vector has shape {wanted.shape}, the stored ones ({state.matrix.shape[1]},); "
                "run `memos reembed`"
            )
        nos, cosines = state.nos, state.matrix @ wanted
        if state.masked is not None:
            nos, cosines = nos[~state.masked], cosines[~state.masked]
        return _best(nos, cosines.astype(np.float64), limit=limit, allowed=allowed)

    def search_links(
        self, links: Sequence[str], *, limit: int, allowed: frozenset[int] | None = None
    ) -> dict[int, float]:
        """The sum of the IDF of each named entity that an item is linked to."""
        if self._cube is None or not self.size:
            return {}
        found: list[npt.NDArray[np.int64]] = []
        scored: list[npt.NDArray[np.float64]] = []
        with translating(self._path):
            for name in dict.fromkeys(fold(link) for link in links):
                rows = self._connection.execute(_LINKED, (self._cube.no, name)).fetchall()
                if rows:
                    found.append(np.array(rows, dtype=np.int64)[:, 0])
                    scored.append(np.full(len(rows), _rarity(self.size, len(rows))))
        return _best_of(found, scored, limit=limit, allowed=allowed)

    def neighbours(self, nos: Iterable[int], *, distance: int = 1) -> dict[int, tuple[int, ...]]:
        """Places are counted among live items, by `position`; an item without a session has none."""
        around: dict[int, tuple[int, ...]] = {}
        if self._cube is None:
            return around
        facets = self.facets(nos)
        with translating(self._path):
            for no, facet in facets.items():
                if not facet.session_id or distance < 1:
                    around[no] = ()
                    continue
                where = (self._cube.no, facet.session_id, facet.position, no, distance)
                before = [row[0] for row in self._connection.execute(_BEFORE, where)]
                after = [row[0] for row in self._connection.execute(_AFTER, where)]
                near: list[int] = []
                for step in range(max(len(before), len(after))):
                    near += before[step : step + 1]
                    near += after[step : step + 1]
                around[no] = tuple(near)
        return around

    def select(self, wanted: ItemFilter) -> frozenset[int]:
        """The numbers of all live items that pass the filter."""
        if self._cube is None:
            return frozenset()
        with translating(self._path):
            return select_live(self._connection, wanted, cube_no=self._cube.no, cube_id=self.cube_id)

    def facets(self, nos: Iterable[int]) -> dict[int, Facet]:
        """Mostly from memory."""
        if self._cube is None:
            return {}
        with translating(self._path):
            return self._cache.facets(self._connection, self._cube.no, self.seq, nos)

    def items(self, nos: Sequence[int]) -> list[MemoryItem]:
        """The whole items, in the order asked for; unknown numbers are left out."""
        if self._cube is None:
            return []
        found: dict[int, MemoryItem] = {}
        with translating(self._path):
            for part in chunks(nos):
                query = _ITEMS.format(marks=marks(len(part)))
                for row in self._connection.execute(query, (self._cube.no, *part)):
                    found[row[0]] = item_of(row[1:], self.cube_id)
        return [found[no] for no in nos if no in found]

    def participants(self) -> frozenset[str]:
        """Everyone who takes part in the cube's live items, as written."""
        if self._cube is None:
            return frozenset()
        with translating(self._path):
            rows = self._connection.execute(_PARTICIPANTS, {"cube": self._cube.no})
            return frozenset(row[0] for row in rows)

    def working(self) -> WorkingSet:
        """The working set of the cube."""
        with translating(self._path):
            return read_working(self._connection, self.cube_id, self._cube)

    def _refuse_other_model(self) -> None:
        binding = get_binding(self._connection)
        if binding is not None:
            binding.check(self._bound_as)


def _rarity(items: int, bearing: int) -> float:
    """IDF that is never negative: ln(1 + (N - df + 0.5) / (df + 0.5))."""
    return math.log(1 + (items - bearing + 0.5) / (bearing + 0.5))


def _best_of(
    found: list[npt.NDArray[np.int64]],
    scored: list[npt.NDArray[np.float64]],
    *,
    limit: int,
    allowed: frozenset[int] | None,
) -> dict[int, float]:
    """The best sums over several lists of (number, score). A number is in a list at most once."""
    if not found:
        return {}
    if len(found) == 1:
        return _best(found[0], scored[0], limit=limit, allowed=allowed)
    first = min(int(nos.min()) for nos in found)
    width = max(int(nos.max()) for nos in found) - first + 1
    if width > DENSE_WIDTH_MAX:
        distinct, places = np.unique(np.concatenate(found), return_inverse=True)
        sums = np.bincount(places, weights=np.concatenate(scored)).astype(np.float64)
        return _best(distinct, sums, limit=limit, allowed=allowed)
    dense = np.zeros(width)
    for nos, scores in zip(found, scored, strict=True):
        dense[nos - first] += scores
    hit = np.flatnonzero(dense)
    return _best(hit + first, dense[hit], limit=limit, allowed=allowed)


def _best(
    nos: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    *,
    limit: int,
    allowed: frozenset[int] | None,
) -> dict[int, float]:
    """The `limit` best, best first; equal scores newest first, so that every backend agrees."""
    if allowed is not None:
        kept = np.isin(nos, np.fromiter(allowed, dtype=np.int64, count=len(allowed)))
        nos, scores = nos[kept], scores[kept]
    if limit < 1 or not len(nos):
        return {}
    if len(nos) > limit:
        least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        kept = scores >= least
        nos, scores = nos[kept], scores[kept]
    order = np.lexsort((-nos, -scores))[:limit]
    return dict(zip(nos[order].tolist(), scores[order].tolist(), strict=True))
