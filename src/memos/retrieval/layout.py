"""Laying out the candidates of a request as arrays, which the stages rank.

What the second look brings is added behind the candidates of the first, whose rows stay as they are. Texts
are read for the best candidates only (`with_wording`), since that is what costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from math import log1p

import numpy as np
import numpy.typing as npt

from memos.memory.store import Facet
from memos.retrieval.dates import tells_when
from memos.retrieval.fuse import Scores
from memos.retrieval.gather import DISTANCE, Found
from memos.retrieval.relativity import relativity, span_of
from memos.retrieval.request import RecallRequest
from memos.retrieval.stages import BEFORE, Episodes, Places, Ranking, Signals
from memos.retrieval.wording import asks, substance

EPISODE_GAP = timedelta(hours=6)  # a longer silence in a session begins another episode
RECENCY_HALF_LIFE = timedelta(days=30)
USES_FULL = 20  # uses that count as many
# Cosines of equal vectors differ in their last digits by where a row lies; what is left are true ties.
SCORE_DIGITS = 4
SCENARIO_SCORE = 0.5  # same scenario in another session
TEXTS_CACHED_MAX = 4_096  # whose wording is kept: the same memories come up for query after query
_HALF_MICROSECOND_S = 5e-7  # times are whole microseconds, their differences as floats nearly so

Seconds = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Key = tuple[int, int]  # (number of the cube in the request, number of the item)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Where candidates stand, a column each."""

    cubes: Places  # numbers of their cubes
    numbers: Places  # of the items
    positions: Places
    moments: Seconds  # when each happened, else was stored, since 1970
    sessions: tuple[str, ...]
    ids: tuple[str, ...]

    @classmethod
    def of(cls, keys: Sequence[Key], facets: Sequence[Facet]) -> Columns:
        """The columns of these items."""
        seconds = [(facet.happened_at or facet.created_at).timestamp() for facet in facets]
        return cls(
            np.array([cube for cube, _ in keys], dtype=np.int64),
            np.array([no for _, no in keys], dtype=np.int64),
            np.array([facet.position for facet in facets], dtype=np.int64),
            np.array(seconds, dtype=np.float64),
            tuple([facet.session_id for facet in facets]),
            tuple([facet.id for facet in facets]),
        )

    def with_more(self, more: Columns) -> Columns:
        """These rows and behind them those."""
        return Columns(
            np.concatenate([self.cubes, more.cubes]),
            np.concatenate([self.numbers, more.numbers]),
            np.concatenate([self.positions, more.positions]),
            np.concatenate([self.moments, more.moments]),
            self.sessions + more.sessions,
            self.ids + more.ids,
        )

    def surroundings(self) -> tuple[Episodes, Places]:
        """What `Signals` knows of each item's episode and neighbours."""
        sessions = _numbered(self.sessions)
        placed = np.array([bool(session) for session in self.sessions], dtype=bool)
        order: Places = np.lexsort((self.numbers, self.positions, sessions, self.cubes))
        steps = _steps(order, self.cubes, sessions, placed, self.positions)
        return Episodes.of(_episodes(order, self.cubes, sessions, placed, self.moments)), steps

    def turns(self) -> Places:
        """The place of each among equal scores: the later first, then by id."""
        ranks = list(zip((-self.moments).tolist(), self.ids, strict=True))
        turns = np.empty(len(ranks), dtype=np.int64)
        turns[sorted(range(len(ranks)), key=ranks.__getitem__)] = np.arange(len(ranks))
        return turns


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The candidates of all cubes of one request in one row of arrays."""

    keys: tuple[Key, ...]
    facets: tuple[Facet, ...]
    columns: Columns
    signals: Signals
    found: tuple[Found, ...]
    turns: Places  # (n,) the place of each among equal scores

    def with_signals(self, signals: Signals) -> Pool:
        """The same candidates with other signals."""
        return replace(self, signals=signals)

    def relativity(self) -> Scores:
        """(1, n) how well each fits on the absolute scale. Computed anew with each call."""
        cubes, signals = self.columns.cubes, self.signals
        return relativity(
            cosines=signals.dense,
            lexical=signals.lexical + signals.names,
            mass=np.array([one.mass for one in self.found], dtype=np.float32)[cubes],
            spans=np.array([span_of(one.size, one.compared) for one in self.found], dtype=np.float32)[cubes],
            steps=signals.steps,
        )


def lay_out(found: Sequence[Found], request: RecallRequest, *, now: datetime) -> Pool:
    """Facets and raw scores as arrays. Wording and second look are still empty."""
    keys, facets = _in_a_row([one.facets for one in found])
    columns = Columns.of(keys, facets)
    episodes, steps = columns.surroundings()
    signals = Signals(
        found=np.ones((1, len(keys)), dtype=bool),
        **_rows(found, keys, facets, columns.moments, request, now),
        asks_when=np.full((1, 1), any(one.query.asks_when for one in found), dtype=np.float32),
        asks_several=np.full((1, 1), any(one.query.asks_several for one in found), dtype=np.float32),
        asks=np.zeros(len(keys), dtype=np.float32),
        tells_when=np.zeros(len(keys), dtype=np.float32),
        substance=np.zeros(len(keys), dtype=np.float32),
        again=_nothing(len(keys)),
        walk=_nothing(len(keys)),
        episodes=episodes,
        steps=steps,
    )
    return Pool(keys, facets, columns, signals, tuple(found), columns.turns())


def with_second_look(pool: Pool, found: Sequence[Found], request: RecallRequest, *, now: datetime) -> Pool:
    """The candidates with what the second look says of them, and behind them those that it brings."""
    more = [one.facets[len(before.facets) :] for before, one in zip(pool.found, found, strict=True)]
    if any(more):
        pool = _with_more(pool, found, more, request, now)
    again, walk = ([one.again for one in found], [one.walk for one in found])
    signals = replace(pool.signals, again=_scored(pool.keys, again), walk=_scored(pool.keys, walk))
    return replace(pool, signals=signals, found=tuple(found))


def _with_more(
    pool: Pool, found: Sequence[Found], more: Sequence[Sequence[Facet]], request: RecallRequest, now: datetime
) -> Pool:
    keys, facets = _in_a_row(more)
    fresh = Columns.of(keys, facets)
    columns = pool.columns.with_more(fresh)
    episodes, steps = columns.surroundings()
    rows = _rows(found, keys, facets, fresh.moments, request, now)
    count = len(pool.keys) + len(keys)
    signals = replace(
        pool.signals,
        found=np.ones((1, count), dtype=bool),
        **{name: np.concatenate([getattr(pool.signals, name), row], axis=-1) for name, row in rows.items()},
        asks=np.zeros(count, dtype=np.float32),
        tells_when=np.zeros(count, dtype=np.float32),
        substance=np.zeros(count, dtype=np.float32),
        episodes=episodes,
        steps=steps,
    )
    return Pool(pool.keys + keys, pool.facets + facets, columns, signals, pool.found, columns.turns())


def _in_a_row(by_cube: Sequence[Sequence[Facet]]) -> tuple[tuple[Key, ...], tuple[Facet, ...]]:
    keys = [(cube, facet.no) for cube, facets in enumerate(by_cube) for facet in facets]
    return tuple(keys), tuple([facet for facets in by_cube for facet in facets])


def with_wording(signals: Signals, texts: Mapping[int, str]) -> Signals:
    """The signals with the wording of the texts at these places; times only for a query that asks for one."""
    asking = np.zeros(len(signals.asks), dtype=np.float32)
    telling, saying = asking.copy(), asking.copy()
    places = list(texts)
    if places:
        asking[places], saying[places] = zip(*map(_wording, texts.values()), strict=True)
        if signals.asks_when.any():
            telling[places] = list(map(_tells_when, texts.values()))
    return replace(signals, asks=asking, tells_when=telling, substance=saying)


@lru_cache(maxsize=TEXTS_CACHED_MAX)
def _wording(text: str) -> tuple[bool, float]:
    return asks(text), substance(text)


_tells_when = lru_cache(maxsize=TEXTS_CACHED_MAX)(tells_when)


def best_places(ranking: Ranking, pool: Pool, *, count: int) -> list[int]:
    """The places of the `count` best candidates, best first; equal scores by time, the later first, then id."""
    order: list[int] = np.lexsort((pool.turns, -np.round(ranking.score[0], SCORE_DIGITS)))[:count].tolist()
    return order


def with_predecessors(places: Sequence[int], pool: Pool) -> list[int]:
    """The places and those of the items right before them: a reply is known by the question before it."""
    before = pool.signals.steps[BEFORE][list(places)]
    return list(dict.fromkeys([*places, *(place for place in before.tolist() if place >= 0)]))


def _rows(
    found: Sequence[Found],
    keys: Sequence[Key],
    facets: Sequence[Facet],
    moments: Seconds,
    request: RecallRequest,
    now: datetime,
) -> dict[str, Scores]:
    """The rows of `Signals` that a candidate has by itself, by name."""
    uses = np.log1p([facet.use_count for facet in facets]) / log1p(USES_FULL)
    return {
        "lexical": _scored(keys, [one.lexical for one in found]),
        "names": _scored(keys, [one.names for one in found]),
        "dense": _scored(keys, [one.dense for one in found]),
        "links": _scored(keys, [one.links for one in found]),
        "participant": _named(found, keys, facets),
        "time": _covered(found, keys, facets),
        "scenario": _scenarios(facets, request),
        "recency": _recency(moments, now),
        "use": np.minimum(1.0, uses).astype(np.float32),
    }


def _row(values: Sequence[float]) -> Scores:
    row: Scores = np.array([values], dtype=np.float32)
    return row


def _nothing(count: int) -> Scores:
    return np.zeros((1, count), dtype=np.float32)


# Most queries name nobody, no time and no session: the rows below are only counted out where one does. Of
# hundreds of candidates few sets of people take part in, and they were said on few days.


def _scored(keys: Sequence[Key], channels: Sequence[Mapping[int, float]]) -> Scores:
    """(1, n) what a channel says of each candidate; `channels` are those of the cubes."""
    if not any(channels):
        return _nothing(len(keys))
    return _row([channels[cube].get(no, 0.0) for cube, no in keys])


def _named(found: Sequence[Found], keys: Sequence[Key], facets: Sequence[Facet]) -> Scores:
    if not any(one.query.named for one in found):
        return _nothing(len(keys))
    known: dict[tuple[int, tuple[str, ...]], float] = {}
    said: list[float] = []
    for (cube, _), facet in zip(keys, facets, strict=True):
        who = cube, facet.participants
        if who not in known:
            known[who] = found[cube].query.names_one_of(facet)
        said.append(known[who])
    return _row(said)


def _covered(found: Sequence[Found], keys: Sequence[Key], facets: Sequence[Facet]) -> Scores:
    if not any(one.query.periods for one in found):
        return _nothing(len(keys))
    known: dict[tuple[int, datetime], float] = {}
    said: list[float] = []
    for (cube, _), facet in zip(keys, facets, strict=True):
        when = cube, facet.happened_at or facet.created_at
        if when not in known:
            known[when] = found[cube].query.covers(facet)
        said.append(known[when])
    return _row(said)


def _scenarios(facets: Sequence[Facet], request: RecallRequest) -> Scores:
    if not request.session_id and not request.scenario:
        return _nothing(len(facets))
    return _row([_scenario(facet, request) for facet in facets])


def _scenario(facet: Facet, request: RecallRequest) -> float:
    if request.session_id and facet.session_id == request.session_id:
        return 1.0
    return SCENARIO_SCORE if request.scenario and facet.scenario == request.scenario else 0.0


def _recency(moments: Seconds, now: datetime) -> Scores:
    """(1, n) halves with each half-life; what lies in the future is as new as can be."""
    ages = np.maximum(0.0, now.timestamp() - moments)
    row: Scores = (0.5 ** (ages / RECENCY_HALF_LIFE.total_seconds())).astype(np.float32)[None, :]
    return row


def _steps(order: Places, cubes: Places, sessions: Places, placed: Flags, positions: Places) -> Places:
    """For each candidate those one and two places away; `order` is that of their sessions.

    An item without a session has no neighbours. Items that share a position count as one place apart.
    """
    steps = np.full((4, len(order)), -1, dtype=np.int64)
    for offset in range(1, DISTANCE + 1):
        before, after = order[:-offset], order[offset:]
        apart = np.maximum(positions[after] - positions[before], offset)
        together = (sessions[before] == sessions[after]) & (cubes[before] == cubes[after]) & placed[before]
        for distance in range(offset, DISTANCE + 1):
            pairs = together & (apart == distance)
            steps[2 * distance - 2, after[pairs]] = before[pairs]
            steps[2 * distance - 1, before[pairs]] = after[pairs]
    return steps


def _episodes(order: Places, cubes: Places, sessions: Places, placed: Flags, moments: Seconds) -> Places:
    """A label per candidate: its session, cut where it was silent for long. Alone without a session."""
    before, after = order[:-1], order[1:]
    same = (sessions[before] == sessions[after]) & (cubes[before] == cubes[after]) & placed[after]
    silence = np.abs(moments[after] - moments[before])
    labels = np.zeros(len(order), dtype=np.int64)
    labels[after] = np.cumsum(~same | (silence > EPISODE_GAP.total_seconds() + _HALF_MICROSECOND_S))
    return labels


def _numbered(names: Sequence[str]) -> Places:
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.int64)
