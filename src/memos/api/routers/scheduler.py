"""The routes below /product/scheduler: what is queued, what became of tasks, and waiting for them.

The answers are those of the queue itself, the same on every backend: nothing is called idle that is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query
from fastapi.responses import StreamingResponse

from memos.api import access
from memos.api.errors import ERRORS, EnvelopeRoute
from memos.api.handlers import Handlers
from memos.api.handlers.dead import PAGE_MAX as LETTERS_MAX
from memos.api.handlers.logs import PAGE_MAX, LogHandler, LogQuery, allowed
from memos.api.handlers.tasks import TaskHandler
from memos.api.log_models import LogsResponse
from memos.api.product_models import (
    AllStatusResponse,
    StatusResponse,
    TaskQueueResponse,
    Waited,
    WaitResponse,
)
from memos.api.queue_models import (
    DeadHandledResponse,
    DeadKeysRequest,
    DeadResponse,
    LatencyResponse,
    QueueResponse,
)
from memos.api.sse import HEADERS, MEDIA_TYPE, frame
from memos.api.streams import STREAM
from memos.mem_scheduler.schemas.message_schemas import check_id

PREFIX = "/scheduler"  # below /product
TIMEOUT_S_MAX = 3_600.0
NUMBER_MAX = 2**63 - 1  # of a log

Timeout = Annotated[float, Query(ge=0, le=TIMEOUT_S_MAX)]
Poll = Annotated[float, Query(ge=0.02, le=60)]


def scheduler_router(handlers: Callable[[], Handlers], *, instance_id: str) -> APIRouter:
    """The routes over whatever `handlers` returns at the time of a request."""
    router = APIRouter(prefix=PREFIX, tags=["scheduler"], route_class=EnvelopeRoute, responses=ERRORS)
    router.include_router(_queue(handlers))

    @router.get("/allstatus", response_model=AllStatusResponse)
    def all_status() -> AllStatusResponse:
        """Counts of tasks by state: what the queue holds now, and all that it remembers."""
        return handlers().tasks.handle_all_status()

    @router.get("/status", response_model=StatusResponse)
    def status(user_id: str, task_id: str | None = None) -> StatusResponse:
        """The state of a business task, else of an item of that id; without an id all of the user's."""
        found = handlers().tasks.task_states(user_id, task_id)
        if found is None:
            raise HTTPException(404, f"no task {task_id!r} of user {user_id!r} is known")
        return found

    @router.get("/task_queue_status", response_model=TaskQueueResponse)
    def task_queue_status(user_id: str) -> TaskQueueResponse:
        """What a user has in the queue, lane by lane."""
        return handlers().tasks.handle_task_queue(user_id)

    @router.post("/wait", response_model=WaitResponse)
    async def wait(
        user_name: str, timeout_seconds: Timeout = 120.0, poll_interval: Poll = 0.5
    ) -> WaitResponse:
        """Answer when the user has nothing left in the queue, or when the time is over."""
        looks = handlers().tasks.watch(user_name, timeout_s=timeout_seconds, poll_s=poll_interval)
        async for look in looks:
            seen, waited, outcome = look
        return WaitResponse(
            message=outcome,
            data=Waited(
                running_tasks=seen.total,
                waited_seconds=round(waited, 3),
                timed_out=outcome == "timeout",
                user_name=user_name,
            ),
        )

    @router.get("/logs", response_model=LogsResponse)
    def logs(
        user_id: str | None = None,
        mem_cube_id: str | None = None,
        label: str | None = None,
        trace_id: str | None = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
        before: Annotated[int | None, Query(ge=1, le=NUMBER_MAX)] = None,
    ) -> LogsResponse:
        """What the scheduler did to memory and why, newest first; of every user for admins only."""
        asked = LogQuery(user_id, mem_cube_id, label, trace_id)
        return handlers().logs.handle_logs(asked, limit=limit, before=before)

    @router.get("/logs/stream", response_class=StreamingResponse, responses=STREAM)
    def logs_stream(
        user_id: str | None = None,
        mem_cube_id: str | None = None,
        label: str | None = None,
        trace_id: str | None = None,
        after: Annotated[int | None, Query(ge=0, le=NUMBER_MAX)] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """The same as it happens, from now on or after a number; a browser goes on where it was cut off."""
        found = handlers().logs
        asked = LogQuery(user_id, mem_cube_id, label, trace_id)
        allowed(asked)  # while it can still be refused: a stream has begun with a 200
        seen = int(last_event_id) if last_event_id and last_event_id.isdecimal() else after
        frames = _log_frames(found, asked, found.newest() if seen is None else min(seen, NUMBER_MAX))
        return StreamingResponse(frames, media_type=MEDIA_TYPE, headers=HEADERS)

    @router.get("/wait/stream", response_class=StreamingResponse, responses=STREAM)
    async def wait_stream(
        user_name: str, timeout_seconds: Timeout = 120.0, poll_interval: Poll = 0.5
    ) -> StreamingResponse:
        """The same as a stream: one frame a look, the last one idle or timeout."""
        tasks = handlers().tasks
        # While it can still be refused: a stream has begun with a 200.
        access.may_read(users=[check_id("user_name", user_name)])
        frames = _looks(tasks, user_name, timeout_seconds, poll_interval, instance_id)
        return StreamingResponse(frames, media_type=MEDIA_TYPE, headers=HEADERS)

    return router


def _queue(handlers: Callable[[], Handlers]) -> APIRouter:
    router = APIRouter(tags=["scheduler"], route_class=EnvelopeRoute)

    @router.get("/queue", response_model=QueueResponse)
    def queue(user_id: str | None = None, mem_cube_id: str | None = None) -> QueueResponse:
        """What the queue holds now, label by label and lane by lane, within the scope of the key."""
        return handlers().queue.handle_queue(user_id=user_id, cube_id=mem_cube_id)

    @router.get("/latency", response_model=LatencyResponse)
    def latency(
        minutes: Annotated[float, Query(ge=1, le=1_440)] = 15.0,
        user_id: str | None = None,
        mem_cube_id: str | None = None,
    ) -> LatencyResponse:
        """How long tasks waited and ran over the last minutes: p50 and p95 by label, step by step."""
        return handlers().queue.handle_latency(minutes=minutes, user_id=user_id, cube_id=mem_cube_id)

    @router.get("/dead", response_model=DeadResponse)
    def dead(
        label: str | None = None,
        user_id: str | None = None,
        mem_cube_id: str | None = None,
        limit: Annotated[int, Query(ge=1, le=LETTERS_MAX)] = 50,
    ) -> DeadResponse:
        """The messages that were given up, newest first, each with its content and its error."""
        return handlers().dead.handle_list(label=label, user_id=user_id, cube_id=mem_cube_id, limit=limit)

    @router.post("/dead/retry", response_model=DeadHandledResponse)
    def retry_dead(request: DeadKeysRequest) -> DeadHandledResponse:
        """Queue dead letters again, with fresh budgets; needs a key that writes."""
        return handlers().dead.handle_retry(request.keys)

    @router.post("/dead/purge", response_model=DeadHandledResponse)
    def purge_dead(request: DeadKeysRequest) -> DeadHandledResponse:
        """Drop dead letters for good; needs a key that writes."""
        return handlers().dead.handle_purge(request.keys)

    return router


async def _log_frames(logs: LogHandler, asked: LogQuery, after: int) -> AsyncIterator[str]:
    with logs.stream_place():
        yield ": open\n\n"
        async for row in logs.follow(asked, after=after):
            yield ": still here\n\n" if row is None else f"id: {row['number']}\n{frame(dict(row))}"


async def _looks(
    tasks: TaskHandler, user_name: str, timeout_s: float, poll_s: float, instance_id: str
) -> AsyncIterator[str]:
    async for seen, waited, outcome in tasks.watch(user_name, timeout_s=timeout_s, poll_s=poll_s):
        yield frame(
            {
                "user_name": user_name,
                "active_tasks": seen.total,
                "elapsed_seconds": round(waited, 3),
                "status": outcome,
                "timed_out": outcome == "timeout",
                "instance_id": instance_id,
            }
        )
