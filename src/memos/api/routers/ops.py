"""Routes for who runs the server: /health, /ready, /health/memory and /metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from memos.api import readiness
from memos.api.errors import ERRORS, EnvelopeRoute
from memos.api.metrics_page import CONTENT_TYPE, MetricsPage
from memos.api.model_base import CUBES_MAX, BaseResponse
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.runtime import Runtime


def ops_router(runtime: Runtime) -> APIRouter:
    """The routes over one runtime."""
    router = APIRouter(tags=["operations"], route_class=EnvelopeRoute)
    page = MetricsPage(runtime)

    @router.get("/health", responses={503: ERRORS[503]})
    def health() -> dict[str, Any]:
        """Whether the process answers, its store can be read and its scheduler runs."""
        return readiness.health(runtime)

    @router.get("/ready", responses={503: {"description": "a part does not work", "model": dict[str, Any]}})
    def ready() -> JSONResponse:
        """Whether every part that requests need works; 503 names the one that does not."""
        is_ready, checks = readiness.ready(runtime)
        body = {"status": "ready" if is_ready else "not ready", "checks": checks}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    @router.get("/health/memory", response_model=BaseResponse[dict[str, Any]], responses=ERRORS)
    def health_of_memory(
        mem_cube_id: Annotated[list[str] | None, Query(max_length=CUBES_MAX)] = None,
    ) -> BaseResponse[dict[str, Any]]:
        """Duplicates, stale and never recalled memories, fill and what waits; of cubes, or of all for admins."""
        cubes = [check_id("mem_cube_id", one) for one in mem_cube_id or ()]
        return BaseResponse[dict[str, Any]](data=readiness.memory_health(runtime, cubes))

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        """Counters, histograms and levels of this process, as Prometheus reads them."""
        return Response(page.text(), media_type=CONTENT_TYPE)

    return router
