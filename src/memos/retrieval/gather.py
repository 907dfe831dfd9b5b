"""Asking the channels of one cube for the candidates of a query.

One `ReadView`, one query. Candidates are what the lexical, dense and link channels return and the
neighbours of the best of them; everything else is read from their facets. `layout` makes arrays of what was found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from memos.memory.store import Facet, ItemFilter, ReadView
from memos.models.base import Vectors
from memos.retrieval.query import Query
from memos.retrieval.request import RecallRequest
from memos.retrieval.weights import RecallWeights

EXPANDED = 24  # best candidates whose neighbours join
DISTANCE = 2  # places away up to which they are neighbours


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
    compared: Collection[float] = ()  # cosines with every item of the cube; empty where not all are known


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
    compared = dense.values() if allowed is None and len(dense) < each else ()
    return Found(
        view.cube_id,
        query,
        tuple(facets),
        lexical,
        names,
        dense,
        links,
        mass,
        view.size,
        allowed,
        compared=compared,
    )


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
