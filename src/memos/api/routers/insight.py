"""Routes for who looks at a server: who asks, the cubes, the load, and working memory turn by turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query

from memos.api.errors import EnvelopeRoute
from memos.api.handlers import Handlers
from memos.api.handlers.insight import PAGE_MAX as CUBES_MAX
from memos.api.handlers.working import PAGE_MAX
from memos.api.insight_models import CubesResponse, LoadResponse, MeResponse, WorkingHistoryResponse

NUMBER_MAX = 2**63 - 1  # of a journal row, or a sequence number


def insight_router(handlers: Callable[[], Handlers]) -> APIRouter:
    """The routes over whatever `handlers` returns at the time of a request."""
    router = APIRouter(tags=["insight"], route_class=EnvelopeRoute)

    @router.get("/me", response_model=MeResponse)
    def me() -> MeResponse:
        """The role and the scope of the key that this request carries."""
        return handlers().insight.handle_me()

    @router.get("/cubes", response_model=CubesResponse)
    def cubes(
        limit: Annotated[int, Query(ge=1, le=CUBES_MAX)] = 100,
        after: Annotated[str, Query(max_length=1_000)] = "",
    ) -> CubesResponse:
        """The cubes of the key's scope with what they hold, by name, in pages."""
        return handlers().insight.handle_cubes(limit=limit, after=after)

    @router.get("/load", response_model=LoadResponse)
    def load() -> LoadResponse:
        """Workers, queue and caches of this process: counts without any name."""
        return handlers().insight.handle_load()

    @router.get("/working_memory/history", response_model=WorkingHistoryResponse)
    def working_history(
        mem_cube_id: str,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 20,
        before: Annotated[int | None, Query(ge=1, le=NUMBER_MAX)] = None,
        known_seq: Annotated[int | None, Query(ge=0, le=NUMBER_MAX)] = None,
    ) -> WorkingHistoryResponse:
        """What stands in working memory and why, and what each replacement brought and took, newest first."""
        return handlers().working.handle_history(mem_cube_id, limit=limit, before=before, known_seq=known_seq)

    return router
