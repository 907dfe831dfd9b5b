"""The documented `TaskStatusTracker`: what became of tasks, by item, by business task, for everybody.

The queue's state is the status. A tracker that is given the queue answers from it; its write methods are
for users' own programs. What those write stands on Redis where a client is given, for all processes, else
in a bounded table of this process (`status_entries`), and is merged in: where the queue knows an item, the
queue is right. Several messages may share an `item_id` (documented code chains copies): their state is
then that of a business task.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from memos.clock import utc
from memos.mem_scheduler.queues.base import TaskQueue, TaskStatus
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.status_entries import ENTRIES_MAX, PREFIX, MemoryEntries, RedisEntries, StatusEntries

__all__ = ["ENTRIES_MAX", "TaskStatusTracker", "business_state", "item_status"]


def business_state(states: Sequence[TaskState]) -> TaskState:
    """The state of several messages as one task: the documented rule, cancelled placed.

    One failed: failed. One still to run or running: in progress. Otherwise completed; cancelled only
    where all are.
    """
    distinct = set(states)
    if TaskState.FAILED in distinct:
        return TaskState.FAILED
    if not distinct <= {TaskState.COMPLETED, TaskState.CANCELLED}:
        return TaskState.IN_PROGRESS
    return TaskState.CANCELLED if distinct == {TaskState.CANCELLED} else TaskState.COMPLETED


class TaskStatusTracker:
    """Thread-safe. `redis_client` is a synchronous client of redis-py, or None; a call then raises
    QueueUnavailable where the server does not answer. `prefix` begins its keys."""

    def __init__(
        self,
        redis_client: Any = None,
        *,
        queue: TaskQueue | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        prefix: str = PREFIX,
    ) -> None:
        self.redis = redis_client
        self._queue = queue
        self._now = now
        self._prefix = prefix
        self._own: StatusEntries = (
            MemoryEntries() if redis_client is None else RedisEntries(redis_client, prefix=prefix)
        )

    def attach(self, queue: TaskQueue) -> None:
        """Answer from `queue` from now on."""
        self._queue = queue

    def share(self, redis_client: Any, *, prefix: str = PREFIX) -> None:
        """Keep what programs write on Redis from now on."""
        self.redis = redis_client
        self._prefix = prefix
        self._own = RedisEntries(redis_client, prefix=prefix)

    # -- for users' own programs ---------------------------------------------------------------------

    def task_submitted(
        self,
        task_id: str,
        user_id: str,
        task_type: str,
        mem_cube_id: str,
        business_task_id: str | None = None,
    ) -> None:
        """An item of the caller's own is waiting."""
        now = self._now()
        entry: dict[str, Any] = {
            "status": str(TaskState.WAITING),
            "task_type": task_type,
            "mem_cube_id": mem_cube_id,
            "submitted_at": now.isoformat(),
        }
        if business_task_id:
            entry["business_task_id"] = business_task_id
        self._own.submit(user_id, task_id, entry, at=now.timestamp())

    def task_started(self, task_id: str, user_id: str) -> None:
        """The caller's item is being worked on."""
        self._write(task_id, user_id, TaskState.IN_PROGRESS, "started_at")

    def task_completed(self, task_id: str, user_id: str) -> None:
        """The caller's item is done."""
        self._write(task_id, user_id, TaskState.COMPLETED, "completed_at")

    def task_failed(self, task_id: str, user_id: str, error_message: str) -> None:
        """The caller's item failed for good."""
        self._write(task_id, user_id, TaskState.FAILED, "failed_at", error=error_message)

    def _write(
        self, task_id: str, user_id: str, state: TaskState, moment: str, *, error: str | None = None
    ) -> None:
        now = self._now()  # an item that was never submitted, or long ago, has nothing to be said of it
        fields: dict[str, Any] = {"status": str(state), moment: now.isoformat()}
        if error is not None:
            fields["error"] = error
        self._own.write(user_id, task_id, fields, at=now.timestamp())

    def forget(self, user_id: str) -> int:
        """Drop everything that programs wrote of a user, under the default prefix too; how many entries."""
        count = self._own.forget(user_id)
        if self.redis is not None and self._prefix != PREFIX:
            count += RedisEntries(self.redis).forget(user_id)
        return count

    # -- answers -------------------------------------------------------------------------------------

    def get_task_status(self, task_id: str, user_id: str) -> dict[str, Any] | None:
        """The status of an item; None where nobody knows it."""
        known = self._statuses(user_id=user_id, item_id=task_id)
        return item_status(known) if known else self._own.get(user_id, task_id)

    def get_all_tasks_for_user(self, user_id: str) -> dict[str, dict[str, Any]]:
        """Status by item id."""
        return {**self._own.of_user(user_id), **_by_item(self._statuses(user_id=user_id))}

    def get_task_status_by_business_id(self, business_task_id: str, user_id: str) -> dict[str, Any] | None:
        """The state of a business task and of its items; None where nobody knows it."""
        known = self._statuses(user_id=user_id, task_id=business_task_id)
        items = {**self._own.of_business_task(user_id, business_task_id), **_by_item(known)}
        if not items:
            return None
        return {
            "status": str(business_state([TaskState(entry["status"]) for entry in items.values()])),
            "business_task_id": business_task_id,
            "item_count": len(items),
            "item_statuses": {item: entry["status"] for item, entry in items.items()},
            "errors": [entry["error"] for entry in items.values() if entry.get("error")],
        }

    def get_all_tasks_global(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Status by item id, by user."""
        by_user: dict[str, list[TaskStatus]] = defaultdict(list)
        for status in self._statuses():
            by_user[status.user_id].append(status)
        answer = defaultdict(dict, self._own.everybody(at=self._now().timestamp()))
        for user, statuses in by_user.items():
            answer[user].update(_by_item(statuses))
        return dict(answer)

    def _statuses(self, **wanted: str) -> list[TaskStatus]:
        return [] if self._queue is None else self._queue.statuses(**wanted)  # type: ignore[arg-type]


def item_status(statuses: Sequence[TaskStatus]) -> dict[str, Any]:
    """The documented fields of one item, whose messages are `statuses`, newest first."""
    oldest = statuses[-1]
    states = [status.state for status in statuses]
    state = states[0] if len(states) == 1 else business_state(states)
    started = [status.started_at for status in statuses if status.started_at is not None]
    finished = [status.finished_at for status in statuses if status.finished_at is not None]
    errors = [status.error for status in statuses if status.error]
    answer: dict[str, Any] = {
        "status": str(state),
        "task_type": oldest.label,
        "mem_cube_id": oldest.mem_cube_id,
        "submitted_at": utc(oldest.submitted_at).isoformat(),
    }
    if oldest.task_id:
        answer["business_task_id"] = oldest.task_id
    if started:
        answer["started_at"] = utc(min(started)).isoformat()
    if finished and state in (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED):
        answer[_MOMENTS[state]] = utc(max(finished)).isoformat()
    if errors:
        answer["error"] = errors[0]
    return answer


_MOMENTS: Mapping[TaskState, str] = {
    TaskState.COMPLETED: "completed_at",
    TaskState.FAILED: "failed_at",
    TaskState.CANCELLED: "cancelled_at",
}


def _by_item(statuses: Sequence[TaskStatus]) -> dict[str, dict[str, Any]]:
    by_item: dict[str, list[TaskStatus]] = defaultdict(list)
    for status in statuses:
        by_item[status.item_id].append(status)
    return {item: item_status(of_item) for item, of_item in by_item.items()}
