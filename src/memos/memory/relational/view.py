"""One cube in one snapshot: the channels of recall over the port of tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from memos.errors import EmbedderMismatch
from memos.memory.item import MemoryItem, WorkingSet
from memos.memory.relational.cache import RecallCache
from memos.memory.relational.cubes import CubeRow
from memos.memory.relational.entries import Binding, get_binding
from memos.memory.relational.rows import fold
from memos.memory.relational.tables import Spot, Tables
from memos.memory.relational.vector_states import vector_table
from memos.memory.store import Facet, ItemFilter
from memos.models.base import Vectors

DENSE_WIDTH_MAX = 2_000_000  # numbers over which scores are summed by place rather than by sorting
NEAR_FACTOR = 8  # vectors compared again at most, for each hit that is wanted
K1, B = 0.6, 0.2  # short turns: early saturation, hardly any correction for length


class RelationalReadView:
    """Fulfils `memos.memory.store.ReadView`. Lives as long as the transaction of its tables."""

    def __init__(
        self,
        tables: Tables,
        cube_id: str,
        *,
        cache: RecallCache,
        bound_as: Binding | None,
        translating: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._tables = tables
        self._cache = cache
        self._bound_as = bound_as
        self._translating = translating
        self._bearing: dict[str, int] = {}  # term -> items that hold it
        self._vectors: dict[int, bytes] = {}  # read once: a second search comes by many of the same
        cube = tables.cubes.find(cube_id)
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
        with self._translating():
            lists = self._cache.postings(self._tables.recall, self._cube.no, self.seq, list(terms))
            for term, weight in terms.items():
                one = lists[term]
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
            with self._translating():
                if unknown := [term for term in wanted if term not in self._bearing]:
                    self._bearing.update(self._tables.recall.bearing(self._cube.no, unknown))
        return {term: _rarity(self.size, self._bearing.get(term, 0)) for term in wanted}

    def search_vector(
        self, vector: Vectors, *, limit: int, allowed: frozenset[int] | None = None
    ) -> dict[int, float]:
        """Every vector of the cube is compared, unless the database has an index for so large a cube: then
        its candidates are scored exactly. Items without a vector are not found here."""
        if self._cube is None or not self.size or limit < 1:
            return {}
        wanted = np.asarray(vector, dtype=np.float32)
        with self._translating():
            self._refuse_other_model()
            found = self._tables.recall.nearest(
                self._cube.no,
                wanted.astype("<f4").tobytes(),
                live=self.size,
                limit=limit,
                allowed=allowed,
            )
            if found is not None:
                nos, matrix = vector_table(found)
                return _best(nos, (matrix @ wanted).astype(np.float64), limit=limit, allowed=allowed)
            state = self._cache.vectors(self._tables.recall, self._cube.no, self.seq)
        if not state.count:
            return {}
        if wanted.shape != (state.dim,):
            raise EmbedderMismatch(
                f"the query's vector has shape {wanted.shape}, the stored ones ({state.dim},); "
                "run `memos reembed`"
            )
        nos, cosines = state.cosines(wanted)
        if not state.margin:
            return _best(nos, cosines.astype(np.float64), limit=limit, allowed=allowed)
        near = _near(nos, cosines, limit=limit, margin=state.margin, allowed=allowed)
        if not near:
            return {}
        with self._translating():
            nos, matrix = vector_table(self._compared(near))
        return _best(nos, (matrix @ wanted).astype(np.float64), limit=limit, allowed=None)

    def vectors(self, nos: Sequence[int]) -> dict[int, Vectors]:
        """Read from the tables: a few are asked for at a time."""
        if self._cube is None:
            return {}
        with self._translating():
            self._refuse_other_model()
            found = {no: self._vectors[no] for no in nos if no in self._vectors}
            if unknown := [no for no in nos if no not in found]:
                found.update(self._tables.recall.vectors_of(self._cube.no, unknown))
        return {no: np.frombuffer(value, dtype="<f4") for no, value in found.items()}

    def _compared(self, live: Sequence[int]) -> list[tuple[int, bytes]]:
        """The vectors of these live items as the tables have them, by number."""
        known = self._vectors
        missing = [no for no in live if no not in known]
        if missing and self._cube is not None:
            known.update(self._tables.recall.vectors_of_live(self._cube.no, missing))
        return [(no, known[no]) for no in sorted(live) if no in known]

    def search_links(
        self, links: Sequence[str], *, limit: int, allowed: frozenset[int] | None = None
    ) -> dict[int, float]:
        """The sum of the IDF of each named entity that an item is linked to."""
        if self._cube is None or not self.size:
            return {}
        found: list[npt.NDArray[np.int64]] = []
        scored: list[npt.NDArray[np.float64]] = []
        with self._translating():
            names = list(dict.fromkeys(fold(link) for link in links))
            for nos in self._tables.recall.linked(self._cube.no, names).values():
                found.append(np.array(nos, dtype=np.int64))
                scored.append(np.full(len(nos), _rarity(self.size, len(nos))))
        return _best_of(found, scored, limit=limit, allowed=allowed)

    def neighbours(self, nos: Iterable[int], *, distance: int = 1) -> dict[int, tuple[int, ...]]:
        """Places are counted among live items, by `position`; an item without a session has none."""
        around: dict[int, tuple[int, ...]] = {}
        if self._cube is None:
            return around
        spots = []
        for no, facet in self.facets(nos).items():
            around[no] = ()
            if facet.session_id and distance >= 1:
                spots.append(Spot(no, facet.session_id, facet.position))
        with self._translating():
            beside = self._tables.recall.beside(self._cube.no, spots, distance)
        for no, (before, after) in beside.items():
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
        with self._translating():
            return self._tables.items.select_live(wanted, cube_no=self._cube.no, cube_id=self.cube_id)

    def facets(self, nos: Iterable[int]) -> dict[int, Facet]:
        """Mostly from memory."""
        if self._cube is None:
            return {}
        with self._translating():
            return self._cache.facets(self._tables.recall, self._cube.no, self.seq, nos)

    def items(self, nos: Sequence[int]) -> list[MemoryItem]:
        """The whole items, in the order asked for; unknown numbers are left out."""
        if self._cube is None:
            return []
        with self._translating():
            found = self._tables.recall.items(self._cube.no, self.cube_id, nos)
        return [found[no] for no in nos if no in found]

    def texts(self, nos: Sequence[int]) -> dict[int, str]:
        """Read from the tables."""
        if self._cube is None or not nos:
            return {}
        with self._translating():
            return self._tables.recall.texts(self._cube.no, nos)

    def participants(self) -> frozenset[str]:
        """Everyone who takes part in the cube's live items, as written."""
        if self._cube is None:
            return frozenset()
        with self._translating():
            return self._tables.recall.participants(self._cube.no)

    def working(self) -> WorkingSet:
        """The working set of the cube."""
        with self._translating():
            return self._tables.working.read(self.cube_id, self._cube)

    def _refuse_other_model(self) -> None:
        binding = get_binding(self._tables.meta)
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


def _near(
    nos: npt.NDArray[np.int64],
    cosines: npt.NDArray[np.float32],
    *,
    limit: int,
    margin: float,
    allowed: frozenset[int] | None,
) -> list[int]:
    """Whatever may be among the `limit` best, when cosines that seem `margin` less may in truth be more."""
    if allowed is not None:
        kept = np.isin(nos, np.fromiter(allowed, dtype=np.int64, count=len(allowed)))
        nos, cosines = nos[kept], cosines[kept]
    if len(nos) > limit:
        least = np.partition(cosines, len(cosines) - limit)[len(cosines) - limit]
        kept = cosines >= least - margin
        nos, cosines = nos[kept], cosines[kept]
    if len(nos) > NEAR_FACTOR * limit:  # the same text many times: the newest of them stand for all
        return list(_best(nos, cosines.astype(np.float64), limit=NEAR_FACTOR * limit, allowed=None))
    found: list[int] = nos.tolist()
    return found


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
