"""What is measured: conversations go in, rankings of turns come out.

`PublicPath` is the whole system through the documented handlers, as a user of the API meets it.
`WeightedPath` asks the same store with other recall weights (for cross-validation). Both name the turn
behind a hit by the `message_id` that went in with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memos.errors import MemosError

if TYPE_CHECKING:
    from memos.api.handlers import Handlers
    from memos.memory.store import MemoryStore
    from memos.models.base import Embedder
    from memos.retrieval.weights import RecallWeights
    from memos.runtime import Runtime

USER_ID = "evaluation"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation. `at` is the date as the data set writes it."""

    message_id: str
    session_id: str
    role: str
    name: str
    text: str
    at: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """The distinct turns behind the hits, best first, and what the search took."""

    message_ids: tuple[str, ...]
    cpu_ms: float
    wall_ms: float


class PublicPath:
    """The documented handlers over a runtime."""

    def __init__(self, runtime: Runtime) -> None:
        from memos.api.handlers import handlers_of

        self._handlers: Handlers = handlers_of(runtime)

    def add(self, cube_id: str, turns: Sequence[Turn]) -> None:
        """Store turns of one session; they can be found when this returns."""
        from memos.api.product_models import APIADDRequest

        request = APIADDRequest(
            user_id=USER_ID,
            writable_cube_ids=[cube_id],
            session_id=turns[0].session_id,
            messages=[
                {
                    "role": turn.role,
                    "name": turn.name,
                    "content": turn.text,
                    "chat_time": turn.at,
                    "message_id": turn.message_id,
                }
                for turn in turns
            ],
        )
        response = self._handlers.add.handle_add_memories(request)
        if response.skipped:
            raise MemosError(
                f"{len(response.skipped)} of {len(turns)} turns were not stored: {response.skipped[0]}"
            )

    def search(self, cube_id: str, query: str, *, top_k: int | None) -> Ranking:
        """Rank for a query: `top_k` hits without cut and dedup, or with None as the defaults have it."""
        from memos.api.product_models import APISearchRequest

        asked: dict[str, Any] = {"user_id": USER_ID, "readable_cube_ids": [cube_id], "query": query}
        if top_k is not None:
            asked |= {"top_k": top_k, "relativity": 0.0, "dedup": "no"}
        wall, cpu = time.perf_counter(), time.process_time()
        response = self._handlers.search.handle_search_memories(APISearchRequest(**asked))
        cpu_ms, wall_ms = 1_000 * (time.process_time() - cpu), 1_000 * (time.perf_counter() - wall)
        data: Mapping[str, Any] = response.data or {}
        memories = [memory for bucket in data["text_mem"] for memory in bucket["memories"]]
        ids = _distinct(_first_named(memory["metadata"]["sources"]) for memory in memories)
        return Ranking(ids, cpu_ms, wall_ms)


def _first_named(sources: Sequence[Mapping[str, Any]]) -> str:
    return next((source["message_id"] for source in sources if source.get("message_id")), "")


class WeightedPath:
    """Recall with given weights over a store that `PublicPath` has filled."""

    def __init__(
        self,
        store: MemoryStore,
        embedder: Embedder | None,
        weights: RecallWeights,
        *,
        stages: Sequence[str] = (),
    ) -> None:
        from memos.retrieval.hybrid import HybridRetriever

        self._retriever = HybridRetriever(store, embedder, weights=weights, stages=stages)

    def search(self, cube_id: str, query: str, *, top_k: int | None) -> Ranking:
        """As `PublicPath.search`."""
        from memos.api.product_models import APISearchRequest
        from memos.retrieval.request import RecallRequest

        if top_k is None:
            plain = APISearchRequest(user_id=USER_ID, query=query)
            top_k, relativity, dedup = plain.top_k, plain.relativity, plain.dedup or "no"
        else:
            relativity, dedup = 0.0, "no"
        request = RecallRequest(
            query=query,
            cube_ids=(cube_id,),
            user_id=USER_ID,
            top_k=top_k,
            relativity=relativity,
            dedup=dedup,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        hits = self._retriever.search(request).hits
        cpu_ms, wall_ms = 1_000 * (time.process_time() - cpu), 1_000 * (time.perf_counter() - wall)
        ids = _distinct(next((s.message_id for s in hit.item.sources if s.message_id), "") for hit in hits)
        return Ranking(ids, cpu_ms, wall_ms)


def _distinct(turns: Iterable[str]) -> tuple[str, ...]:
    """Each hit stands for one turn, the first that it names; several hits of one turn count once."""
    return tuple(dict.fromkeys(turn or f"unnamed {place}" for place, turn in enumerate(turns)))
