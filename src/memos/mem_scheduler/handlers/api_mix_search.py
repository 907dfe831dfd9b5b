"""`api_mix_search`: the fine recall behind a mixture search, for the searches that follow.

Content: the JSON that `OptimizedScheduler.submit_memory_history_async_task` makes
(`{"search_req": {"query", "top_k", "session_id"}, "memory_ids": […]}`) or the bare query. Searches for the
query, for its gaps, for it together with the names that its first hits bring, and, where it leans on
earlier questions of its session, together with them; what the fast recall found joins. The ids go to the
history window of the user and cube, which `mix_recall` joins into later results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memos import log
from memos.errors import Discard
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import present
from memos.mem_scheduler.monitors.search_history import IDS_KEPT_MAX, SearchHistory
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.retrieval.keywords import analyse
from memos.retrieval.mixing import best_of, leans_on_earlier
from memos.retrieval.request import QUERY_CHARS_MAX, Hit, RecallRequest

logger = log.get_logger(__name__)

DEPTH = 3  # times top_k
CANDIDATES_MAX = 2_000
FURTHER_WEIGHT = 0.8  # of what was found by other words than the query's own
NAMES_OF_HITS = 3
NAMES_MAX = 4
TOP_K_MAX = 100


@dataclass(frozen=True, slots=True)
class MixSearch:
    """What was searched for."""

    query: str
    session_id: str = ""
    top_k: int = 10
    found_ids: tuple[str, ...] = ()  # by the fast recall


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        with ctx.bound_to(message):
            if not ctx.is_repeat(message):
                _search(ctx, message)


def search_of(message: ScheduleMessageItem) -> MixSearch:
    """The search in a message. Discard when there is no query: no retry can mend it."""
    try:
        value = json.loads(message.content)
    except ValueError:
        value = message.content
    asked: Mapping[str, Any] = {"query": message.content}
    ids: object = []
    if isinstance(value, dict):
        inner = value.get("search_req", value)
        asked = inner if isinstance(inner, dict) else {}
        ids = value.get("memory_ids") or []
    query, top_k = asked.get("query"), asked.get("top_k", 10)
    if not isinstance(query, str) or not query.strip():
        raise Discard(f"content of an {message.label!r} message has no search_req.query; give a text")
    if not isinstance(top_k, int) or top_k < 1:
        raise Discard(f"search_req.top_k={top_k!r} must be a number of at least 1")
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise Discard(f"memory_ids={ids!r:.80} must be a list of memory ids")
    session = asked.get("session_id") or message.session_id
    return MixSearch(
        query[:QUERY_CHARS_MAX], str(session or ""), min(top_k, TOP_K_MAX), tuple(ids[:IDS_KEPT_MAX])
    )


def _search(ctx: HandlerContext, message: ScheduleMessageItem) -> None:
    services, cube_id, user_id = ctx.services, message.mem_cube_id, message.user_id
    wanted = search_of(message)
    monitor = services.searches
    before = monitor.read(services.store, cube_id, user_id)
    hits = fine_recall(ctx, message, wanted, before)
    found = [item.id for item in present(services.store, wanted.found_ids) if item.cube_id == cube_id]
    # The fast recall's own order first: it was ranked by more than how well the words fit.
    ids = list(dict.fromkeys([*found, *(hit.item.id for hit in hits)]))
    after = monitor.extended(before, wanted.query, wanted.session_id, ids, services.clock.now())
    ctx.apply(message, [monitor.change(cube_id, user_id, after)])
    logger.info("mix_search.done", fast=len(found), fine=len(hits))


def fine_recall(
    ctx: HandlerContext, message: ScheduleMessageItem, wanted: MixSearch, history: SearchHistory
) -> list[Hit]:
    """What the query finds by its own words and by those that belong to it, best fit first."""

    def search(text: str) -> Sequence[Hit]:
        return ctx.services.retriever.search(
            RecallRequest(
                query=text[:QUERY_CHARS_MAX],
                cube_ids=(message.mem_cube_id,),
                user_id=message.user_id,
                top_k=min(DEPTH * wanted.top_k, IDS_KEPT_MAX),
                session_id=wanted.session_id,
                dedup="sim",
                candidates_max=CANDIDATES_MAX,
            )
        ).hits

    own = search(wanted.query)
    recalls = [(1.0, own)]
    recalls += [(FURTHER_WEIGHT, search(text)) for text in further(ctx, wanted, own, history)]
    return best_of(recalls)[:IDS_KEPT_MAX]


def further(ctx: HandlerContext, wanted: MixSearch, own: Sequence[Hit], history: SearchHistory) -> list[str]:
    """The other searches: gaps, the names that the first hits bring, what a follow-up leans on."""
    texts = [gap for gap in ctx.services.intent.gaps(wanted.query) if gap != wanted.query]
    asked = frozenset(analyse(wanted.query))
    names = dict.fromkeys(
        name for hit in own[:NAMES_OF_HITS] for name in hit.item.links if not asked & frozenset(analyse(name))
    )
    if names:
        texts.append(f"{wanted.query} {' '.join(list(names)[:NAMES_MAX])}")
    earlier = history.queries(wanted.session_id, ctx.services.searches.turns)
    if earlier and leans_on_earlier(wanted.query):
        texts.append(f"{earlier[0]} {wanted.query}")
    return texts
