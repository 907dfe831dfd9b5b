"""What became of messages, read from the file: newest submit first, each answer one moment."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterable, Iterator

from memos.mem_scheduler.queues.base import TaskStatus
from memos.mem_scheduler.queues.sqlite import calls
from memos.mem_scheduler.queues.sqlite.history import ENDED_COLUMNS, Ended, ended_with
from memos.mem_scheduler.queues.sqlite.packs import PACK_COLUMNS, Pack, load_packs, pack_of
from memos.mem_scheduler.queues.sqlite.rows import (
    CANCELLED,
    COALESCED,
    DEAD,
    DELAYED,
    DONE,
    GONE,
    QUEUED,
)
from memos.mem_scheduler.queues.status_table import KEPT_S
from memos.mem_scheduler.schemas.task_schemas import TaskState

_STATES = {
    QUEUED: TaskState.WAITING,
    DELAYED: TaskState.WAITING,
    DEAD: TaskState.FAILED,
    GONE: TaskState.FAILED,
    DONE: TaskState.COMPLETED,
    CANCELLED: TaskState.CANCELLED,
}

_Row = tuple[int, int, TaskStatus]
"""Number and id of a message, and its status."""


def statuses(
    connection: sqlite3.Connection,
    *,
    wall: float,
    user_id: str | None,
    item_id: str | None,
    task_id: str | None,
    limit: int | None,
) -> list[TaskStatus]:
    """Newest submit first."""
    if limit is not None and limit <= 0:
        return []
    reader = _Reader(connection, wall)
    if item_id is not None:
        rows = reader.of_ids(calls.ids_of_item(connection, item_id))
    elif task_id is not None:
        rows = reader.of_ids(calls.ids_of_task(connection, task_id))
    else:
        return [row[2] for row in _newest(connection, reader, user_id, limit)]
    found = [
        row
        for row in rows
        if item_id in (None, row[2].item_id)
        and (task_id is None or (task_id == row[2].task_id))
        and user_id in (None, row[2].user_id)
    ]
    found.sort(key=lambda row: row[0], reverse=True)
    return [row[2] for row in found[:limit]]


def _newest(
    connection: sqlite3.Connection, reader: _Reader, user_id: str | None, limit: int | None
) -> list[_Row]:
    if limit is None:
        found = [*reader.living(user_id), *reader.ended(user_id)]
        return sorted(found, key=lambda row: row[0], reverse=True)
    # Both run from the highest id down. Ids and numbers differ inside a call only, so once enough messages
    # are found, those of calls before the last of them cannot be newer.
    best: list[tuple[int, int, TaskStatus]] = []
    for rows in (reader.living(user_id), reader.ended(user_id)):
        for row in rows:
            number, highest_id, _ = row
            if len(best) < limit:
                heapq.heappush(best, row)
            elif number > best[0][0]:
                heapq.heapreplace(best, row)
            elif highest_id < best[0][0] and highest_id < calls.call_start(connection, best[0][0]):
                break
    return sorted(best, reverse=True)


class _Reader:
    """Rows of the file as statuses."""

    def __init__(self, connection: sqlite3.Connection, wall: float) -> None:
        self._connection = connection
        self._old = wall - KEPT_S
        self._started: dict[int, float] = {}  # when the leased packs began to run
        for text, started_at in connection.execute("SELECT packs, started_at FROM lease"):
            self._started.update(dict.fromkeys(json.loads(text), started_at))

    def of_ids(self, message_ids: Iterable[int]) -> Iterator[_Row]:
        """Of these messages, as far as they are known."""
        for message_id in message_ids:
            pack = pack_of(self._connection, message_id)
            if pack is not None:
                yield self._of_pack(pack)[message_id - pack.id]
                continue
            row = ended_with(self._connection, message_id)
            if row is not None and row.finished_at > self._old:
                yield from (one for one in self._of_ended(row) if one[1] == message_id)

    def living(self, user_id: str | None) -> Iterator[_Row]:
        """Of live messages, roughly the newest first."""
        if user_id is None:
            packs = self._connection.execute(f"SELECT {PACK_COLUMNS} FROM pack ORDER BY id DESC")
        else:
            packs = self._connection.execute(
                f"SELECT {PACK_COLUMNS} FROM pack WHERE id IN ("
                "SELECT id FROM pack WHERE lane IN (SELECT id FROM lane WHERE user_id = ?1) AND place < 4"
                " UNION SELECT id FROM pack WHERE place = 4 AND user_id = ?1"
                " UNION SELECT id FROM pack WHERE place = 3 AND into_id IN"
                "  (SELECT id FROM pack WHERE place = 4 AND user_id = ?1)) ORDER BY id DESC",
                (user_id,),
            )
        for row in packs:
            yield from reversed(self._of_pack(Pack(*row)))

    def ended(self, user_id: str | None) -> Iterator[_Row]:
        """Of settled messages, roughly the newest first. Each comes with the highest id of its row."""
        which = "" if user_id is None else " WHERE user_id = ?"
        for row in self._connection.execute(
            f"SELECT {ENDED_COLUMNS} FROM ended{which} ORDER BY last_id DESC",
            () if user_id is None else (user_id,),
        ):
            ended = Ended(*row)
            if ended.finished_at > self._old:
                yield from ((number, ended.last_id, one) for number, _, one in self._of_ended(ended))

    def _of_pack(self, pack: Pack) -> list[_Row]:
        runner = pack
        if pack.place == COALESCED:  # it shares the state of the one that runs for it
            (runner,) = load_packs(self._connection, "id = ?", (pack.into_id,))
        started_at = self._started.get(runner.id) if runner.place == QUEUED else None
        if started_at is not None:
            state = TaskState.IN_PROGRESS
        else:
            started_at = runner.started_at
            waits = runner.place in (QUEUED, DELAYED)
            state = TaskState.RETRYING if runner.retried and waits else _STATES[runner.place]
        return [
            (
                number,
                pack.id + at,
                TaskStatus(
                    key,
                    item_id,
                    task_id or "",
                    pack.user_id,
                    pack.mem_cube_id,
                    pack.label,
                    state,
                    pack.enqueued_at,
                    started_at,
                    runner.finished_at,
                    runner.attempts,
                    runner.error,
                ),
            )
            for at, (key, item_id, task_id, number) in enumerate(pack.named())
        ]

    def _of_ended(self, row: Ended) -> list[_Row]:
        state = _STATES[row.place]
        return [
            (
                number,
                first + at,
                TaskStatus(
                    key,
                    item_id,
                    task_id or "",
                    row.user_id,
                    row.mem_cube_id,
                    label,
                    state,
                    enqueued_at,
                    row.started_at,
                    row.finished_at,
                    row.attempts,
                    row.error,
                ),
            )
            for first, enqueued_at, label, named in row.decoded()
            for at, (key, item_id, task_id, number) in enumerate(named)
        ]
