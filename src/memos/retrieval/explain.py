"""Where one memory stands in a recall, and what cut it: the same channels, stages and cuts, looked at singly.

Reads only. Places beyond the first hundred candidates are those of a deeper look than `search` takes, since
a search ranks wording for its best candidates alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from memos.memory.item import MemoryItem
from memos.retrieval.dedup import dedup
from memos.retrieval.hybrid import parts_of
from memos.retrieval.request import CANDIDATES_MAX, TOP_K_MAX, Hit, RecallRequest, Way

if TYPE_CHECKING:
    from memos.memory.store import MemoryStore
    from memos.retrieval.hybrid import HybridRetriever, Ranked
    from memos.retrieval.layout import Pool

Cut = Literal["", "filter", "channels", "depth", "relativity", "dedup", "budget"]
CHANNELS = ("lexical", "dense", "links")


@dataclass(frozen=True, slots=True)
class ChannelPlace:
    """The rank of a memory in one channel, 1 the best, among those that the channel found."""

    rank: int
    of: int
    score: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of a memory in a recall. `cut` "" means that it is a hit, at `place` (1 the first).

    `place` of one that was cut by its budget is the place it would have; of others None. `repeats` is the
    hit that says the same.
    """

    cut: Cut
    place: int | None = None
    relativity: float | None = None
    score_rank: int | None = None
    candidates: int = 0
    channels: Mapping[str, ChannelPlace] = field(default_factory=dict)
    repeats: MemoryItem | None = None
    degraded: tuple[str, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)  # the score of each stage
    ways: tuple[Way, ...] = ()


def standing_of(
    retriever: HybridRetriever, store: MemoryStore, request: RecallRequest, item: MemoryItem
) -> Standing:
    """Where a live item of one of the request's cubes stands. Raises StoreError."""
    recall = retriever.search(request)
    ranked = retriever.ranked(request)
    place = _place_in(ranked.pool, item.id)
    if place is None:
        cut: Cut = "filter" if not _is_allowed(store, request, item) else "channels"
        deeper = replace(request, candidates_max=CANDIDATES_MAX)
        if cut == "channels":
            ranked = retriever.ranked(deeper)
            place = _place_in(ranked.pool, item.id)
            cut = "channels" if place is None else "depth"
        if place is None:
            return Standing(cut, candidates=len(ranked.pool.keys), degraded=recall.degraded)
        return replace(_in_pool(ranked, place), cut=cut, degraded=recall.degraded)
    standing = replace(_in_pool(ranked, place), degraded=recall.degraded)
    found = _index_of(recall.hits, item.id)
    if found is not None:
        hit = recall.hits[found]
        return replace(standing, place=found + 1, relativity=hit.relativity, parts=hit.parts, ways=hit.ways)
    # Its fit with what is lent to it, which only the hits of a search have.
    uncut = retriever.search(replace(request, top_k=TOP_K_MAX, dedup="no", relativity=0.0)).hits
    lent = _index_of(uncut, item.id)
    if lent is not None:
        standing = replace(standing, relativity=uncut[lent].relativity)
    cutting = "relativity" in retriever.stages_of(request)
    if cutting and standing.relativity is not None and standing.relativity < request.relativity:
        return replace(standing, cut="relativity")
    whole = retriever.search(replace(request, top_k=TOP_K_MAX, dedup="no")).hits
    kept = retriever.search(replace(request, top_k=TOP_K_MAX)).hits
    at = _index_of(kept, item.id)
    if at is not None:
        return replace(standing, cut="budget", place=at + 1)
    own = _index_of(whole, item.id)
    repeated = _repeated(whole[: own or 0], whole[own]) if own is not None else None
    return replace(standing, cut="dedup", repeats=repeated)


def _in_pool(ranked: Ranked, place: int) -> Standing:
    pool, scores = ranked.pool, ranked.ranking.score[0]
    channels = {}
    for name, found in (
        ("lexical", pool.signals.lexical[0] + pool.signals.names[0]),
        ("dense", pool.signals.dense[0]),
        ("links", pool.signals.links[0]),
    ):
        if found[place] > 0:
            channels[name] = ChannelPlace(
                int((found > found[place]).sum()) + 1, int((found > 0).sum()), float(found[place])
            )
    return Standing(
        "",
        relativity=float(pool.relativity()[0, place]),
        score_rank=int((scores > scores[place]).sum()) + 1,
        candidates=len(pool.keys),
        channels=channels,
        parts=parts_of(ranked.ranking, place),
        ways=ranked.ways(place),
    )


def _place_in(pool: Pool, item_id: str) -> int | None:
    return next((place for place, facet in enumerate(pool.facets) if facet.id == item_id), None)


def _is_allowed(store: MemoryStore, request: RecallRequest, item: MemoryItem) -> bool:
    from memos.retrieval import gather  # numpy loads here, not on import

    with store.read(item.cube_id) as view:
        allowed = gather.allowed_numbers(view, request)
        if item.id in request.exclude_ids:
            return False
        return allowed is None or any(facet.id == item.id for facet in view.facets(allowed).values())


def _index_of(hits: tuple[Hit, ...] | list[Hit], item_id: str) -> int | None:
    return next((index for index, hit in enumerate(hits) if hit.item.id == item_id), None)


def _repeated(better: tuple[Hit, ...], hit: Hit) -> MemoryItem | None:
    """The better hit that says what this one says."""
    return next((one.item for one in better if len(dedup([one, hit], how="sim", top_k=2)) == 1), None)
