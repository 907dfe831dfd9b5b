"""Hybrid recall: ask every channel of every cube, lay the findings out, rank, look again, cut.

    query ─▶ channels (gather) ─▶ stages (stages) ─▶ second look (second) ─▶ stages
          ─▶ lending ─▶ relativity ─▶ repeats, mmr (dedup) ─▶ corrections (corrected) ─▶ budget ─▶ hits

`stage_table.py` names the stages; each can be switched, by the settings and by a request.

Guarantees: one snapshot per cube and search; the same store, request and clock give the same hits (ties
go to the later `happened_at`, then the id); several cubes are ranked in one pool. What is missing or
fails on the way to the vectors (no embedder, a failing one, vectors of another model) costs the dense
channel and is said in `Recall.degraded`; a failing store raises. Thread-safe.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
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
from memos.retrieval.lending import with_lent
from memos.retrieval.request import Dedup, Hit, Recall, RecallRequest, Way
from memos.retrieval.stage_table import EVERY, switched
from memos.retrieval.timeline import Timeline, read_timeline
from memos.retrieval.weights import STAGES, RecallWeights

if TYPE_CHECKING:
    from memos.retrieval.gather import Found, Pool
    from memos.retrieval.query import Query
    from memos.retrieval.second import Look
    from memos.retrieval.stages import Ranking

__all__ = ["Hit", "HybridRetriever", "Recall", "RecallRequest", "RecallWeights"]

SCORE_DIGITS = 4  # as in `gather`: what differs less is a tie
WORDED_MIN = 120  # candidates whose texts are read, so that wording can rank them

NO_EMBEDDER = "no embedder: recalled by text and links"
EMBEDDER_FAILED = "the embedder failed: recalled by text and links"
OTHER_MODEL = "the stored vectors are of another embedder: recalled by text and links; run `memos reembed`"

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """All candidates of a request after both looks, ranked, and the texts of the best by place."""

    pool: Pool
    ranking: Ranking
    items: Mapping[int, MemoryItem]
    look: Look
    ids: Mapping[tuple[int, int], str]  # of all candidates, by key

    def ways(self, place: int) -> tuple[Way, ...]:
        """How the candidate was found: the channels that found it, or what led to it."""
        signals, key = self.pool.signals, self.pool.keys[place]
        named = {"lexical": signals.lexical + signals.names, "dense": signals.dense, "links": signals.links}
        found = [Way(stage) for stage, scores in named.items() if scores[0, place] > 0.0]
        ids = self.ids
        step = self.look.steps.get(key)
        if step is not None and step.origin in ids:
            found.append(Way("walk", ids[step.origin], step.name))
        best = self.look.best
        if not found and best is not None and self.look.again.get(key, 0.0) > 0.0:
            found.append(Way("again", ids[best]))
        if not found:
            total = named["lexical"][0] + named["dense"][0] + named["links"][0]
            near = [at for at in signals.steps[:, place].tolist() if at >= 0 and total[at] > 0.0]
            found += [Way("neighbours", self.pool.facets[at].id) for at in near[:1]]
        return tuple(found)


class HybridRetriever:
    """Searches a store. Holds no state of its own."""

    def __init__(
        self,
        store: MemoryStore,
        embedder: Embedder | None,
        *,
        clock: Clock | None = None,
        weights: RecallWeights | None = None,
        stages: Collection[str] = (),
    ) -> None:
        """`stages`: those that run where a request does not say (`stage_table.switched`)."""
        from memos.retrieval import gather, query, second  # numpy loads here, not on import
        from memos.retrieval import stages as ranking

        self._gather = gather
        self._query = query
        self._second = second
        self._stages = ranking
        self._on = switched(stages, base=EVERY)
        self._store = store
        self._embedder = embedder
        self._clock = clock or SystemClock()
        self._weights = weights or RecallWeights()

    @property
    def weights(self) -> RecallWeights:
        """The weights that `search` uses."""
        return self._weights

    def stages_of(self, request: RecallRequest) -> frozenset[str]:
        """The stages that run for the request."""
        return switched(request.stages, base=self._on)

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
            past = read_timeline(self._store, request) if pool.keys else None
            hits = self._cut(views, self._rank(views, pool, request), request, past) if pool.keys else []
            seqs = {view.cube_id: view.seq for view in views}
        watch.lap("rank")
        timings_ms = watch.timings_ms()
        for stage, spent_ms in timings_ms.items():
            metrics.RECALL_SECONDS.observe(spent_ms / 1_000.0, stage=stage)
        if degraded:
            metrics.RECALLS_DEGRADED.add()
        return Recall(tuple(hits), seqs, tuple(degraded), timings_ms)

    def pool(self, request: RecallRequest) -> Pool:
        """The candidates of the first look with all signals, texts read for every one: what weights are
        fitted on."""
        with ExitStack() as stack:
            views = [stack.enter_context(self._store.read(cube)) for cube in dict.fromkeys(request.cube_ids)]
            pool = self._collect(views, request, _StopWatch(self._clock), [])
            items = _items(views, pool, range(len(pool.keys)))
        return pool.with_signals(self._gather.with_wording(pool.signals, items))

    def ranked(self, request: RecallRequest) -> Ranked:
        """All candidates of a request as `search` ranks them, before the cuts."""
        with ExitStack() as stack:
            views = [stack.enter_context(self._store.read(cube)) for cube in dict.fromkeys(request.cube_ids)]
            return self._rank(views, self._collect(views, request, _StopWatch(self._clock), []), request)

    def _weights_of(self, request: RecallRequest) -> RecallWeights:
        on = self.stages_of(request)
        return self._weights.without(*(stage for stage in STAGES if stage not in on))

    def _collect(
        self,
        views: Sequence[ReadView],
        request: RecallRequest,
        watch: _StopWatch,
        degraded: list[str],
    ) -> Pool:
        weights = self._weights_of(request)
        now = request.reference_time or utc(self._clock.now()).astimezone()  # people mean their own days
        queries = [self._query.understand(request.query, view.participants(), now=now) for view in views]
        watch.lap("query")
        vectors = self._encode(queries, degraded) if weights.dense > 0.0 else {}
        watch.lap("encode")
        found = [
            self._search(view, query, request, vectors.get(query.dense_text), weights, degraded)
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
        weights: RecallWeights,
        degraded: list[str],
    ) -> Found:
        try:
            return self._gather.search_channels(view, query, request, vector, weights)
        except EmbedderMismatch:
            if OTHER_MODEL not in degraded:
                degraded.append(OTHER_MODEL)
            return self._gather.search_channels(view, query, request, None, weights)

    def _rank(self, views: Sequence[ReadView], pool: Pool, request: RecallRequest) -> Ranked:
        """Rank without wording, read the best texts, rank again with it; then look again and rank anew."""
        weights = self._weights_of(request)
        read = _Read()
        ranking, items = self._worded(views, pool, request, weights, read)
        look = self._look(views, pool, ranking, request, weights)
        if look.again or look.walk:
            pool = self._joined(views, pool, look, request, weights)
            ranking, items = self._worded(views, pool, request, weights, read)
        ids = {key: facet.id for key, facet in zip(pool.keys, pool.facets, strict=True)}
        return Ranked(pool, ranking, items, look, ids)

    def _worded(
        self,
        views: Sequence[ReadView],
        pool: Pool,
        request: RecallRequest,
        weights: RecallWeights,
        read: _Read,
    ) -> tuple[Ranking, Mapping[int, MemoryItem]]:
        """The ranking with wording, and the texts by place; what was read once is kept in `read`."""
        first = self._stages.rank(pool.signals, weights)
        timed = request.valid_at is not None or request.known_at is not None
        least = max(WORDED_MIN, 2 * request.top_k)
        places = self._gather.best_places(first, pool, count=len(pool.keys) if timed else least)
        wanted = self._gather.with_predecessors(places, pool)
        missing = [place for place in wanted if pool.keys[place] not in read.items]
        read.items.update((pool.keys[place], item) for place, item in _items(views, pool, missing).items())
        items = {place: read.items[pool.keys[place]] for place in wanted if pool.keys[place] in read.items}
        ranking = self._stages.rank(self._gather.with_wording(pool.signals, items, read.wording), weights)
        return ranking, {place: items[place] for place in places if place in items}

    def _look(
        self,
        views: Sequence[ReadView],
        pool: Pool,
        ranking: Ranking,
        request: RecallRequest,
        weights: RecallWeights,
    ) -> Look:
        """What the first hits lead to."""
        second = self._second
        if not pool.keys or (weights.again <= 0.0 and weights.walk <= 0.0):
            nothing: Look = second.Look()
            return nothing
        places = self._gather.best_places(ranking, pool, count=second.SEEDS)
        allowed = [found.allowed for found in pool.found]
        again: Mapping[tuple[int, int], float] = {}
        best = pool.keys[places[0]]
        if weights.again > 0.0 and self._embedder is not None:
            with suppress(EmbedderMismatch):  # said by the first look
                again = second.again(views, best, limit=self._gather.depth(request), allowed=allowed)
        if weights.walk <= 0.0:
            near: Look = second.Look(again, best=best)
            return near
        seeds = {
            pool.keys[place]: (pool.facets[place], max(0.0, float(ranking.score[0, place])))
            for place in places
        }
        hubs = frozenset(name for found in pool.found for name in found.query.everybody)
        walked, steps = second.walk(views, seeds, hubs=hubs, allowed=allowed)
        look: Look = second.Look(again, walked, steps, best)
        return look

    def _joined(
        self,
        views: Sequence[ReadView],
        pool: Pool,
        look: Look,
        request: RecallRequest,
        weights: RecallWeights,
    ) -> Pool:
        """The candidates with the signals of the second look and those that it brings."""
        found = []
        for cube, (view, one) in enumerate(zip(views, pool.found, strict=True)):
            again, walked = look.of_cube(cube)
            found.append(
                self._gather.with_second_look(
                    view, one, request, weights, again=again, walk=walked, joining=look.joining(cube)
                )
            )
        if sum(len(one.facets) for one in found) == len(pool.keys):
            return self._gather.with_second_signals(pool, found)
        return self._gather.lay_out(found, request, now=utc(self._clock.now()))

    def _cut(
        self, views: Sequence[ReadView], ranked: Ranked, request: RecallRequest, past: Timeline | None
    ) -> list[Hit]:
        """The hits that the cuts leave, best first."""
        on = self.stages_of(request)
        score, relativity = ranked.ranking.score[0], ranked.pool.relativity[0]
        hits = [
            Hit(item, float(score[place]), float(relativity[place])) for place, item in ranked.items.items()
        ]
        hits.sort(key=_order)
        place_of = {item.id: place for place, item in ranked.items.items()}
        if past is not None:
            hits = past.hits(hits)
        if "lending" in on:
            hits = with_lent(hits)
        if "relativity" in on:
            hits = [hit for hit in hits if hit.relativity >= request.relativity]
        told = []
        for hit in dedup(hits, how=_repetition(request, on), top_k=request.top_k):
            place = place_of.get(hit.ways[-1].from_id if hit.ways else hit.item.id)
            if place is not None:
                ways = (*ranked.ways(place), *hit.ways)
                hit = replace(hit, parts=parts_of(ranked.ranking, place), ways=ways)
            told.append(hit)
        if "corrections" not in on:
            return told

        def fetch(ids: Collection[str]) -> dict[str, MemoryItem]:
            named = self._named(views, ids, request)
            return {one: item for one, item in named.items() if past is None or past.holds(item)}

        return with_corrections_first(told, fetch, top_k=request.top_k)

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


@dataclass(frozen=True, slots=True)
class _Read:
    """What one request has read: texts by key, and their wording by id."""

    items: dict[tuple[int, int], MemoryItem] = field(default_factory=dict)
    wording: dict[str, tuple[float, float, float]] = field(default_factory=dict)


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


def _repetition(request: RecallRequest, on: frozenset[str]) -> Dedup:
    """What is left of the request's `dedup` when some of its stages are off."""
    if request.dedup == "no" or "repeats" not in on:
        return "no"
    return "sim" if "mmr" not in on else request.dedup


def parts_of(ranking: Ranking, place: int) -> dict[str, float]:
    """The share of each stage in one score; the addition turns -0.0 into 0.0."""
    return {stage: float(part[0, place]) + 0.0 for stage, part in ranking.parts.items()}


def _order(hit: Hit) -> tuple[float, float, str]:
    moment: datetime = hit.item.happened_at or hit.item.created_at
    return -round(hit.score, SCORE_DIGITS), -moment.timestamp(), hit.item.id


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
