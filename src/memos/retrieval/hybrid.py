"""Hybrid recall: ask every channel of every cube, lay the findings out, rank, cut, leave out repetitions.

    query ─▶ lexical, dense, links (gather) ─▶ stages (stages) ─▶ relativity cut ─▶ dedup
          ─▶ corrections before what they correct (corrected) ─▶ hits

Guarantees: one snapshot per cube and search; the same store, request and clock give the same hits (ties
go to the later `happened_at`, then the id); several cubes are ranked in one pool. What is missing or
fails on the way to the vectors (no embedder, a failing one, vectors of another model) costs the dense
channel and is said in `Recall.degraded`; a failing store raises. Thread-safe.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from memos import metrics, tracing
from memos.clock import Clock, SystemClock, utc
from memos.errors import EmbedderMismatch, ModelError
from memos.log import get_logger
from memos.memory.item import MemoryItem
from memos.memory.store import ItemFilter, MemoryStore, ReadView
from memos.models.base import Embedder, Vectors
from memos.retrieval.corrected import with_corrections_first
from memos.retrieval.dedup import dedup
from memos.retrieval.request import Hit, Recall, RecallRequest
from memos.retrieval.weights import RecallWeights

if TYPE_CHECKING:
    from memos.retrieval.gather import Found, Pool
    from memos.retrieval.query import Query
    from memos.retrieval.stages import Ranking

__all__ = ["Hit", "HybridRetriever", "Recall", "RecallRequest", "RecallWeights"]

WORDED_MIN = 120  # candidates whose texts are read, so that wording can rank them

NO_EMBEDDER = "no embedder: recalled by text and links"
EMBEDDER_FAILED = "the embedder failed: recalled by text and links"
OTHER_MODEL = "the stored vectors are of another embedder: recalled by text and links; run `memos reembed`"

logger = get_logger(__name__)


class HybridRetriever:
    """Searches a store. Holds no state of its own."""

    def __init__(
        self,
        store: MemoryStore,
        embedder: Embedder | None,
        *,
        clock: Clock | None = None,
        weights: RecallWeights | None = None,
    ) -> None:
        from memos.retrieval import gather, query, stages  # numpy loads here, not on import

        self._gather = gather
        self._query = query
        self._stages = stages
        self._store = store
        self._embedder = embedder
        self._clock = clock or SystemClock()
        self._weights = weights or RecallWeights()

    @property
    def weights(self) -> RecallWeights:
        """The weights that `search` uses."""
        return self._weights

    def search(self, request: RecallRequest) -> Recall:
        """The best memories for the request. Raises StoreError when the store cannot be read."""
        with tracing.span("recall", memos_cubes=len(request.cube_ids), memos_top__k=request.top_k) as span:
            recall = self._search_all(request)
            if tracing.is_on():
                span.set(memos_hits=len(recall.hits), memos_degraded=bool(recall.degraded))
                _record_stages(recall.timings_ms)
        return recall

    def _search_all(self, request: RecallRequest) -> Recall:
        watch = _StopWatch(self._clock)
        degraded: list[str] = []
        with ExitStack() as stack:
            views = [stack.enter_context(self._store.read(cube)) for cube in dict.fromkeys(request.cube_ids)]
            pool = self._collect(views, request, watch, degraded)
            hits = self._rank(views, pool, request) if pool.keys else []
            seqs = {view.cube_id: view.seq for view in views}
        watch.lap("rank")
        timings_ms = watch.timings_ms()
        for stage, spent_ms in timings_ms.items():
            metrics.RECALL_SECONDS.observe(spent_ms / 1_000.0, stage=stage)
        if degraded:
            metrics.RECALLS_DEGRADED.add()
        return Recall(tuple(hits), seqs, tuple(degraded), timings_ms)

    def pool(self, request: RecallRequest) -> Pool:
        """The candidates of a request with all signals, texts read for every one: what weights are fitted on."""
        with ExitStack() as stack:
            views = [stack.enter_context(self._store.read(cube)) for cube in dict.fromkeys(request.cube_ids)]
            pool = self._collect(views, request, _StopWatch(self._clock), [])
            items = _items(views, pool, range(len(pool.keys)))
        return pool.with_signals(self._gather.with_wording(pool.signals, items))

    def _collect(
        self,
        views: Sequence[ReadView],
        request: RecallRequest,
        watch: _StopWatch,
        degraded: list[str],
    ) -> Pool:
        now = request.reference_time or utc(self._clock.now()).astimezone()  # people mean their own days
        queries = [self._query.understand(request.query, view.participants(), now=now) for view in views]
        watch.lap("query")
        vectors = self._encode(queries, degraded) if request.by != "text" else {}
        watch.lap("encode")
        found = [
            self._search(view, query, request, vectors.get(query.dense_text), degraded)
            for view, query in zip(views, queries, strict=True)
        ]
        pool = self._gather.lay_out(found, request, now=utc(self._clock.now()))
        watch.lap("channels")
        return pool

    def _encode(self, queries: Sequence[Query], degraded: list[str]) -> Mapping[str, Vectors]:
        """Vectors by text; empty (and said so) when there are none to be had."""
        if self._embedder is None:
            degraded.append(NO_EMBEDDER)
            return {}
        texts = list(dict.fromkeys(query.dense_text for query in queries if query.dense_text))
        if not texts:
            return {}
        try:
            return dict(zip(texts, self._embedder.embed(texts), strict=True))
        except ModelError as error:
            logger.warning("recall.embedder_failed", error=type(error).__name__)
            degraded.append(EMBEDDER_FAILED)
            return {}

    def _search(
        self,
        view: ReadView,
        query: Query,
        request: RecallRequest,
        vector: Vectors | None,
        degraded: list[str],
    ) -> Found:
        try:
            return self._gather.search_channels(view, query, request, vector)
        except EmbedderMismatch:
            if OTHER_MODEL not in degraded:
                degraded.append(OTHER_MODEL)
            return self._gather.search_channels(view, query, request, None)

    def _rank(self, views: Sequence[ReadView], pool: Pool, request: RecallRequest) -> list[Hit]:
        """Rank without wording, read the best texts, rank again with it, and cut."""
        first = self._stages.rank(pool.signals, self._weights)
        places = self._gather.best_places(first, pool, count=max(WORDED_MIN, 2 * request.top_k))
        items = _items(views, pool, self._gather.with_predecessors(places, pool))
        ranking = self._stages.rank(self._gather.with_wording(pool.signals, items), self._weights)
        hits = [
            Hit(items[place], float(ranking.score[0, place]), float(pool.relativity[0, place]))
            for place in places
            if place in items and pool.relativity[0, place] >= request.relativity
        ]
        hits.sort(key=_order)
        kept = dedup(hits, how=request.dedup, top_k=request.top_k)
        place_of = {items[place].id: place for place in places if place in items}
        told = [replace(hit, parts=_parts(ranking, place_of[hit.item.id])) for hit in kept]
        return with_corrections_first(told, lambda ids: self._named(views, ids, request), top_k=request.top_k)

    def _named(
        self, views: Sequence[ReadView], ids: Collection[str], request: RecallRequest
    ) -> dict[str, MemoryItem]:
        """The live items of these ids that the request allows."""
        wanted = request.filter or ItemFilter()
        allowed = [one for one in ids if not wanted.ids or one in wanted.ids]
        found: dict[str, MemoryItem] = {}
        for view in views if allowed else ():
            one = replace(request, filter=replace(wanted, ids=tuple(allowed)))
            items = view.items(sorted(self._gather.allowed_numbers(view, one) or ()))
            found |= {item.id: item for item in items if item.id not in request.exclude_ids}
        return found


def _record_stages(timings_ms: Mapping[str, float]) -> None:
    """A span for each stage of the recall that ends now."""
    at = time.time() - timings_ms["total"] / 1_000
    for stage, spent_ms in timings_ms.items():
        if stage != "total":
            tracing.record(f"recall {stage}", start_s=at, end_s=at + spent_ms / 1_000)
            at += spent_ms / 1_000


def _items(views: Sequence[ReadView], pool: Pool, places: Sequence[int]) -> dict[int, MemoryItem]:
    """The items at these places of the pool."""
    items: dict[int, MemoryItem] = {}
    for cube, view in enumerate(views):
        of_cube = {pool.facets[place].id: place for place in places if pool.keys[place][0] == cube}
        for item in view.items([pool.keys[place][1] for place in of_cube.values()]):
            items[of_cube[item.id]] = item
    return items


def _parts(ranking: Ranking, place: int) -> dict[str, float]:
    """The share of each stage in one score; the addition turns -0.0 into 0.0."""
    return {stage: float(part[0, place]) + 0.0 for stage, part in ranking.parts.items()}


def _order(hit: Hit) -> tuple[float, float, str]:
    moment: datetime = hit.item.happened_at or hit.item.created_at
    return -hit.score, -moment.timestamp(), hit.item.id


class _StopWatch:
    """Milliseconds between laps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = self._last = clock.monotonic()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = self._clock.monotonic()
        self._laps[name] = 1_000.0 * (now - self._last)
        self._last = now

    def timings_ms(self) -> dict[str, float]:
        """By lap, and `total`."""
        return {**self._laps, "total": 1_000.0 * (self._last - self._start)}
