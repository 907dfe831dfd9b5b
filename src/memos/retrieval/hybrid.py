"""Hybrid recall: ask every channel of every cube, lay the findings out, rank, look again, cut.

    query ─▶ channels (gather, layout) ─▶ stages (stages) ─▶ second look (second) ─▶ stages
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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memos import metrics, tracing
from memos.clock import Clock, SystemClock, utc
from memos.errors import EmbedderMismatch, ModelError
from memos.log import get_logger
from memos.memory.item import MemoryItem
from memos.memory.store import ItemFilter, MemoryStore, ReadView
from memos.models.base import Embedder, Vectors
from memos.retrieval.corrected import with_corrections_first
from memos.retrieval.dedup import Candidate, chosen, dedup
from memos.retrieval.lending import lent
from memos.retrieval.request import Dedup, Hit, Recall, RecallRequest, Way
from memos.retrieval.stage_table import EVERY, switched
from memos.retrieval.timeline import Timeline, read_timeline
from memos.retrieval.weights import STAGES, RecallWeights

if TYPE_CHECKING:
    from memos.retrieval.gather import Found
    from memos.retrieval.layout import Pool
    from memos.retrieval.query import Query
    from memos.retrieval.second import Look
    from memos.retrieval.stages import Ranking

__all__ = ["Hit", "HybridRetriever", "Recall", "RecallRequest", "RecallWeights"]

SCORE_DIGITS = 4  # as in `layout`: what differs less is a tie
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
    texts: Mapping[int, str]
    look: Look

    def ways(self, place: int) -> tuple[Way, ...]:
        """How the candidate was found: the channels that found it, or what led to it."""
        signals, key = self.pool.signals, self.pool.keys[place]
        named = {"lexical": signals.lexical + signals.names, "dense": signals.dense, "links": signals.links}
        found = [Way(stage) for stage, scores in named.items() if scores[0, place] > 0.0]
        step = self.look.steps.get(key)
        if step is not None and step.origin in self.pool.keys:
            found.append(Way("walk", self._id_of(step.origin), step.name))
        best = self.look.best
        if not found and best is not None and self.look.again.get(key, 0.0) > 0.0:
            found.append(Way("again", self._id_of(best)))
        if not found:
            total = named["lexical"][0] + named["dense"][0] + named["links"][0]
            near = [at for at in signals.steps[:, place].tolist() if at >= 0 and total[at] > 0.0]
            found += [Way("neighbours", self.pool.facets[at].id) for at in near[:1]]
        return tuple(found)

    def _id_of(self, key: tuple[int, int]) -> str:
        return self.pool.facets[self.pool.keys.index(key)].id


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
        from memos.retrieval import gather, layout, query, second  # numpy loads here, not on import
        from memos.retrieval import stages as ranking

        self._gather = gather
        self._layout = layout
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
            texts = _texts(views, pool.keys)
        wording = {place: texts[key] for place, key in enumerate(pool.keys) if key in texts}
        return pool.with_signals(self._layout.with_wording(pool.signals, wording))

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
        pool = self._layout.lay_out(found, request, now=utc(self._clock.now()))
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
        read: dict[tuple[int, int], str] = {}
        ranking, texts = self._worded(views, pool, request, weights, read)
        look = self._look(views, pool, ranking, request, weights)
        if look.again or look.walk:
            pool = self._joined(views, pool, look, request, weights)
            ranking, texts = self._worded(views, pool, request, weights, read)
        return Ranked(pool, ranking, texts, look)

    def _worded(
        self,
        views: Sequence[ReadView],
        pool: Pool,
        request: RecallRequest,
        weights: RecallWeights,
        read: dict[tuple[int, int], str],
    ) -> tuple[Ranking, dict[int, str]]:
        """The ranking with wording, and the texts by place; what was read once is kept in `read`."""
        first = self._stages.rank(pool.signals, weights)
        timed = request.valid_at is not None or request.known_at is not None
        least = max(WORDED_MIN, 2 * request.top_k)
        places = self._layout.best_places(first, pool, count=len(pool.keys) if timed else least)
        wanted = self._layout.with_predecessors(places, pool)
        read.update(_texts(views, [key for place in wanted if (key := pool.keys[place]) not in read]))
        texts = {place: read[key] for place in wanted if (key := pool.keys[place]) in read}
        signals = self._layout.with_wording(pool.signals, texts)
        ranking = self._stages.ranked_by_wording(first, signals, weights)
        return ranking, {place: texts[place] for place in places if place in texts}

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
        places = self._layout.best_places(ranking, pool, count=second.SEEDS)
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
        return self._layout.with_second_look(pool, found, request, now=utc(self._clock.now()))

    def _cut(
        self, views: Sequence[ReadView], ranked: Ranked, request: RecallRequest, past: Timeline | None
    ) -> list[Hit]:
        """The hits that the cuts leave, best first."""
        on = self.stages_of(request)
        how, top_k = _repetition(request, on), request.top_k
        least = request.relativity if "relativity" in on else 0.0
        facets = ranked.pool.facets
        places = _in_order(ranked)
        scores = ranked.ranking.score[0, places].tolist()
        fits = ranked.pool.relativity()[0, places].tolist()
        if past is None:
            fits = lent(scores, fits) if "lending" in on else fits
            ranks = [one for one in zip(places, scores, fits, strict=True) if one[2] >= least]
            candidates = (
                Candidate.of(facets[place], ranked.texts[place], score) for place, score, _ in ranks
            )
            # Most candidates never become hits: whole items are read of those alone that do.
            picked = [ranks[one] for one in chosen(candidates, how=how, top_k=top_k)]
            hits = _hits(views, ranked.pool, picked)
        else:
            held = past.hits(_hits(views, ranked.pool, list(zip(places, scores, fits, strict=True))))
            if "lending" in on:
                fits = lent([hit.score for hit in held], [hit.relativity for hit in held])
                held = [replace(hit, relativity=fit) for hit, fit in zip(held, fits, strict=True)]
            hits = dedup([hit for hit in held if hit.relativity >= least], how=how, top_k=top_k)
        place_of = {facets[place].id: place for place in places}
        told = []
        for hit in hits:
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

        return with_corrections_first(told, fetch, top_k=request.top_k, query=request.query)

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


def _texts(views: Sequence[ReadView], keys: Collection[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """The texts of these candidates."""
    return {
        (cube, no): text
        for cube, view in enumerate(views)
        for no, text in view.texts([no for of, no in keys if of == cube]).items()
    }


def _hits(views: Sequence[ReadView], pool: Pool, ranks: Sequence[tuple[int, float, float]]) -> list[Hit]:
    """The candidates of these (place, score, relativity) as hits."""
    items: dict[str, MemoryItem] = {}
    for cube, view in enumerate(views):
        nos = [pool.keys[place][1] for place, _, _ in ranks if pool.keys[place][0] == cube]
        items.update((item.id, item) for item in view.items(nos))
    return [Hit(items[pool.facets[place].id], score, fit) for place, score, fit in ranks]


def _repetition(request: RecallRequest, on: frozenset[str]) -> Dedup:
    """What is left of the request's `dedup` when some of its stages are off."""
    if request.dedup == "no" or "repeats" not in on:
        return "no"
    return "sim" if "mmr" not in on else request.dedup


def parts_of(ranking: Ranking, place: int) -> dict[str, float]:
    """The share of each stage in one score; the addition turns -0.0 into 0.0."""
    return {stage: float(part[0, place]) + 0.0 for stage, part in ranking.parts.items()}


def _in_order(ranked: Ranked) -> list[int]:
    """The places that may become hits, best first; equal scores by time, the later first, then id."""
    scores, turns = ranked.ranking.score[0], ranked.pool.turns
    ranks = {place: (-round(float(scores[place]), SCORE_DIGITS), int(turns[place])) for place in ranked.texts}
    return sorted(ranks, key=ranks.__getitem__)


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
