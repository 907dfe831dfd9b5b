"""Asking the channels of one cube and laying out what they found, as arrays that the stages rank.

One `ReadView`, one query. Candidates are what the lexical, dense and link channels return and the
neighbours of the best of them; everything else is read from their facets. Texts are read for the best
candidates only (`read_wording`), since that is what costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import log1p

import numpy as np
import numpy.typing as npt

from memos.memory.item import MemoryItem
from memos.memory.store import Facet, ItemFilter, ReadView
from memos.models.base import Vectors
from memos.retrieval.dates import tells_when
from memos.retrieval.fuse import Scores
from memos.retrieval.query import Query
from memos.retrieval.relativity import relativity
from memos.retrieval.request import RecallRequest
from memos.retrieval.stages import BEFORE, Episodes, Places, Ranking, Signals
from memos.retrieval.weights import RecallWeights
from memos.retrieval.wording import asks, substance

EPISODE_GAP = timedelta(hours=6)  # a longer silence in a session begins another episode
EXPANDED = 24  # best candidates whose neighbours join
DISTANCE = 2
RECENCY_HALF_LIFE = timedelta(days=30)
USES_FULL = 20  # uses that count as many
# Cosines of equal vectors differ in their last digits by where a row lies; what is left are true ties.
SCORE_DIGITS = 4
SCENARIO_SCORE = 0.5  # same scenario in another session

Seconds = npt.NDArray[np.float64]
Wording = tuple[float, float, float]  # asks, tells_when, substance of one text


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The candidates of one cube: their numbers and facets, and the raw scores of each channel."""

    cube_id: str
    query: Query
    facets: tuple[Facet, ...]
    lexical: Mapping[int, float]
    names: Mapping[int, float]
    dense: Mapping[int, float]
    links: Mapping[int, float]
    mass: float  # IDF mass of the query
    size: int  # live items in the cube
    allowed: frozenset[int] | None  # what the request's filter leaves; None: everything
    again: Mapping[int, float] = field(default_factory=dict)
    walk: Mapping[int, float] = field(default_factory=dict)


