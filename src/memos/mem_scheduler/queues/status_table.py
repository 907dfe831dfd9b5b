"""What became of every message, bounded: the rows behind `statuses`, by key, item, task and user.

Live messages are always there, by their pack. Settled ones stay until they are the oldest of more than
`settled_max`, or for 7 days. Messages that were settled together share a row, which is a tuple of texts and
numbers: the garbage collector does not track such tuples, so that hundreds of thousands of them do not
lengthen its pauses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat

from memos.mem_scheduler.queues.base import TaskStatus
from memos.mem_scheduler.queues.packs import Call, Pack, Place, items_and_tasks, keys_of
from memos.mem_scheduler.schemas.task_schemas import TaskState

KEPT_S = 7 * 86_400.0
_COMPACT_ABOVE = 64

_Texts = tuple[str, ...]
# keys, items, tasks (none: of none of them), when each was submitted; user, cube, label, state, started, finished,
# attempts, error of all
_Row = tuple[_Texts, _Texts, _Texts, tuple[float, ...], str, str, str, str, float | None, float, int, str]
_Index = dict[str, str | dict[str, None]]  # name -> its key, or its keys when there are several

_DONE, _CANCELLED_PLACE = Place.DONE, Place.CANCELLED
_COMPLETED = TaskState.COMPLETED.value
_CANCELLED = TaskState.CANCELLED.value
_FAILED = TaskState.FAILED.value


class StatusTable:
    """Messages by key, in the order of submission. Not thread-safe."""

    def __init__(self, *, settled_max: int) -> None:
        self.settled_max = settled_max
        self.dropped = 0  # settled messages that the bound pushed out
        self._rows: dict[str, Pack | _Row] = {}
        self._by_item: _Index = {}
        self._by_task: _Index = {}
        self._by_user: dict[str, _Keys] = {}
        self._settled: deque[_Row] = deque()
        self._settled_count = 0  # messages in all those rows, less the ones that are dropped
        self._first_dropped = 0  # messages of the first row that are dropped

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Pack | None:
        """The pack of a key while its message is live."""
        found = self._rows.get(key)
        return found if isinstance(found, Pack) else None

    def was_cancelled(self, key: str) -> bool:
        """Whether the message was cancelled, or asked to stop."""
        found = self._rows.get(key)
        if isinstance(found, Pack):
            return key in found.asked
        return found is not None and found[7] == _CANCELLED

    def add(self, call: Call) -> None:
        """Newly accepted messages of keys that are not known."""
        rows, keys = self._rows, call.keys
        rows.update(zip(keys, call.owners, strict=True))
        _link(self._by_item, call.items, keys)
        if any(call.tasks):
            named = [(task, key) for task, key in zip(call.tasks, keys, strict=True) if task]
            _link(self._by_task, [task for task, _ in named], [key for _, key in named])
        by_user: dict[str, list[str]] = {}
        if len(set(call.users)) == len(call.packs):
            for pack, (user_id, _, _) in call.packs.items():
                by_user[user_id] = pack.keys
        else:  # a user's messages of several packs: in the order of submission too
            for user_id, key in zip(call.users, keys, strict=True):
                by_user.setdefault(user_id, []).append(key)
        users = self._by_user
        for user_id, own in by_user.items():
            there = users.get(user_id)
            if there is None:
                there = users[user_id] = _Keys()
            there.add(own)

    def give_way(self, key: str) -> None:
        """A settled message of that key is forgotten, because another one comes."""
        row = self._rows.get(key)
        if row is None or isinstance(row, Pack):
            return
        self._drop(row, (key,))
        if row[4] in self._by_user:  # its place among the user's keys goes at once
            self._by_user[row[4]].compact(self._rows)

    def stand_for(self, pack: Pack) -> None:
        """These messages, which are known, are in this pack from now on."""
        self._rows.update(zip(pack.keys, repeat(pack)))

    def settle(self, packs: Sequence[Pack], now: float) -> None:
        """The messages, of which one is like the other, are done, cancelled or given up for good; their payload
        is dropped."""
        row = _row(packs, now)
        for pack in packs:
            pack.let_go()
        self._rows.update(zip(row[0], repeat(row)))
        self._settled.append(row)
        self._settled_count += len(row[0])
        if self._settled_count > self.settled_max:
            over = self._settled_count - self.settled_max
            self.dropped += over
            self._drop_settled(over)

    def forget_old(self, now: float) -> None:
        while self._settled and self._settled[0][9] <= now - KEPT_S:
            self._drop_settled(len(self._settled[0][0]) - self._first_dropped)

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
            there = self._by_user.get(user_id)
            keys = () if there is None else _once(filter(self._rows.__contains__, there.newest_first()))
        else:
            keys = reversed(self._rows)
        found: list[TaskStatus] = []
        for key in keys:
            if limit is not None and len(found) >= limit:
                break
            row = self._rows[key]
            status = row.status(key) if isinstance(row, Pack) else _status(row, key)
            if task_id in (None, status.task_id) and user_id in (None, status.user_id):
                found.append(status)
        return found

    def _drop_settled(self, number: int) -> None:
        """Drop so many of the settled messages that stand first."""
        self._settled_count -= number
        rows, settled = self._rows, self._settled
        while number:
            row = settled[0]
            start = self._first_dropped
            keys = row[0][start : start + number]
            number -= len(keys)
            self._first_dropped += len(keys)
            if self._first_dropped == len(row[0]):
                settled.popleft()
                self._first_dropped = 0
            # Else replaced by a later message of the same key.
            self._drop(row, [key for key in keys if rows.get(key) is row])

    def _drop(self, row: _Row, keys: Sequence[str]) -> None:
        """Messages of a row are not known any more."""
        rows, (own, items, tasks, _, user_id, *_) = self._rows, row
        for key in keys:
            del rows[key]
            at = own.index(key)
            _unlink(self._by_item, items[at], key)
            if tasks and tasks[at]:
                _unlink(self._by_task, tasks[at], key)
        there = self._by_user[user_id]
        there.count -= len(keys)
        if not there.count:
            del self._by_user[user_id]
        elif there.size > _COMPACT_ABOVE and there.size > 2 * there.count:
            there.compact(rows)


def _row(packs: Sequence[Pack], now: float) -> _Row:
    one = packs[0]
    lane, place = one.lane, one.place
    submitted: list[float] = []
    for pack in packs:
        submitted += [pack.enqueued_at] * len(pack.fields)
    return (
        tuple(keys_of(packs)),
        *items_and_tasks(packs),
        tuple(submitted),
        lane.user_id,
        lane.mem_cube_id,
        one.label,
        _COMPLETED if place is _DONE else _CANCELLED if place is _CANCELLED_PLACE else _FAILED,
        one.started_at,
        now if one.finished_at is None else one.finished_at,
        one.attempts,
        one.error,
    )


def _status(row: _Row, key: str) -> TaskStatus:
    keys, items, tasks, submitted, user_id, cube_id, label, state, started, finished, attempts, error = row
    at = keys.index(key)
    task_id = tasks[at] if tasks else ""
    return TaskStatus(
        key,
        items[at],
        task_id,
        user_id,
        cube_id,
        label,
        TaskState(state),
        submitted[at],
        started,
        finished,
        attempts,
        error,
    )


class _Keys:
    """The keys of a user, as calls brought them. Those that are not known any more go when they are half."""

    __slots__ = ("calls", "count", "size")

    def __init__(self) -> None:
        self.calls: list[_Texts] = []
        self.count = 0  # keys that are known
        self.size = 0  # keys in all calls

    def add(self, keys: Sequence[str]) -> None:
        self.calls.append(tuple(keys))
        self.count += len(keys)
        self.size += len(keys)

    def newest_first(self) -> Iterator[str]:
        for keys in reversed(self.calls):
            yield from reversed(keys)

    def compact(self, known: Collection[str]) -> None:
        left = [tuple([key for key in keys if key in known]) for keys in self.calls]
        self.calls = [keys for keys in left if keys]
        self.size = sum(map(len, self.calls))


def _once(keys: Iterable[str]) -> Iterator[str]:
    """Each key at its first place: one that the bound had pushed out stands in the list twice when it comes again."""
    seen: set[str] = set()
    for key in keys:
        if key not in seen:
            seen.add(key)
            yield key


def _link(index: _Index, names: Iterable[str], keys: Iterable[str]) -> None:
    for name, key in zip(names, keys, strict=True):
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
