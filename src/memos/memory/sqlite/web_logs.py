"""Web logs in the store: bounded, newest first; the oldest leave and are counted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.sqlite.index import get_meta, put_meta

_DROPPED = "web_logs_dropped"
_INSERT = "INSERT INTO web_log (cube_id, user_id, label, trace_id, body) VALUES (?, ?, ?, ?, ?)"
_TRIM = "DELETE FROM web_log WHERE no <= (SELECT max(no) FROM web_log) - ?"
_SELECT = "SELECT no, body FROM web_log WHERE {conditions} ORDER BY no DESC LIMIT ?"


def put_web_logs(
    connection: sqlite3.Connection, logs: Sequence[ScheduleLogForWebItem], *, kept_max: int
) -> None:
    """Add logs and let the oldest go that are over the bound."""
    if not logs:
        return
    connection.executemany(
        _INSERT,
        [
            (
                log.mem_cube_id,
                log.user_id,
                log.label,
                log.trace_id,
                json.dumps(log.model_dump(), ensure_ascii=False, default=_plain),
            )
            for log in logs
        ],
    )
    gone = connection.execute(_TRIM, (kept_max,)).rowcount
    if gone:
        put_meta(connection, _DROPPED, str(dropped(connection) + gone))


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def dropped(connection: sqlite3.Connection) -> int:
    """How many logs the bound has pushed out so far."""
    return int(get_meta(connection, _DROPPED) or 0)


def read_web_logs(
    connection: sqlite3.Connection,
    *,
    cube_id: str | None,
    user_id: str | None,
    label: str | None,
    trace_id: str | None,
    limit: int,
    before: int | None,
) -> list[tuple[int, ScheduleLogForWebItem]]:
    """(number, log) of logs that meet all given conditions, newest first."""
    wanted = (
        ("cube_id = ?", cube_id),
        ("user_id = ?", user_id),
        ("label = ?", label),
        ("trace_id = ?", trace_id),
        ("no < ?", before),
    )
    given = [(condition, value) for condition, value in wanted if value is not None]
    conditions = " AND ".join(condition for condition, _ in given) or "1"
    rows = connection.execute(
        _SELECT.format(conditions=conditions), (*(value for _, value in given), max(0, limit))
    )
    return [(row[0], ScheduleLogForWebItem.model_validate_json(row[1])) for row in rows]
