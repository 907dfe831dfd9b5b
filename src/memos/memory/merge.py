"""Near-duplicates among derived items, and the one item that takes the place of several.

The rule: vectors at least `COSINE_MIN` alike AND equal signatures (numbers, names, negation, every word
that counts, in order). The signature carries the precision, since cosine alone puts "allergic" and "not
allergic" at 0.96; the vector guards against what the signature folds. Measured with all-MiniLM-L6-v2,
names taken out: rewordings that should merge lie between 0.82 and 0.99. Raw turns are never merged, nor
are events of different days, facts of different value, or items that held at different times.

The kept item loses nothing: sources united, earliest times, highest confidence, uses added up. Pure;
linear in the items, since only items of equal signature are compared at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from memos.errors import InvalidInput
from memos.memory.item import MemoryItem, MemoryKind, Source
from memos.memory.signature import difference, signature
from memos.memory.slots import fact_of
from memos.models.base import Vectors

COSINE_MIN = 0.8
SOURCES_MAX = 200
TAGS_MAX = 100


@dataclass(frozen=True, slots=True)
class Cluster:
    """`keep` is the surviving item as it should be written; `absorb` are the others, to be archived."""

    keep: MemoryItem
    absorb: tuple[MemoryItem, ...]
    reason: str


def duplicates(
    items: Iterable[MemoryItem],
    vectors: Mapping[str, Vectors],
    *,
    now: datetime,
    cosine_min: float = COSINE_MIN,
) -> list[Cluster]:
    """The clusters among the live derived `items`; an item is in at most one.

    vectors: item id -> unit vector (dim,). Items without one merge only when their texts are the same.
    """
    if not 0.0 < cosine_min <= 1.0:
        raise InvalidInput(f"cosine_min={cosine_min!r} is no cosine above 0; give a number up to 1")
    buckets: defaultdict[tuple[str, str, tuple[str, ...]], list[MemoryItem]] = defaultdict(list)
    for item in items:
        sequence = signature(item.memory).sequence if not item.raw and item.live else ()
        if sequence:
            buckets[(item.cube_id, item.user_id, sequence)].append(item)
    return [
        _merged(cluster, now)
        for bucket in buckets.values()
        if len(bucket) > 1
        for cluster in _clusters(bucket, vectors, cosine_min)
        if len(cluster) > 1
    ]


def why_not(
    a: MemoryItem, b: MemoryItem, vectors: Mapping[str, Vectors], *, cosine_min: float = COSINE_MIN
) -> str:
    """Why two items must not become one; "" when the rule lets them."""
    if a.raw or b.raw:
        return "a raw turn is never merged"
    if (a.cube_id, a.user_id) != (b.cube_id, b.user_id):
        return "they belong to different cubes or users"
    if different := difference(a.memory, b.memory):
        return different
    if a.valid_until != b.valid_until:
        return "they held until different times"
    if _is_event(a) and _is_event(b) and _day(a) != _day(b):
        return "they happened on different days"
    one, other = fact_of(a), fact_of(b)
    if (
        one is not None
        and other is not None
        and (
            one.identity != other.identity
            or one.folded_value != other.folded_value
            or one.ended is not other.ended
        )
    ):
        return "they hold different facts"
    if a.content_hash == b.content_hash:
        return ""
    if a.id not in vectors or b.id not in vectors:
        return "one of them has no vector"
    cosine = float(vectors[a.id] @ vectors[b.id])
    return "" if cosine >= cosine_min else f"cosine {cosine:.3f} is below {cosine_min}"


def _is_event(item: MemoryItem) -> bool:
    return item.kind in (MemoryKind.LONG_TERM, MemoryKind.WORKING)


def _day(item: MemoryItem) -> str:
    return "" if item.happened_at is None else item.happened_at.date().isoformat()


def _clusters(
    bucket: Sequence[MemoryItem], vectors: Mapping[str, Vectors], cosine_min: float
) -> list[list[MemoryItem]]:
    """Each item joins the first cluster whose *kept* item it matches: no chain leads from one to another."""
    clusters: list[list[MemoryItem]] = []
    for item in sorted(bucket, key=_preference):
        for cluster in clusters:
            if not why_not(cluster[0], item, vectors, cosine_min=cosine_min):
                cluster.append(item)
                break
        else:
            clusters.append([item])
    return clusters


def _preference(item: MemoryItem) -> tuple[int, float, int, datetime, str]:
    """What is kept: the more telling kind, the surer, the more used, the older. The id settles ties."""
    rank = {MemoryKind.USER: 0, MemoryKind.PREFERENCE: 1, MemoryKind.LONG_TERM: 2, MemoryKind.WORKING: 3}
    return (rank[item.kind], -item.confidence, -item.use_count, item.created_at, item.id)


def _merged(cluster: Sequence[MemoryItem], now: datetime) -> Cluster:
    kept, absorbed = cluster[0], tuple(cluster[1:])
    happened = [item.happened_at for item in cluster if item.happened_at is not None]
    used = [item.used_at for item in cluster if item.used_at is not None]
    fact_owner = next((item for item in cluster if fact_of(item) is not None), kept)
    merged = replace(
        kept,
        sources=_united_sources(cluster),
        tags=_united([item.tags for item in cluster]),
        links=_united([item.links for item in cluster]),
        participants=_united([item.participants for item in cluster]),
        confidence=max(item.confidence for item in cluster),
        created_at=min(item.created_at for item in cluster),
        updated_at=max(now, kept.updated_at),
        happened_at=min(happened) if happened else None,
        use_count=sum(item.use_count for item in cluster),
        used_at=max(used) if used else None,
        extra={**fact_owner.extra, **kept.extra},
    )
    return Cluster(merged, absorbed, f"the same as {', '.join(item.id for item in absorbed)} in other words")


def _united(columns: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for column in columns for value in column))[:TAGS_MAX]


def _united_sources(cluster: Sequence[MemoryItem]) -> tuple[Source, ...]:
    """Every source once. An absorbed item without sources is itself one, so that its origin stays known."""
    united: dict[str, Source] = {}
    for number, item in enumerate(cluster):
        own = item.sources
        if not own and number > 0:
            own = (Source(type="item", role=item.role, item_id=item.id, at=item.happened_at),)
        for source in own:
            united.setdefault(source.key or repr(source), source)
    return tuple(united.values())[:SOURCES_MAX]
