"""What is seen from outside: counts, statuses and messages, each answer one moment of the file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from memos.mem_scheduler.queues.base import (
    DeadLetter,
    Delivery,
    LabelTimes,
    Lane,
    LaneDepth,
    QueueDepth,
    TaskStatus,
)
from memos.mem_scheduler.queues.label_times import percentile
from memos.mem_scheduler.queues.served import SERVED_S
from memos.mem_scheduler.queues.sqlite.codec import message_of
from memos.mem_scheduler.queues.sqlite.rows import (
    CANCELLED,
    DEAD,
    DELAYED,
    DONE,
    GONE,
    LEASED,
    NUMBER_BITS,
    QUEUED,
    first_seq_of,
)
from memos.mem_scheduler.queues.status_table import KEPT_S
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState, class_of

_STATES = {
    QUEUED: TaskState.WAITING,
    LEASED: TaskState.IN_PROGRESS,
    DELAYED: TaskState.WAITING,
    DEAD: TaskState.FAILED,
    GONE: TaskState.FAILED,
    DONE: TaskState.COMPLETED,
    CANCELLED: TaskState.CANCELLED,
}

# A coalesced message shares the state of the one that runs for it.
_SECTIONS = (
    "WITH RECURSIVE section (id) AS (SELECT min(number) >> 14 FROM msg UNION ALL"
    " SELECT (SELECT min(number) >> 14 FROM msg WHERE number >= (section.id + 1) << 14) FROM section"
    " WHERE section.id IS NOT NULL) "
)
_STATUSES = (
    "SELECT m.key, m.item_id, ifnull(m.task_id, ''), m.user_id, m.mem_cube_id, m.label, r.place, r.retried,"
    " m.enqueued_at, r.started_at, r.finished_at, r.attempts, r.error"
    " FROM msg AS m JOIN msg AS r ON r.seq = CASE m.place WHEN 3 THEN m.into_seq ELSE m.seq END"
    " WHERE (m.place < 5 OR m.finished_at > :old)"
)
_MESSAGE = "key, parent_key, attempts, recoveries, enqueued_at, user_id, mem_cube_id, label, item_id, task_id, content, rest"


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
    first = first_seq_of(user_id or "")
    # One condition finds the rows; a `+` keeps the others from being taken for it.
    text = _STATUSES
    unused = ""
    for name, value in (("item_id", item_id), ("task_id", task_id)):
        if value is not None:
            if not unused:
                text = f"{_SECTIONS}{text} AND m.number >> 14 IN (SELECT id FROM section)"
            text += f" AND {unused}m.{name} = :{name}"
            unused = "+"
    if user_id is not None:
        text += f" AND {unused}m.seq BETWEEN :first AND :last AND m.user_id = :user_id"
    text += " ORDER BY m.number DESC LIMIT :limit"
    found = connection.execute(
        text,
        {
            "old": wall - KEPT_S,
            "item_id": item_id,
            "task_id": task_id,
            "user_id": user_id,
            "first": first,
            "last": first + (1 << NUMBER_BITS) - 1,
            "limit": -1 if limit is None else limit,
        },
    )
    return [
        TaskStatus(
            key,
            item,
            task,
            user,
            cube,
            label,
            TaskState.RETRYING if retried and place in (QUEUED, DELAYED) else _STATES[place],
            *rest,
        )
        for key, item, task, user, cube, label, place, retried, *rest in found
    ]


def live(connection: sqlite3.Connection, keys: Collection[str]) -> set[str]:
    found = connection.execute(
        "SELECT key FROM msg WHERE key IN (SELECT value FROM json_each(?)) AND place <= 4",
        (json.dumps(list(keys)),),
    )
    return {row[0] for row in found}


def get(connection: sqlite3.Connection, keys: Sequence[str]) -> list[Delivery]:
    """In the order of `keys`."""
    rows = connection.execute(
        f"SELECT {_MESSAGE} FROM msg AS m WHERE key IN (SELECT value FROM json_each(?)) AND (place <= 2 OR"
        " (place = 3 AND (SELECT r.place FROM msg AS r WHERE r.seq = m.into_seq) < 4))",
        (json.dumps(list(keys)),),
    ).fetchall()
    found = {row[0]: row for row in rows}
    deliveries = []
    for key in keys:
        if key in found:
            _, parent_key, attempts, recoveries, enqueued_at, *message = found[key]
            deliveries.append(
                Delivery(key, _message(key, *message), parent_key, attempts, recoveries, enqueued_at)
            )
    return deliveries


def is_cancelled(connection: sqlite3.Connection, key: str) -> bool:
    row = connection.execute("SELECT cancel_requested, place FROM msg WHERE key = ?", (key,)).fetchone()
    return row is not None and (row[1] == CANCELLED or (row[1] < GONE and bool(row[0])))


def letters(
    connection: sqlite3.Connection, where: str, parameters: Sequence[object], *, limit: int = -1
) -> list[DeadLetter]:
    """Dead letters that fulfil `where` (a constant text of this package), newest first."""
    rows = connection.execute(
        f"SELECT {_MESSAGE}, error, finished_at FROM msg WHERE place = 4 AND {where}"
        " ORDER BY died_no DESC LIMIT ?",
        (*parameters, limit),
    ).fetchall()
    return [
        DeadLetter(
            key=key,
            message=_message(key, *message),
            parent_key=parent_key,
            error=error,
            attempts=attempts,
            recoveries=recoveries,
            first_at=enqueued_at,
            died_at=died_at,
        )
        for key, parent_key, attempts, recoveries, enqueued_at, *message, error, died_at in rows
    ]


def _message(
    key: str,
    user_id: str,
    mem_cube_id: str,
    label: str,
    item_id: str,
    task_id: str | None,
    content: str,
    rest: str,
) -> ScheduleMessageItem:
    return message_of(
        key=key,
        stream=str(Lane(user_id, mem_cube_id, class_of(label))),
        item_id=item_id,
        task_id=task_id,
        user_id=user_id,
        mem_cube_id=mem_cube_id,
        label=label,
        content=content,
        rest=rest,
    )


def served_labels(connection: sqlite3.Connection, now: float) -> set[str]:
    """The labels that somebody asked for lately, or whose work somebody asked for and holds."""
    rows = connection.execute(
        "SELECT labels FROM served WHERE claimed_at >= ? UNION SELECT claimed_labels FROM lease",
        (now - SERVED_S,),
    )
    return {label for (text,) in rows for label in json.loads(text)}


def depth(
    connection: sqlite3.Connection, *, now: float, lanes: bool, times: Mapping[str, LabelTimes]
) -> QueueDepth:
    served = served_labels(connection, now)
    queued = parked = delayed = running = 0
    for head, *sums in connection.execute(
        "SELECT head_label, sum(queued), sum(delayed), sum(running) FROM lane GROUP BY head_label"
    ):
        queued += sums[0]
        delayed += sums[1]
        running += sums[2]
        if head is not None and head not in served:
            parked += sums[0]
    dead = connection.execute("SELECT dead FROM counter").fetchone()[0]
    return QueueDepth(
        remaining=queued + delayed,
        running=running,
        queued=queued - parked,
        delayed=delayed,
        parked=parked,
        dead=dead,
        lanes=_lanes(connection, served, now) if lanes else (),
        times=times,
    )


def _lanes(connection: sqlite3.Connection, served: set[str], now: float) -> tuple[LaneDepth, ...]:
    counts: dict[int, tuple[dict[str, int], dict[str, int], dict[str, int]]] = {}
    oldest: dict[int, dict[str, float]] = {}
    rows = connection.execute(
        "SELECT id, user_id, mem_cube_id, class, head_label FROM lane ORDER BY id"
    ).fetchall()
    for row in rows:
        counts[row[0]] = ({}, {}, {})
    for lane, label, number, since in connection.execute(
        "SELECT lane, label, count(*), min(ifnull(blocked_since, ready_at)) FROM msg WHERE place = 0"
        " GROUP BY lane, label"
    ):
        counts[lane][0][label] = number
        oldest.setdefault(lane, {})[label] = max(0.0, now - since)
    for lane, label, number in connection.execute(
        "SELECT lane, label, count(*) FROM msg WHERE place = 2 GROUP BY lane, label"
    ):
        counts[lane][1][label] = number
    for lane, text in connection.execute("SELECT lane, labels FROM lease"):
        running = counts[lane][2]
        for label, number in json.loads(text).items():
            running[label] = running.get(label, 0) + number
    found = []
    for lane, user_id, mem_cube_id, task_class, head in rows:
        waiting, delayed, running = counts[lane]
        parked = head is not None and head not in served
        found.append(
            LaneDepth(
                Lane(user_id, mem_cube_id, task_class),
                queued={} if parked else waiting,
                delayed=delayed,
                parked=waiting if parked else {},
                running=running,
                oldest_s=oldest.get(lane, {}),
            )
        )
    return tuple(found)


def label_times(connection: sqlite3.Connection) -> dict[str, LabelTimes]:
    """How long the messages of the last batches of each label waited and ran."""
    waiting: dict[str, list[float]] = {}
    running: dict[str, list[float]] = {}
    for label, text, ran_s in connection.execute("SELECT label, waits, ran_s FROM sample"):
        waits = json.loads(text)
        waiting.setdefault(label, []).extend(waits)
        running.setdefault(label, []).extend([ran_s] * len(waits))
    return {
        label: LabelTimes(
            waiting_p50=percentile(waits, 0.5),
            waiting_p95=percentile(waits, 0.95),
            running_p50=percentile(running[label], 0.5),
            running_p95=percentile(running[label], 0.95),
        )
        for label, waits in waiting.items()
    }
