"""The order of the memories that want a place in working memory, and which of them have none to get.

The prompt is `memory_rerankeing` (`MEMORY_RERANKEING_PROMPT`): rerank and filter in one question. A model
moves what recall found, and no more: numbers that are none are dropped, what it passes over stays behind
what it names, and the best few of recall stay whatever it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from memos.mem_scheduler.model_steps.lines import lines_of
from memos.memory.item import MemoryItem
from memos.memory.working import Candidate
from memos.models.ask import Answer, ask, language_of, numbered, places, quoted
from memos.models.base import LLM

STEP = "memory_rerankeing"
RANKED_MAX = 40
CERTAIN = 3  # of recall's best, which no model may take out

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "new_order": {"type": "array", "items": {"type": "integer"}, "maxItems": RANKED_MAX},
        "irrelevant": {"type": "array", "items": {"type": "integer"}, "maxItems": RANKED_MAX},
        "reasoning": {"type": "string", "maxLength": 200},
    },
    "required": ["new_order"],
}


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ids best first, and those that do not bear on the query. Both empty without a usable answer."""

    answer: Answer
    order: tuple[str, ...] = ()
    irrelevant: frozenset[str] = frozenset()
    dropped: int = 0


def rank(
    llm: LLM,
    query: str,
    candidates: Sequence[Candidate],
    items: Mapping[str, MemoryItem],
    *,
    today: datetime,
) -> Ranking:
    """Ask about the best `RANKED_MAX` of the candidates. Raises RateLimited."""
    best = sorted(candidates, key=lambda one: -one.score)[:RANKED_MAX]
    ids = [one.item_id for one in best]
    language = language_of(query)
    answer = ask(
        llm,
        STEP,
        {
            "today": f"{today.astimezone():%Y-%m-%d (%A)}",
            "query": quoted(query),
            "memories": numbered(lines_of(items[one] for one in ids), language),
        },
        SCHEMA,
        language=language,
    )
    if not answer.usable:
        return Ranking(answer)
    order, lost = places(answer.fields.get("new_order"), len(ids))
    out, also = places(answer.fields.get("irrelevant", []), len(ids))
    out = [place for place in out if place not in set(order)]  # it says both: it bears on the query
    kept = [place for place in out if place >= CERTAIN]
    return Ranking(
        answer,
        tuple(ids[place] for place in order),
        frozenset(ids[place] for place in kept),
        lost + also + len(out) - len(kept),
    )


def reordered(candidates: Sequence[Candidate], ranking: Ranking) -> tuple[Candidate, ...]:
    """The candidates in the order of the ranking, without the irrelevant ones.

    The scores of recall are given out again in the new order, so that they keep their scale. A candidate
    that the ranking does not know keeps its place behind those that it names.
    """
    if not ranking.order and not ranking.irrelevant:
        return tuple(candidates)
    by_score = sorted(
        (one for one in candidates if one.item_id not in ranking.irrelevant), key=lambda one: -one.score
    )
    wanted = {item_id: place for place, item_id in enumerate(ranking.order)}
    ordered = sorted(by_score, key=lambda one: wanted.get(one.item_id, len(wanted)))  # stable
    return tuple(
        replace(
            one,
            score=like.score,
            reason=f"{one.reason}; ranked {place + 1} by the model" if one.item_id in wanted else one.reason,
        )
        for place, (one, like) in enumerate(zip(ordered, by_score, strict=True))
    )
