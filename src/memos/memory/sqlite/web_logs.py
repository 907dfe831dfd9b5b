"""Web logs in the file: bounded, newest first; the oldest leave."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.relational.logs import log_body

_INSERT = "INSERT INTO web_log (cube_id, user_id, label, trace_id, body) VALUES (?, ?, ?, ?, ?)"
_TRIM = "DELETE FROM web_log WHERE no <= (SELECT max(no) FROM web_log) - ?"
_SELECT = "SELECT no, body FROM web_log WHERE {conditions} ORDER BY no DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class SqliteWebLogs:
    """Fulfils `WebLogTable`."""

    connection: sqlite3.Connection

    def put(self, logs: Sequence[ScheduleLogForWebItem], *, kept_max: int) -> int:
        self.connection.executemany(
            _INSERT,
            [(log.mem_cube_id, log.user_id, log.label, log.trace_id, log_body(log)) for log in logs],
        )
        return self.connection.execute(_TRIM, (kept_max,)).rowcount

    def read(
        self,
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
        rows = self.connection.execute(
            _SELECT.format(conditions=conditions), (*(value for _, value in given), max(0, limit))
        )
        return [(row[0], ScheduleLogForWebItem.model_validate_json(row[1])) for row in rows]
