"""Does working memory suffice for a query, and if not, what is missing? By rules, without a model.

Recall is left out only for one of two reasons: the query repeats one whose recall is still what stands
in working memory, nothing was stored since, and that recall was sure of itself; or a single working
memory speaks of everything the query asks about. Both are strict on purpose: a recall too many costs
milliseconds, one too few costs the answer. Whatever is in doubt triggers.

A recall is sure of itself when its best memory stands out from the one in the middle of the places.
A query that asks for several things needs more of that: the best may stand out and another be missing.
Measured on 1,105 questions over long conversations, 20 places each, with numbers chosen on six conversations
and measured on the seventh (`benchmarks.tune_gate`): recall is left out for 63 of 100 cases where it may be,
and for 4.5 of 100 where it may not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memos.errors import ConfigError
from memos.mem_scheduler.monitors.activity import Activity, AskedQuery
from memos.memory.item import MemoryItem
from memos.retrieval.keywords import analyse
from memos.retrieval.wording import asks_several

if TYPE_CHECKING:
    from memos.models.base import Embedder

_CLAUSES = re.compile(r"[?!;。？！；\n]+|\.\s+|,?\s+(?:and|und|et|y)\s+(?=\w+\s+\w+\s+\w+)|，|以及")


@dataclass(frozen=True, slots=True)
class Intent:
    """The verdict. `missing_evidence` are the searches to make, the most important first."""

    trigger_retrieval: bool
    missing_evidence: tuple[str, ...] = ()
    reason: str = ""


class IntentMonitor:
    """Thread-safe, without state. `embedder` compares meanings where no relativity is handed over."""

    def __init__(
        self,
        embedder: Embedder | None = None,
        *,
        terms_min: int = 5,
        relativity_min: float = 0.85,
        similarity_min: float = 0.5,
        same_query_min: float = 0.8,
        spread_min: float = 1.4,
        several_margin: float = 1.0,
        gaps_max: int = 4,
    ) -> None:
        if terms_min < 1 or gaps_max < 1:
            raise ConfigError(f"terms_min and gaps_max must be at least 1, not {terms_min}, {gaps_max}")
        if not 0 <= relativity_min <= 1 or not 0 <= same_query_min <= 1:
            raise ConfigError("relativity_min and same_query_min lie between 0 and 1")
        self._embedder = embedder
        self._similarity_min = similarity_min
        self._terms_min = terms_min
        self._relativity_min = relativity_min
        self._same_query_min = same_query_min
        self._spread_min = spread_min
        self._several_margin = several_margin
        self._gaps_max = gaps_max

    def detect_intent(
        self,
        query: str,
        working: Sequence[MemoryItem],
        *,
        activity: Activity | None = None,
        relativity: Mapping[str, float] | None = None,
        spread: float | None = None,
        news: bool = False,
    ) -> Intent:
        """The verdict for `query` over the working memories.

        `activity`: what was asked before (the query itself not among it). `relativity`: how well each
        working memory (by id) fits the query on the absolute scale of recall; without it the words
        alone decide. `spread`: how far the best score of the last recall stands above that in the middle
        of the places; None where places were left over. `news`: something was stored since the last recall.
        """
        gaps = self.gaps(query)
        if not working:
            return Intent(True, gaps, "working memory is empty")
        wanted = frozenset(analyse(query))
        last = _last_recalled(activity)
        if last is not None and self._is_same(wanted, frozenset(analyse(last.text))):
            if news:
                return Intent(True, gaps, "something was stored since the last recall for this query")
            if spread is not None and spread < self._spread_wanted(query):
                return Intent(True, gaps, "the last recall for this query was not sure of itself")
            return Intent(False, (), "the query repeats the one that working memory was recalled for")
        covering = self._covering(query, wanted, working, relativity)
        if covering is not None:
            return Intent(
                False, (), f"working memory {covering.id} speaks of everything the query asks about"
            )
        missing = wanted - _terms_of(working)
        reason = (
            f"working memory says nothing about: {', '.join(sorted(missing))}"
            if missing
            else "no single working memory speaks of everything the query asks about"
        )
        return Intent(True, gaps, reason)

    def gaps(self, query: str) -> tuple[str, ...]:
        """The searches for a query: the whole of it, then its clauses where it has several."""
        clauses = [clause.strip(" ,.?!？！。") for clause in _CLAUSES.split(query)]
        parts = [clause for clause in clauses if len(analyse(clause)) >= 2]
        return (query, *parts)[: self._gaps_max] if len(parts) > 1 else (query,)

    def _spread_wanted(self, query: str) -> float:
        """Of a query that asks for several things some may be missing though the best stands out."""
        return self._spread_min + (self._several_margin if asks_several(query) else 0.0)

    def _is_same(self, one: frozenset[str], other: frozenset[str]) -> bool:
        union = one | other
        return bool(union) and len(one & other) / len(union) >= self._same_query_min

    def _covering(
        self,
        query: str,
        wanted: frozenset[str],
        working: Sequence[MemoryItem],
        relativity: Mapping[str, float] | None,
    ) -> MemoryItem | None:
        """A memory whose words reach everything the query asks about, and whose meaning is near."""
        if len(wanted) < self._terms_min:
            return None
        reaching = [item for item in working if wanted <= _terms_of([item])]
        if relativity is not None:
            return next(
                (one for one in reaching if relativity.get(one.id, 0.0) >= self._relativity_min), None
            )
        if not reaching or self._embedder is None:
            return reaching[0] if reaching else None
        asked, *said = self._embedder.embed([query, *(item.memory for item in reaching)])
        near = [item for item, one in zip(reaching, said, strict=True) if asked @ one >= self._similarity_min]
        return near[0] if near else None


def _last_recalled(activity: Activity | None) -> AskedQuery | None:
    """The newest query whose recall stands in working memory: any later recall has replaced it."""
    asked = activity.queries if activity is not None else ()
    return next((query for query in reversed(asked) if query.recalled), None)


def _terms_of(items: Sequence[MemoryItem]) -> frozenset[str]:
    """The content terms of the items, who speaks and what they are linked to included."""
    texts = (" ".join((item.memory, *item.participants, *item.links)) for item in items)
    return frozenset(term for text in texts for term in analyse(text))
