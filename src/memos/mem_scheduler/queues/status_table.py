"""What became of every message, bounded: the rows behind `statuses`, by key, item, task and user.

Live messages are always there. Settled ones stay until they are the oldest of more than
`settled_max`, or for 7 days.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from memos.mem_scheduler.queues.base import TaskStatus
from memos.mem_scheduler.queues.entries import Entry

KEPT_S = 7 * 86_400.0

_Rows = dict[str, Entry]
_Index = dict[str, Entry | _Rows]  # one row, as is usual, stands alone: a dictionary each would weigh more


class StatusTable:
    """Entries by key, in the order of submission. Not thread-safe."""

    def __init__(self, *, settled_max: int) -> None:
        self.settled_max = settled_max
        self.dropped = 0  # settled rows that the bound pushed out
        self._entries: dict[str, Entry] = {}
        self._by_item: _Index = {}
        self._by_task: _Index = {}
        self._by_user: _Index = {}
        self._settled: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def add(self, entry: Entry) -> None:
        """A newly accepted message. One of the same key that was settled before gives way."""
        key = entry.key
        before = self._entries.get(key)
        if before is not None:
            self._drop(before)
        self._entries[key] = entry
        _link(self._by_item, entry.item_id, entry)
        _link(self._by_user, entry.lane.user_id, entry)
        if entry.task_id:
            _link(self._by_task, entry.task_id, entry)

    def settle(self, entry: Entry, now: float) -> None:
        """The message is done, cancelled or given up for good; its payload is dropped."""
        if entry.finished_at is None:
            entry.finished_at = now
        entry.let_go()
        settled = self._settled
        settled.append(entry)
        while len(settled) > self.settled_max:
            self.dropped += 1
            self._drop(settled.popleft())

    def forget_old(self, now: float) -> None:
        while self._settled and (self._settled[0].finished_at or 0.0) <= now - KEPT_S:
            self._drop(self._settled.popleft())

    def find(
        self, *, user_id: str | None, item_id: str | None, task_id: str | None, limit: int | None
    ) -> list[TaskStatus]:
        """Newest submit first."""
        rows: Iterable[Entry]
        if item_id is not None:
            rows = _newest_first(self._by_item.get(item_id))
        elif task_id is not None:
            rows = _newest_first(self._by_task.get(task_id))
        elif user_id is not None:
            rows = _newest_first(self._by_user.get(user_id))
        else:
            rows = reversed(self._entries.values())
        found: list[TaskStatus] = []
        for entry in rows:
            if limit is not None and len(found) >= limit:
                break
            if (task_id is None or entry.task_id == task_id) and (
                user_id is None or entry.lane.user_id == user_id
            ):
                found.append(entry.status())
        return found

    def _drop(self, entry: Entry) -> None:
        if self._entries.get(entry.key) is not entry:
            return  # replaced by a later message of the same key
        del self._entries[entry.key]
        _unlink(self._by_item, entry.item_id, entry.key)
        _unlink(self._by_user, entry.lane.user_id, entry.key)
        if entry.task_id:
            _unlink(self._by_task, entry.task_id, entry.key)


def _link(index: _Index, name: str, entry: Entry) -> None:
    there = index.setdefault(name, entry)
    if isinstance(there, dict):
        there[entry.key] = entry
    elif there is not entry:
        index[name] = {there.key: there, entry.key: entry}


def _unlink(index: _Index, name: str, key: str) -> None:
    there = index[name]
    if isinstance(there, dict):
        del there[key]
        if there:
            return
    del index[name]


def _newest_first(there: Entry | _Rows | None) -> Iterable[Entry]:
    if there is None:
        return ()
    return reversed(there.values()) if isinstance(there, dict) else (there,)
