"""What is seen from outside: counts, messages and dead letters, each answer one moment of the file."""

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
)
from memos.mem_scheduler.queues.label_times import percentile
from memos.mem_scheduler.queues.served import SERVED_S
from memos.mem_scheduler.queues.sqlite import calls
from memos.mem_scheduler.queues.sqlite.history import ended_with
from memos.mem_scheduler.queues.sqlite.packs import Pack, load_packs, pack_of
from memos.mem_scheduler.queues.sqlite.rows import CANCELLED, COALESCED, DEAD
from memos.mem_scheduler.schemas.task_schemas import class_of


def live(connection: sqlite3.Connection, keys: Collection[str]) -> set[str]:
    """Those of `keys` that are live."""
    return {
        key
        for key in keys
        if (message_id := calls.id_of_key(connection, key)) is not None
        and connection.execute(
            "SELECT id + count > ?1 FROM pack WHERE id <= ?1 ORDER BY id DESC LIMIT 1", (message_id,)
        ).fetchone()
        == (1,)
    }


def get(connection: sqlite3.Connection, keys: Sequence[str]) -> list[Delivery]:
    """In the order of `keys`."""
    deliveries = []
    for key in keys:
        message_id = calls.id_of_key(connection, key)
        pack = None if message_id is None else pack_of(connection, message_id)
        if pack is None or message_id is None or _is_dead(connection, pack):
            continue
        at = message_id - pack.id
        (message,) = pack.part(at, at + 1).messages(_stream(pack))
        deliveries.append(
            Delivery(key, message, pack.parent_key, pack.attempts, pack.recoveries, pack.enqueued_at)
        )
    return deliveries


def is_cancelled(connection: sqlite3.Connection, key: str) -> bool:
    """Whether the message was cancelled, or asked to stop."""
    message_id = calls.id_of_key(connection, key)
    if message_id is None:
        return False
    if connection.execute("SELECT 1 FROM asked WHERE id = ?", (message_id,)).fetchone() is not None:
        return True
    pack = pack_of(connection, message_id)
    if pack is not None:
        return bool(pack.cancel_requested)
    row = ended_with(connection, message_id)
    return row is not None and row.place == CANCELLED


def letters(
    connection: sqlite3.Connection, where: str, parameters: Sequence[object], *, limit: int = -1
) -> list[DeadLetter]:
    """Dead letters that fulfil `where` (a constant text of this package), newest first."""
    return [
        DeadLetter(
            key=pack.key(),
            message=pack.messages(_stream(pack))[0],
            parent_key=pack.parent_key,
            error=pack.error,
            attempts=pack.attempts,
            recoveries=pack.recoveries,
            first_at=pack.enqueued_at,
            died_at=pack.finished_at or pack.enqueued_at,
        )
        for pack in load_packs(
            connection, f"place = 4 AND {where} ORDER BY died_no DESC LIMIT ?", (*parameters, limit)
        )
    ]


def _is_dead(connection: sqlite3.Connection, pack: Pack) -> bool:
    if pack.place != COALESCED:
        return pack.place == DEAD
    runner = connection.execute("SELECT place FROM pack WHERE id = ?", (pack.into_id,)).fetchone()
    return bool(runner == (DEAD,))


def _stream(pack: Pack) -> str:
    return str(Lane(pack.user_id, pack.mem_cube_id, class_of(pack.label)))


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
        "SELECT lane, label, sum(count), min(ifnull(blocked_since, ready_at)) FROM pack WHERE place = 0"
        " AND id NOT IN (SELECT value FROM lease, json_each(lease.packs)) GROUP BY lane, label"
    ):
        counts[lane][0][label] = number
        oldest.setdefault(lane, {})[label] = max(0.0, now - since)
    for lane, label, number in connection.execute(
        "SELECT lane, label, sum(count) FROM pack WHERE place = 2 GROUP BY lane, label"
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
