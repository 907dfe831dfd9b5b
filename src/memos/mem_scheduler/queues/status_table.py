"""What became of every message, bounded: the rows behind `statuses`, by key, item, task and user.

Live messages are always there. Settled ones stay until they are the oldest of more than `settled_max`,
or for 7 days. A settled row is a tuple of texts and numbers: the garbage collector does not track such
tuples, so that hundreds of thousands of them do not lengthen its pauses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from memos.mem_scheduler.queues.base import TaskStatus
from memos.mem_scheduler.queues.entries import Entry, Place
from memos.mem_scheduler.schemas.task_schemas import TaskState

KEPT_S = 7 * 86_400.0

# key, item, task, user, cube, label, state, submitted, started, finished, attempts, error
_Row = tuple[str, str, str, str, str, str, str, float, float | None, float, int, str]
_Index = dict[str, str | dict[str, None]]  # name -> its key, or its keys when there are several

_DONE, _CANCELLED_PLACE = Place.DONE, Place.CANCELLED
_COMPLETED = TaskState.COMPLETED.value
_CANCELLED = TaskState.CANCELLED.value
_FAILED = TaskState.FAILED.value


class StatusTable:
    """Messages by key, in the order of submission. Not thread-safe."""

    def __init__(self, *, settled_max: int) -> None:
        self.settled_max = settled_max
        self.dropped = 0  # settled rows that the bound pushed out
        self._rows: dict[str, Entry | _Row] = {}
        self._by_item: _Index = {}
        self._by_task: _Index = {}
        self._by_user: _Index = {}
        self._settled: deque[_Row] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Entry | None:
        """The message of a key while it is live."""
        found = self._rows.get(key)
        return found if isinstance(found, Entry) else None

    def was_cancelled(self, key: str) -> bool:
        """Whether the message was cancelled, or asked to stop."""
        found = self._rows.get(key)
        if isinstance(found, Entry):
            return found.cancel_requested
        return found is not None and found[6] == _CANCELLED

    def add(self, entry: Entry) -> None:
        """A newly accepted message. One of the same key that was settled before gives way."""
        key = entry.key
        before = self._rows.get(key)
        if before is not None:
            self._drop(before)
        self._rows[key] = entry
        _link(self._by_item, entry.item_id, key)
        _link(self._by_user, entry.lane.user_id, key)
        if entry.task_id:
            _link(self._by_task, entry.task_id, key)

    def settle(self, entry: Entry, now: float) -> None:
        """The message is done, cancelled or given up for good; its payload is dropped."""
        row = _row(entry, now)
        entry.let_go()
        self._rows[entry.key] = row
        settled = self._settled
        settled.append(row)
        while len(settled) > self.settled_max:
            self.dropped += 1
            self._drop_settled(settled.popleft())

    def forget_old(self, now: float) -> None:
        while self._settled and self._settled[0][9] <= now - KEPT_S:
            self._drop_settled(self._settled.popleft())

    def find(
        self, *, user_id: str | None, item_id: str | None, task_id: str | None, limit: int | None
    ) -> list[TaskStatus]:
        """Newest submit first."""
        keys: Iterable[str]
        if item_id is not None:
            keys = _newest_first(self._by_item.get(item_id))
        elif task_id is not None:
            keys = _newest_first(self._by_task.get(task_id))
        elif user_id is not None:
            keys = _newest_first(self._by_user.get(user_id))
        else:
            keys = reversed(self._rows)
        found: list[TaskStatus] = []
        for key in keys:
            if limit is not None and len(found) >= limit:
                break
            row = self._rows[key]
            status = row.status() if isinstance(row, Entry) else _status(row)
            if task_id in (None, status.task_id) and user_id in (None, status.user_id):
                found.append(status)
        return found

    def _drop_settled(self, row: _Row) -> None:
        if self._rows.get(row[0]) is row:  # else replaced by a later message of the same key
            self._drop(row)

    def _drop(self, row: Entry | _Row) -> None:
        if isinstance(row, Entry):
            key, item_id, task_id, user_id = row.key, row.item_id, row.task_id, row.lane.user_id
        else:
            key, item_id, task_id, user_id = row[:4]
        del self._rows[key]
        _unlink(self._by_item, item_id, key)
        _unlink(self._by_user, user_id, key)
        if task_id:
            _unlink(self._by_task, task_id, key)


def _row(entry: Entry, now: float) -> _Row:
    lane, place = entry.lane, entry.place
    return (
        entry.key,
        entry.item_id,
        entry.task_id,
        lane.user_id,
        lane.mem_cube_id,
        entry.label,
        _COMPLETED if place is _DONE else _CANCELLED if place is _CANCELLED_PLACE else _FAILED,
        entry.enqueued_at,
        entry.started_at,
        now if entry.finished_at is None else entry.finished_at,
        entry.attempts,
        entry.error,
    )


def _status(row: _Row) -> TaskStatus:
    key, item_id, task_id, user_id, cube_id, label, state, *rest = row
    return TaskStatus(key, item_id, task_id, user_id, cube_id, label, TaskState(state), *rest)  # type: ignore[arg-type]


def _link(index: _Index, name: str, key: str) -> None:
    there = index.setdefault(name, key)
    if isinstance(there, dict):
        there[key] = None
    elif there is not key:
        index[name] = {there: None, key: None}


def _unlink(index: _Index, name: str, key: str) -> None:
    there = index[name]
    if isinstance(there, dict):
        del there[key]
        if there:
            return
    del index[name]


def _newest_first(there: str | dict[str, None] | None) -> Iterable[str]:
    if there is None:
        return ()
    return reversed(there) if isinstance(there, dict) else (there,)
