"""SearchHandler: hybrid recall over the readable cubes, in the documented buckets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memos.api import access
from memos.api.handlers.base_handler import BaseHandler, HandlerDependencies, cubes_of
from memos.api.handlers.freshness import FreshnessReader, wanted_seqs
from memos.api.product_models import APISearchRequest, SearchMode, SearchResponse
from memos.api.shapes import buckets, memory_shape
from memos.api.without_effect import warnings_of
from memos.errors import InvalidInput, QueueError
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.optimized_scheduler import OptimizedScheduler
from memos.mem_scheduler.schemas.message_schemas import UserContext
from memos.memory.item import MemoryKind
from memos.memory.moments import parse_moment
from memos.memory.sentences import sentences
from memos.memory.store import ItemFilter, MemoryStore
from memos.memory.textual import TextualMemoryItem
from memos.retrieval.dedup import dedup
from memos.retrieval.filters import parse_filter
from memos.retrieval.request import TOP_K_MAX, Hit, Recall, RecallRequest

if TYPE_CHECKING:
    from memos.retrieval.hybrid import HybridRetriever

_TEXT_KINDS = (MemoryKind.LONG_TERM, MemoryKind.USER, MemoryKind.WORKING)
_KINDS_OF_TYPE: dict[str, tuple[MemoryKind, ...]] = {
    "all": (),
    "longtermmemory": (MemoryKind.LONG_TERM, MemoryKind.WORKING),
    "usermemory": (MemoryKind.USER,),
    "preferencememory": (MemoryKind.PREFERENCE,),
}


class SearchHandler(BaseHandler):
    """The documented entry: `handle_search_memories`."""

    def __init__(
        self, dependencies: HandlerDependencies, *, freshness: FreshnessReader | None = None
    ) -> None:
        super().__init__(dependencies)
        self._validate_dependencies("naive_mem_cube", "searcher", "graph_db", "api_module")
        self._freshness = freshness

    async def wait(self, search_req: APISearchRequest) -> int:
        """Wait for `min_seq`, holding no thread; the milliseconds that it took.

        Raises AccessDenied, InvalidInput, StoreError.
        """
        _, wanted = _allowed(search_req)
        if self._freshness is None or not wanted or not search_req.wait_ms:
            return 0
        return await self._freshness.wait_async(wanted, wait_ms=search_req.wait_ms)

    def handle_search_memories(
        self, search_req: APISearchRequest, waited_ms: int | None = None
    ) -> SearchResponse:
        """Recall for the query; None for `waited_ms`: wait for `min_seq` first, in this thread.

        An unknown cube is an empty one. Raises AccessDenied, InvalidInput, StoreError.
        """
        cubes, wanted_seq = _allowed(search_req)
        if waited_ms is None:
            waited_ms = 0
            if self._freshness is not None and wanted_seq and search_req.wait_ms:
                waited_ms = self._freshness.wait(wanted_seq, wait_ms=search_req.wait_ms)
        store: MemoryStore = self.deps.graph_db
        with_preferences = tuple(cube for cube in cubes if store.sizes(cube).preference)
        _, request = request_of(search_req, store)
        if with_preferences and not request.kinds:  # they have a bucket and a top_k of their own
            request = replace(request, kinds=_TEXT_KINDS)
        retriever: HybridRetriever = self.deps.api_module
        preferences: list[Hit] = []
        if with_preferences and search_req.include_preference and search_req.pref_top_k:
            wanted = replace(
                request,
                cube_ids=with_preferences,
                kinds=(MemoryKind.PREFERENCE,),
                top_k=search_req.pref_top_k,
                # "The user prefers tea" is about its owner, not about who else may read the cube.
                filter=(request.filter or ItemFilter()).of_user(search_req.user_id),
            )
            preferences = list(retriever.search(wanted).hits)
        said = _not_served(search_req)
        further = replace(request, top_k=min(TOP_K_MAX, request.top_k + len(preferences)))
        if search_req.mode is SearchMode.MIXTURE:
            recall, refused = self._mixture(search_req, further)
            said += refused
        else:
            recall = retriever.search(further)
        texts = [hit for hit in recall.hits if not _is_preference(hit)]
        if request.dedup != "no":
            texts = _without_told(texts, preferences)
        return SearchResponse(
            message="Search completed successfully",
            data=buckets(
                text_mem=_by_cube(cubes, texts[: request.top_k]),
                pref_mem=_by_cube(cubes, preferences),
            ),
            seqs=dict(recall.seqs),
            freshness=self._freshness.of(recall.seqs, wanted_seq, waited_ms=waited_ms)
            if self._freshness is not None
            else {},
            degraded=[*recall.degraded, *said],
            warnings=warnings_of(search_req),
        )

    def _mixture(self, asked: APISearchRequest, request: RecallRequest) -> tuple[Recall, list[str]]:
        """Fast recall joined with the history window, and the task of the fine recall queued."""
        scheduler: GeneralScheduler = self.deps.mem_scheduler
        if not isinstance(scheduler, OptimizedScheduler):
            retriever: HybridRetriever = self.deps.api_module
            return retriever.search(request), [
                "mode 'mixture' needs the optimized scheduler: searched as 'fast'"
            ]
        recall = scheduler.mix_recall(request)
        items = [TextualMemoryItem.from_item(hit.item) for hit in recall.hits]
        try:
            scheduler.submit_memory_history_async_task(
                asked, UserContext(user_id=asked.user_id, readable_cube_ids=list(request.cube_ids)), items
            )
        except QueueError as error:  # the answer does not depend on it
            return recall, [f"the fine recall is not queued: {error}"]
        return recall, []


def request_of(asked: APISearchRequest, store: MemoryStore) -> tuple[tuple[str, ...], RecallRequest]:
    """The cubes of a search and the recall that it means. Raises InvalidInput."""
    cubes = cubes_of(asked.readable_cube_ids, asked.mem_cube_id, asked.user_id)
    parsed = parse_filter(asked.filter)
    wanted = parsed.wanted if asked.filter else None
    kinds = _KINDS_OF_TYPE.get(asked.search_memory_type.casefold())
    if asked.search_memory_type.casefold() == "workingmemory":
        ids = tuple(entry.item_id for cube in cubes for entry in store.working(cube).entries)
        wanted = replace(wanted or ItemFilter(), ids=ids or ("",))
    elif kinds is None:
        raise InvalidInput(
            f"search_memory_type {asked.search_memory_type!r} is unknown; "
            "there are All, LongTermMemory, UserMemory, PreferenceMemory and WorkingMemory"
        )
    now, valid_at, known_at = (
        parse_moment(value, field=name) if value else None
        for name, value in (
            ("reference_time", asked.reference_time),
            ("valid_at", asked.valid_at),
            ("known_at", asked.known_at),
        )
    )
    return cubes, RecallRequest(
        query=asked.query,
        cube_ids=cubes,
        user_id=asked.user_id,
        top_k=asked.top_k,
        relativity=asked.relativity,
        session_id=asked.session_id or "",
        kinds=kinds or (),
        filter=wanted,
        predicate=parsed.predicate,
        dedup=asked.dedup or "no",
        reference_time=now,
        valid_at=valid_at,
        known_at=known_at,
        stages=tuple(asked.stages or ()),
    )


def _allowed(asked: APISearchRequest) -> tuple[tuple[str, ...], dict[str, int]]:
    """The cubes to read and what is asked of them. Raises AccessDenied, InvalidInput."""
    cubes = cubes_of(asked.readable_cube_ids, asked.mem_cube_id, asked.user_id)
    access.may_read(users=[asked.user_id], cubes=cubes)
    return cubes, wanted_seqs(asked.min_seq, cubes)


def _is_preference(hit: Hit) -> bool:
    return hit.item.kind is MemoryKind.PREFERENCE


def _without_told(texts: list[Hit], preferences: list[Hit]) -> list[Hit]:
    """The texts but those that a preference of the answer says: one fact is one hit, of whatever kind.

    A turn that says more than the preference read from it stays.
    """
    if not preferences:
        return texts
    together = [*preferences, *texts]
    kept = {hit.item.id for hit in dedup(together, how="sim", top_k=len(together))}
    return [
        hit for hit in texts if hit.item.id in kept or (hit.item.raw and len(sentences(hit.item.memory)) > 1)
    ]


def _by_cube(cubes: tuple[str, ...], hits: list[Hit]) -> list[dict[str, Any]]:
    return [
        {
            "cube_id": cube,
            "memories": [
                memory_shape(hit.item, relativity=hit.relativity, ways=hit.ways)
                for hit in hits
                if hit.item.cube_id == cube
            ],
        }
        for cube in cubes
    ]


def _not_served(asked: APISearchRequest) -> list[str]:
    said = ["internet search is not part of this server"] if asked.internet_search else []
    if asked.mode is SearchMode.FINE:
        said.append(f"mode {asked.mode.value!r} runs the same recall as 'fast' here")
    return said
