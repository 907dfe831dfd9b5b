"""Web logs in the database: bounded, newest first; the oldest leave.

Whoever reads on from a number (a publisher) must not be overtaken by a lower one that is committed later, so
the writers of logs wait for each other: from the numbering to the commit, which comes right after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.postgres.session import Session
from memos.memory.relational.logs import log_body

_ONE_BY_ONE = "SELECT pg_advisory_xact_lock('web_log'::regclass::oid::bigint)"
_INSERT = """
INSERT INTO web_log (cube_id, user_id, label, trace_id, body)
VALUES (%(cube_id)s, %(user_id)s, %(label)s, %(trace_id)s, %(body)s)
"""
_TRIM = "DELETE FROM web_log WHERE no <= (SELECT max(no) FROM web_log) - %(kept)s"
_SELECT: LiteralString = "SELECT no, body FROM web_log WHERE {conditions} ORDER BY no DESC LIMIT %(limit)s"
_OF_CUBE = "cube_id = %(cube_id)s"
_OF_USER = "user_id = %(user_id)s"
_OF_LABEL = "label = %(label)s"
_OF_TRACE = "trace_id = %(trace_id)s"
_BEFORE = "no < %(before)s"


@dataclass(frozen=True, slots=True)
class PostgresWebLogs:
    """Fulfils `WebLogTable`."""

    session: Session

    def put(self, logs: Sequence[ScheduleLogForWebItem], *, kept_max: int) -> int:
        rows = [
            {
                "cube_id": log.mem_cube_id,
                "user_id": log.user_id,
                "label": log.label,
                "trace_id": log.trace_id,
                "body": log_body(log),
            }
            for log in logs
        ]
        self.session.run(_ONE_BY_ONE)
        self.session.run_many(_INSERT, rows)
        return self.session.run(_TRIM, kept=kept_max)

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
        wanted: tuple[tuple[LiteralString, object], ...] = (
            (_OF_CUBE, cube_id),
            (_OF_USER, user_id),
            (_OF_LABEL, label),
            (_OF_TRACE, trace_id),
            (_BEFORE, before),
        )
        conditions = [condition for condition, value in wanted if value is not None]
        rows = self.session.rows(
            _SELECT.format(conditions=" AND ".join(conditions) or "true"),
            cube_id=cube_id,
            user_id=user_id,
            label=label,
            trace_id=trace_id,
            before=before,
            limit=max(0, limit),
        )
        return [(row[0], ScheduleLogForWebItem.model_validate_json(row[1])) for row in rows]
