"""`OptimizedScheduler`: the general scheduler under the name that servers use by default.

It adds the mixture search: a fast recall now, joined with what fine recall found for this user's earlier
searches in the cube (the history window), and a task that runs the fine recall for this one. The window
stands in the store, so it works without Redis.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol
from uuid import uuid4

from memos import context
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, UserContext
from memos.mem_scheduler.schemas.task_schemas import API_MIX_SEARCH_TASK_LABEL
from memos.memory.store import ItemFilter
from memos.memory.textual import TextualMemoryItem
from memos.retrieval.mixing import best_of, joined, leans_on_earlier
from memos.retrieval.request import QUERY_CHARS_MAX, TOP_K_MAX, Hit, Recall, RecallRequest

WINDOW_IDS_MAX = 300


class SearchAsked(Protocol):
    """What is read of a search request of the API."""

    @property
    def query(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def top_k(self) -> int: ...
    @property
    def relativity(self) -> float: ...
    @property
    def session_id(self) -> str | None: ...


class OptimizedScheduler(GeneralScheduler):
    """See the module docstring."""

    def mix_search_memories(
        self, search_req: SearchAsked, user_context: UserContext | None = None
    ) -> list[TextualMemoryItem]:
        """The mixture search for a request: the result now, and the task for the next one queued.

        The cubes are those of `user_context`, else the one named like the user. Raises InvalidInput,
        StoreError, QueueError.
        """
        cubes = _cubes(search_req, user_context)
        recall = self.mix_recall(
            RecallRequest(
                query=search_req.query,
                cube_ids=cubes,
                user_id=search_req.user_id,
                top_k=search_req.top_k,
                relativity=search_req.relativity,
                session_id=search_req.session_id or "",
            )
        )
        items = [TextualMemoryItem.from_item(hit.item, relativity=hit.relativity) for hit in recall.hits]
        self.submit_memory_history_async_task(search_req, user_context, items)
        return items

    def mix_recall(self, request: RecallRequest) -> Recall:
        """A fast recall joined with what the history window holds for this question. Changes nothing."""
        fast = self.services.retriever.search(request)
        more = [hit for cube_id in request.cube_ids for hit in self._window(cube_id, request)]
        hits = joined(fast.hits, more, top_k=request.top_k, how=request.dedup)
        return replace(fast, hits=tuple(hits))

    def _window(self, cube_id: str, request: RecallRequest) -> list[Hit]:
        """The memories of the window that fit this question, under all limits of the request."""
        services = self.services
        history = services.searches.read(services.store, cube_id, request.user_id)
        wanted = request.filter or ItemFilter()
        ids = tuple(one for one in history.ids() if not wanted.ids or one in wanted.ids)[:WINDOW_IDS_MAX]
        if not ids:
            return []
        texts = [request.query]
        earlier = history.queries(request.session_id, services.searches.turns)
        if earlier and leans_on_earlier(request.query):
            texts.append(f"{earlier[0]} {request.query}"[:QUERY_CHARS_MAX])
        recalls = [
            services.retriever.search(
                replace(
                    request,
                    query=text,
                    cube_ids=(cube_id,),
                    filter=replace(wanted, ids=ids),
                    top_k=min(len(ids), TOP_K_MAX),
                    dedup="no",
                )
            )
            for text in texts
        ]
        return best_of((1.0, recall.hits) for recall in recalls)

    def submit_memory_history_async_task(
        self,
        search_req: SearchAsked,
        user_context: UserContext | None = None,
        memories_to_store: Sequence[TextualMemoryItem] | None = None,
        session_id: str | None = None,
    ) -> str:
        """Queue the fine recall of a search, one message a cube, and return the id of their task.

        memories_to_store: what the fast recall found. Raises QueueError.
        """
        task_id = f"mix_search_{search_req.user_id}_{uuid4()}"
        session = session_id or search_req.session_id or ""
        asked = {"query": search_req.query, "top_k": search_req.top_k, "session_id": session}
        found = [one.id for one in memories_to_store or ()]
        self.submit_messages(
            [
                ScheduleMessageItem(
                    item_id=str(uuid4()),
                    user_id=search_req.user_id,
                    mem_cube_id=cube_id,
                    session_id=session,
                    task_id=task_id,
                    label=API_MIX_SEARCH_TASK_LABEL,
                    content=json.dumps({"search_req": asked, "memory_ids": found}, ensure_ascii=False),
                    user_context=user_context,
                    trace_id=context.current_trace_id(),
                )
                for cube_id in _cubes(search_req, user_context)
            ]
        )
        return task_id


def _cubes(search_req: SearchAsked, user_context: UserContext | None) -> tuple[str, ...]:
    if user_context is not None:
        named = user_context.readable_cube_ids or (
            [user_context.mem_cube_id] if user_context.mem_cube_id else []
        )
        if named:
            return tuple(dict.fromkeys(named))
    return (search_req.user_id,)
