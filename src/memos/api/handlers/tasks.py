"""TaskHandler: what the scheduler is doing, and what became of what it was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from memos.api import access
from memos.api.product_models import (
    AllStatusResponse,
    StatusResponse,
    TaskQueueResponse,
    TaskStatusRow,
    TaskSummary,
)
from memos.clock import Clock
from memos.mem_scheduler.queues.base import LaneDepth, QueueDepth, TaskQueue
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.utils.status_tracker import TaskStatusTracker

_SHOWN = {
    TaskState.WAITING: "waiting",
    TaskState.IN_PROGRESS: "in_progress",
    TaskState.RETRYING: "pending",
    TaskState.COMPLETED: "completed",
    TaskState.FAILED: "failed",
    TaskState.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class Activity:
    """What a user has in the queue: `remaining` waits (queued, delayed, parked), `running` is leased."""

    remaining: int
    running: int

    @property
    def total(self) -> int:
        return self.remaining + self.running


class TaskHandler:
    """Answers about tasks. Thread-safe; reads only."""

    def __init__(self, *, queue: TaskQueue, tracker: TaskStatusTracker, clock: Clock) -> None:
        self._queue = queue
        self._tracker = tracker
        self._clock = clock

    def handle_all_status(self) -> AllStatusResponse:
        """Counts of tasks by state: `scheduler_summary` of what the queue holds now (failed: its dead
        letters), `all_tasks_summary` of everything whose outcome it still remembers."""
        counts = Counter(_SHOWN[status.state] for status in self._queue.statuses())
        depth = self._queue.depth(lanes=False)
        now = {
            "waiting": depth.queued + depth.parked,
            "in_progress": depth.running,
            "pending": depth.delayed,
            "failed": depth.dead,
        }
        return AllStatusResponse(
            message="Scheduler status summary retrieved successfully",
            data={"scheduler_summary": _summary(now), "all_tasks_summary": _summary(counts)},
        )

    def task_states(self, user_id: str, task_id: str | None) -> StatusResponse | None:
        """The state of a business task or of an item, or of all tasks of a user; None: unknown."""
        access.may_read(users=[check_id("user_id", user_id)])
        if task_id is None:
            known = self._tracker.get_all_tasks_for_user(user_id)
            rows = [
                TaskStatusRow(task_id=item_id, status=fields["status"]) for item_id, fields in known.items()
            ]
            return StatusResponse(message="Memory get status successfully", data=rows)
        found: dict[str, Any] | None = self._tracker.get_task_status_by_business_id(task_id, user_id)
        if found is None:
            found = self._tracker.get_task_status(task_id, user_id)
        if found is None:
            return None
        return StatusResponse(
            message="Memory get status successfully", data=[{"task_id": task_id, "status": found["status"]}]
        )

    def handle_task_queue(self, user_id: str) -> TaskQueueResponse:
        """The lanes of a user. `pending` is taken by a worker, `remaining` is not, as on Redis Streams."""
        access.may_read(users=[check_id("user_id", user_id)])
        depth = self._queue.depth()
        lanes = [lane for lane in depth.lanes if lane.lane.user_id == user_id]
        pending = {str(lane.lane): _running(lane) for lane in lanes}
        remaining = {str(lane.lane): _remaining(lane) for lane in lanes}
        return TaskQueueResponse(
            message="Task queue status retrieved successfully",
            data={
                "user_id": user_id,
                "user_name": user_id,
                "mem_cube_id": None,
                "stream_keys": list(pending),
                "users_count": len({lane.lane.user_id for lane in depth.lanes}),
                "pending_tasks_count": sum(pending.values()),
                "remaining_tasks_count": sum(remaining.values()),
                "pending_tasks_detail": [f"{lane}:{n}" for lane, n in pending.items() if n],
                "remaining_tasks_detail": [f"{lane}:{n}" for lane, n in remaining.items() if n],
            },
        )

    def activity(self, user_id: str) -> Activity:
        """What the user has in the queue right now."""
        access.may_read(users=[check_id("user_name", user_id)])
        return _activity(self._queue.depth(), user_id)

    async def watch(
        self, user_id: str, *, timeout_s: float, poll_s: float
    ) -> AsyncIterator[tuple[Activity, float, str]]:
        """(activity, seconds waited, "running" | "idle" | "timeout") until idle or out of time.

        Holds a worker thread for the length of a look, not of the wait: any number may watch at once.
        """
        import anyio  # comes with FastAPI, which importing this module must not load
        import anyio.to_thread

        started = self._clock.monotonic()
        while True:
            seen = await anyio.to_thread.run_sync(self.activity, user_id)
            waited = self._clock.monotonic() - started
            if not seen.total:
                yield seen, waited, "idle"
                return
            if waited >= timeout_s:
                yield seen, waited, "timeout"
                return
            yield seen, waited, "running"
            await anyio.sleep(min(poll_s, timeout_s - waited))


def _summary(counts: dict[str, int] | Counter[str]) -> TaskSummary:
    shown = {name: counts.get(name, 0) for name in _SHOWN.values()}
    return TaskSummary(
        waiting=shown["waiting"],
        in_progress=shown["in_progress"],
        pending=shown["pending"],
        completed=shown["completed"],
        failed=shown["failed"],
        cancelled=shown["cancelled"],
        total=sum(shown.values()),
    )


def _activity(depth: QueueDepth, user_id: str) -> Activity:
    lanes = [lane for lane in depth.lanes if lane.lane.user_id == user_id]
    return Activity(sum(map(_remaining, lanes)), sum(map(_running, lanes)))


def _running(lane: LaneDepth) -> int:
    return sum(lane.running.values())


def _remaining(lane: LaneDepth) -> int:
    return sum(lane.queued.values()) + sum(lane.delayed.values()) + sum(lane.parked.values())
