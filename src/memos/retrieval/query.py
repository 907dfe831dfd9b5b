"""A query as recall sees it in one cube: terms, names, links, periods, and the text to be encoded.

The participants of the cube decide what is a name. Names are kept out of the terms and of the text that
is encoded, where they would drown the rest, and count as fields instead. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from memos.memory.indexer import without_names
from memos.memory.store import Facet
from memos.retrieval.dates import DateRange, asks_when, date_ranges
from memos.retrieval.entities import canonical, entities
from memos.retrieval.keywords import analyse, query_terms
from memos.retrieval.wording import asks_several

folded_name = lru_cache(maxsize=4_096)(canonical)


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for in one cube."""

    terms: Mapping[str, float]  # without the names of participants
    name_terms: Mapping[str, float]
    links: tuple[str, ...]  # entities that are no participants
    named: frozenset[str]  # canonical names of the participants whom the query names
    everybody: frozenset[str]  # canonical names of all participants of the cube
    periods: tuple[DateRange, ...]
    asks_when: bool
    asks_several: bool
    dense_text: str  # "" when nothing is left to encode

    def names_one_of(self, facet: Facet) -> float:
        """1 when a participant of the item is named."""
        return float(any(folded_name(name) in self.named for name in facet.participants))

    def covers(self, facet: Facet) -> float:
        """1 when the item happened in a period that the query names; less just outside a vague one."""
        moment = facet.happened_at or facet.created_at
        return max((period.nearness(moment) for period in self.periods), default=0.0)


def understand(text: str, participants: Collection[str], *, now: datetime) -> Query:
    """`text` as a query in a cube with these participants; `now` is what "yesterday" counts from."""
    canonicals = {name: folded_name(name) for name in participants}
    mentioned = entities(text, canonicals)
    everybody = frozenset(canonicals.values())
    named = everybody.intersection(mentioned)
    name_words = frozenset(
        term for name, folded in canonicals.items() if folded in named for term in analyse(name)
    )
    weights = query_terms(text)
    return Query(
        terms={term: weight for term, weight in weights.items() if term not in name_words},
        name_terms={term: weight for term, weight in weights.items() if term in name_words},
        links=tuple(name for name in mentioned if name not in everybody),
        # Who names everybody has not said whom it is about.
        named=named if named != everybody else frozenset(),
        everybody=everybody,
        periods=tuple(date_ranges(text, now)),
        asks_when=asks_when(text),
        asks_several=asks_several(text),
        dense_text=without_names(text, participants) or text,
    )