def depth(request: RecallRequest) -> int:
    """How many candidates a channel gives at most."""
    return max(1, request.candidates_max // 2, 2 * request.top_k)


def search_channels(
    view: ReadView, query: Query, request: RecallRequest, vector: Vectors | None, weights: RecallWeights
) -> Found:
    """Ask the channels of a cube that have a weight for its candidates."""
    allowed = allowed_numbers(view, request)
    each = depth(request)
    by_words, by_links = weights.lexical > 0.0, weights.links > 0.0
    context = weights.near, weights.far, weights.reply, weights.episode
    lexical: Mapping[int, float] = {}
    if by_words and query.terms:
        lexical = view.search_text(query.terms, limit=each, allowed=allowed)
    dense = view.search_vector(vector, limit=each, allowed=allowed) if vector is not None else {}
    links = view.search_links(query.links, limit=each, allowed=allowed) if by_links and query.links else {}
    numbers = dict.fromkeys([*lexical, *dense, *links])
    if not numbers and by_words and query.name_terms:
        lexical = view.search_text(query.name_terms, limit=each, allowed=allowed)
        numbers = dict.fromkeys(lexical)
    best = _best(lexical, dense, links) if max(context) > 0.0 else []
    near = view.neighbours(best, distance=DISTANCE)
    for around in near.values():
        numbers.update((no, None) for no in around if allowed is None or no in allowed)
    facets = wanted_facets(view, numbers, request)
    names = _name_scores(view, query, facets) if by_words else {}
    terms = query.terms or query.name_terms
    rarity = view.rarity(terms)
    mass = sum(weight * rarity[term] for term, weight in terms.items())
    return Found(view.cube_id, query, tuple(facets), lexical, names, dense, links, mass, view.size, allowed)


def with_second_look(
    view: ReadView,
    found: Found,
    request: RecallRequest,
    weights: RecallWeights,
    *,
    again: Mapping[int, float],
    walk: Mapping[int, float],
    joining: Iterable[int],
) -> Found:
    """What was found, with what the second look says of it and the candidates that it brings."""
    known = {facet.no for facet in found.facets}
    more = wanted_facets(view, [no for no in joining if no not in known], request)
    names = found.names
    if more and weights.lexical > 0.0:
        names = {**names, **_name_scores(view, found.query, more)}
    return replace(found, facets=(*found.facets, *more), names=names, again=again, walk=walk)


def wanted_facets(view: ReadView, numbers: Iterable[int], request: RecallRequest) -> list[Facet]:
    """The facets of the items that the request does not leave out by name."""
    return [facet for facet in view.facets(numbers).values() if _wanted(facet, request)]


def _name_scores(view: ReadView, query: Query, facets: Sequence[Facet]) -> Mapping[int, float]:
    """How much of the participants' names in the query each item holds."""
    if not query.name_terms or not facets:
        return {}
    return view.search_text(
        query.name_terms, limit=len(facets), allowed=frozenset(facet.no for facet in facets)
    )


def allowed_numbers(view: ReadView, request: RecallRequest) -> frozenset[int] | None:
    """The items that the request's filter leaves; None: all of them."""
    wanted = replace(request.filter or ItemFilter(), cube_ids=())
    if request.kinds:
        kinds = tuple(kind for kind in wanted.kinds or request.kinds if kind in request.kinds)
        if not kinds:
            return frozenset()
        wanted = replace(wanted, kinds=kinds)
    if wanted.is_default and request.predicate is None:
        return None
    numbers = view.select(wanted)
    if request.predicate is None:
        return numbers
    kept: set[int] = set()
    in_order = sorted(numbers)
    for start in range(0, len(in_order), 500):
        part = in_order[start : start + 500]
        # Numbers that vanish cannot shift the pairs: a view is one snapshot.
        kept.update(no for no, item in zip(part, view.items(part), strict=True) if request.predicate(item))
    return frozenset(kept)


def _best(*channels: Mapping[int, float]) -> list[int]:
    """The best candidates of all channels together, each channel scaled by its own best."""
    total: dict[int, float] = {}
    for channel in channels:
        best = max(channel.values(), default=0.0)
        if best > 0.0:
            for no, score in channel.items():
                total[no] = total.get(no, 0.0) + score / best
    return sorted(total, key=lambda no: (-total[no], no))[:EXPANDED]


def _wanted(facet: Facet, request: RecallRequest) -> bool:
    if facet.turn_id and facet.turn_id in request.exclude_turn_ids:
        return False
    return facet.id not in request.exclude_ids


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The candidates of all cubes of one request in one row of arrays. `keys[i]` = (cube, item number)."""

    keys: tuple[tuple[int, int], ...]
    facets: tuple[Facet, ...]
    signals: Signals
    relativity: Scores  # (1, n)
    found: tuple[Found, ...]
    turns: Places  # (n,) the place of each among equal scores: the later first, then by id

    def with_signals(self, signals: Signals) -> Pool:
        """The same candidates with other signals."""
        return replace(self, signals=signals)


def lay_out(found: Sequence[Found], request: RecallRequest, *, now: datetime) -> Pool:
    """Facets and raw scores as arrays. Wording is still empty: see `with_wording`."""
    facets = tuple(facet for one in found for facet in one.facets)
    keys = tuple((number, facet.no) for number, one in enumerate(found) for facet in one.facets)
    cubes = np.array([cube for cube, _ in keys], dtype=np.int64)
    episodes, steps = surroundings(cubes, facets)
    lexical = _scored(found, [one.lexical for one in found])
    names = _scored(found, [one.names for one in found])
    dense = _scored(found, [one.dense for one in found])
    moments = _moments(facets)
    blank = np.zeros(len(facets), dtype=np.float32)
    signals = Signals(
        found=np.ones((1, len(facets)), dtype=bool),
        lexical=lexical,
        names=names,
        dense=dense,
        links=_scored(found, [one.links for one in found]),
        participant=_named(found, len(facets)),
        time=_covered(found, len(facets)),
        scenario=_scenarios(facets, request),
        recency=_recency(moments, now),
        use=np.minimum(1.0, np.log1p([facet.use_count for facet in facets]) / log1p(USES_FULL)).astype(
            np.float32
        ),
        asks_when=np.full((1, 1), any(one.query.asks_when for one in found), dtype=np.float32),
        asks_several=np.full((1, 1), any(one.query.asks_several for one in found), dtype=np.float32),
        asks=blank,
        tells_when=blank,
        substance=blank,
        again=_scored(found, [one.again for one in found]),
        walk=_scored(found, [one.walk for one in found]),
        episodes=episodes,
        steps=steps,
    )
    mass = np.array([found[cube].mass for cube in cubes], dtype=np.float32)
    sizes = np.array([found[cube].size for cube in cubes], dtype=np.int64)
    fits = relativity(cosines=dense, lexical=lexical + names, mass=mass, sizes=sizes, steps=steps)
    return Pool(keys, facets, signals, fits, tuple(found), _turns(facets, moments))


def _moments(facets: Sequence[Facet]) -> Seconds:
    """When each happened, else was stored, in seconds since 1970."""
    return np.array(
        [(facet.happened_at or facet.created_at).timestamp() for facet in facets], dtype=np.float64
    )


def _turns(facets: Sequence[Facet], moments: Seconds) -> Places:
    latest = (-moments).tolist()
    order = sorted(range(len(facets)), key=lambda place: (latest[place], facets[place].id))
    turns = np.empty(len(facets), dtype=np.int64)
    turns[order] = np.arange(len(facets))
    return turns


def with_second_signals(pool: Pool, found: Sequence[Found]) -> Pool:
    """The same candidates with what the second look says of them."""
    signals = replace(
        pool.signals,
        again=_scored(found, [one.again for one in found]),
        walk=_scored(found, [one.walk for one in found]),
    )
    return replace(pool, signals=signals, found=tuple(found))


def surroundings(cubes: Places, facets: Sequence[Facet]) -> tuple[Episodes, Places]:
    """What `Signals` knows of each item's episode and neighbours; `cubes` are the numbers of their cubes."""
    order, steps = _places(cubes, facets)
    return Episodes.of(_episodes(cubes, facets, order)), steps


def with_wording(
    signals: Signals, items: Mapping[int, MemoryItem], known: dict[str, Wording] | None = None
) -> Signals:
    """The signals with the wording of the items at these places; times only for a query that asks for one.

    known: the wording of items by id, of one request; what is looked at is added.
    """
    known = {} if known is None else known
    asking = np.zeros(len(signals.asks), dtype=np.float32)
    telling, saying = asking.copy(), asking.copy()
    when = bool(signals.asks_when.any())
    for place, item in items.items():
        said = known.get(item.id)
        if said is None:
            told = when and tells_when(item.memory)
            said = known[item.id] = (asks(item.memory), float(told), substance(item.memory))
        asking[place], telling[place], saying[place] = said
    return replace(signals, asks=asking, tells_when=telling, substance=saying)


def best_places(ranking: Ranking, pool: Pool, *, count: int) -> list[int]:
    """The places of the `count` best candidates, best first; equal scores by time, the later first, then id."""
    order: list[int] = np.lexsort((pool.turns, -np.round(ranking.score[0], SCORE_DIGITS)))[:count].tolist()
    return order


def with_predecessors(places: Sequence[int], pool: Pool) -> list[int]:
    """The places and those of the items right before them: a reply is known by the question before it."""
    before = pool.signals.steps[BEFORE][list(places)]
    return list(dict.fromkeys([*places, *(place for place in before.tolist() if place >= 0)]))


def _row(values: Iterable[float]) -> Scores:
    row: Scores = np.array([list(values)], dtype=np.float32)
    return row


def _nothing(count: int) -> Scores:
    return np.zeros((1, count), dtype=np.float32)


# Most queries name nobody, no time and no session: the rows below are only counted out where one does.


def _scored(found: Sequence[Found], channels: Sequence[Mapping[int, float]]) -> Scores:
    """(1, n) what a channel says of each candidate; `channels` are those of the cubes."""
    if not any(channels):
        return _nothing(sum(len(one.facets) for one in found))
    return _row(
        channel.get(facet.no, 0.0)
        for one, channel in zip(found, channels, strict=True)
        for facet in one.facets
    )


def _named(found: Sequence[Found], count: int) -> Scores:
    if not any(one.query.named for one in found):
        return _nothing(count)
    return _row(one.query.names_one_of(facet) for one in found for facet in one.facets)


def _covered(found: Sequence[Found], count: int) -> Scores:
    if not any(one.query.periods for one in found):
        return _nothing(count)
    return _row(one.query.covers(facet) for one in found for facet in one.facets)


def _scenarios(facets: Sequence[Facet], request: RecallRequest) -> Scores:
    if not request.session_id and not request.scenario:
        return _nothing(len(facets))
    return _row(_scenario(facet, request) for facet in facets)


def _scenario(facet: Facet, request: RecallRequest) -> float:
    if request.session_id and facet.session_id == request.session_id:
        return 1.0
    return SCENARIO_SCORE if request.scenario and facet.scenario == request.scenario else 0.0


def _recency(moments: Seconds, now: datetime) -> Scores:
    """(1, n) halves with each half-life; what lies in the future is as new as can be."""
    ages = np.maximum(0.0, now.timestamp() - moments)
    row: Scores = (0.5 ** (ages / RECENCY_HALF_LIFE.total_seconds())).astype(np.float32)[None, :]
    return row


def _places(cubes: Places, facets: Sequence[Facet]) -> tuple[Places, Places]:
    """The candidates in the order of their sessions, and for each those one and two places away.

    An item without a session has no neighbours. Items that share a position count as one place apart.
    """
    sessions = _numbered([facet.session_id for facet in facets])
    positions = np.array([facet.position for facet in facets], dtype=np.int64)
    numbers = np.array([facet.no for facet in facets], dtype=np.int64)
    placed = np.array([bool(facet.session_id) for facet in facets], dtype=bool)
    order: Places = np.lexsort((numbers, positions, sessions, cubes))
    steps = np.full((4, len(facets)), -1, dtype=np.int64)
    for offset in range(1, DISTANCE + 1):
        before, after = order[:-offset], order[offset:]
        apart = np.maximum(positions[after] - positions[before], offset)
        together = (sessions[before] == sessions[after]) & (cubes[before] == cubes[after]) & placed[before]
        for distance in range(offset, DISTANCE + 1):
            pairs = together & (apart == distance)
            steps[2 * distance - 2, after[pairs]] = before[pairs]
            steps[2 * distance - 1, before[pairs]] = after[pairs]
    return order, steps


def _episodes(cubes: Places, facets: Sequence[Facet], order: Places) -> Places:
    """A label per candidate: its session, cut where it was silent for long. Alone without a session."""
    labels = np.zeros(len(facets), dtype=np.int64)
    label, last = 0, -1
    for place in order.tolist():
        facet = facets[place]
        if last >= 0:
            before = facets[last]
            same = facet.session_id and facet.session_id == before.session_id and cubes[place] == cubes[last]
            silence = abs((facet.happened_at or facet.created_at) - (before.happened_at or before.created_at))
            if not same or silence > EPISODE_GAP:
                label += 1
        labels[place] = label
        last = place
    return labels


def _numbered(names: Sequence[str]) -> Places:
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.int64)
