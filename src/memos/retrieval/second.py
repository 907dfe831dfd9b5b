"""The second look: what the first hits lead to, for questions whose answer lies in several memories.

    again   one more search by meaning, with the vector of the best hit: more of the same kind
    walk    a random walk that starts at the first hits and goes on over the names that they bear to the other
            memories that bear them: personalised PageRank (Haveliwala 2002), cut off after `STEPS` steps

A name passes on what it was given in equal shares, so a name that everything bears leads nowhere. The names
of participants are no links: they lead everywhere. All work is bounded by the constants below; a look-up of
a name or of facets is one read of the view, in the snapshot of the first look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from memos.memory.store import Facet, ReadView
from memos.models.base import Vectors

SEEDS = 10  # first hits from which the walk starts
STEPS = 2  # from memory over a name to memory
DAMPING = 0.5  # of what a memory was given, how much it passes on
FAN_OUT = 24  # memories from which one step goes on, those that were given most
NAMES_MAX = 48  # names looked up in all
LINKED_MAX = 200  # memories that one name leads to
JOINING = 24  # new candidates of each kind

Key = tuple[int, int]  # (number of the cube in the request, number of the item)


@dataclass(frozen=True, slots=True)
class Step:
    """How the walk first came to a memory: from which one, and over which name."""

    origin: Key
    name: str


@dataclass(frozen=True, slots=True)
class Look:
    """What the second look found: scores by memory, and how the walk came to each."""

    again: Mapping[Key, float] = field(default_factory=dict)
    walk: Mapping[Key, float] = field(default_factory=dict)
    steps: Mapping[Key, Step] = field(default_factory=dict)
    best: Key | None = None  # what `again` looked for more of

    def joining(self, cube: int) -> list[int]:
        """The best of the cube's items by either, which become candidates if they are none yet."""
        found: dict[int, None] = {}
        for scores in (self.again, self.walk):
            of_cube = [(key, score) for key, score in scores.items() if key[0] == cube]
            of_cube.sort(key=lambda pair: (-pair[1], -pair[0][1]))
            found.update((no, None) for (_, no), _ in of_cube[:JOINING])
        return list(found)

    def of_cube(self, cube: int) -> tuple[dict[int, float], dict[int, float]]:
        """The scores (again, walk) of one cube by item number."""
        again = {no: score for (of, no), score in self.again.items() if of == cube}
        walk = {no: score for (of, no), score in self.walk.items() if of == cube}
        return again, walk


def again(
    views: Sequence[ReadView], best: Key, *, limit: int, allowed: Sequence[frozenset[int] | None]
) -> dict[Key, float]:
    """Cosines with the memory `best`, the best `limit` of each cube; none where it has no vector."""
    vector: Vectors | None = views[best[0]].vectors([best[1]]).get(best[1])
    if vector is None:
        return {}
    return {
        (cube, no): cosine
        for cube, view in enumerate(views)
        for no, cosine in view.search_vector(vector, limit=limit, allowed=allowed[cube]).items()
    }


def walk(
    views: Sequence[ReadView],
    seeds: Mapping[Key, tuple[Facet, float]],
    *,
    hubs: frozenset[str],
    allowed: Sequence[frozenset[int] | None],
) -> tuple[dict[Key, float], dict[Key, Step]]:
    """Where the walk ends, seeds left out, and how it came there. `hubs` are names that lead nowhere.

    `seeds` are memories with their weights, which need not sum up to 1.
    """
    total = sum(weight for _, weight in seeds.values())
    if total <= 0.0:
        return {}, {}
    names = _Names(views, allowed)
    given = {key: weight / total for key, (_, weight) in seeds.items() if weight > 0.0}
    facets = {key: facet for key, (facet, _) in seeds.items()}
    reached: dict[Key, float] = {}
    steps: dict[Key, Step] = {}
    for _ in range(STEPS):
        given = _one_step(given, facets, names, hubs, steps)
        for key, share in given.items():
            reached[key] = reached.get(key, 0.0) + share
        given = dict(sorted(given.items(), key=lambda pair: (-pair[1], pair[0]))[:FAN_OUT])
        for cube, view in enumerate(views):
            unknown = [no for of, no in given if of == cube and (of, no) not in facets]
            facets.update(((cube, no), facet) for no, facet in view.facets(unknown).items())
    for key in seeds:
        reached.pop(key, None)
        steps.pop(key, None)
    return reached, steps


class _Names:
    """The memories that bear a name, each name looked up once, at most `NAMES_MAX` of them."""

    def __init__(self, views: Sequence[ReadView], allowed: Sequence[frozenset[int] | None]) -> None:
        self._views = views
        self._allowed = allowed
        self._known: dict[str, list[Key]] = {}

    def bearing(self, name: str) -> list[Key]:
        if name not in self._known:
            if len(self._known) >= NAMES_MAX:
                return []
            self._known[name] = [
                (cube, no)
                for cube, view in enumerate(self._views)
                for no in view.search_links([name], limit=LINKED_MAX, allowed=self._allowed[cube])
            ]
        return self._known[name]


def _one_step(
    given: Mapping[Key, float],
    facets: Mapping[Key, Facet],
    names: _Names,
    hubs: frozenset[str],
    steps: dict[Key, Step],
) -> dict[Key, float]:
    """What each memory has after a step; `steps` learns how the walk first came to it."""
    by_name: dict[str, float] = {}
    giver: dict[str, tuple[float, Key]] = {}  # who gave a name most
    for key, share in given.items():
        links = [link for link in facets[key].links if link not in hubs] if key in facets else []
        for link in links:
            part = DAMPING * share / len(links)
            by_name[link] = by_name.get(link, 0.0) + part
            if link not in giver or part > giver[link][0]:
                giver[link] = (part, key)
    after: dict[Key, float] = {}
    for name, share in sorted(by_name.items(), key=lambda pair: (-pair[1], pair[0])):
        bearing = names.bearing(name)
        for key in bearing:
            after[key] = after.get(key, 0.0) + share / len(bearing)
            origin = giver[name][1]
            if key not in steps and key != origin:
                steps[key] = Step(origin, name)
    return after
