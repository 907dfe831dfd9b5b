"""Web logs and followups as JSON rows, and what a call may give of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from memos.errors import InvalidInput
from memos.memory.store import Followup

if TYPE_CHECKING:
    from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
    from memos.memory.relational.tables import Tables

_DROPPED = "web_logs_dropped"


def log_body(log: ScheduleLogForWebItem) -> str:
    """A web log as JSON."""
    return json.dumps(log.model_dump(), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def put_web_logs(tables: Tables, logs: Sequence[ScheduleLogForWebItem], *, kept_max: int) -> None:
    """Add logs and let the oldest go that are over the bound; those are counted."""
    if not logs:
        return
    gone = tables.logs.put(logs, kept_max=kept_max)
    if gone:
        tables.meta.put(_DROPPED, str(dropped(tables) + gone))


def dropped(tables: Tables) -> int:
    """How many logs the bound has pushed out so far."""
    return int(tables.meta.get(_DROPPED) or 0)


def check_followups(message_key: str, followups: Sequence[Followup]) -> None:
    """InvalidInput for a followup of another parent, or with an impossible delay."""
    for followup in followups:
        if followup.parent_key != message_key:
            raise InvalidInput(
                f"followup {followup.key!r} names the parent {followup.parent_key!r}, not {message_key!r}"
            )
        if not math.isfinite(followup.delay_s) or followup.delay_s < 0:
            raise InvalidInput(f"followup {followup.key!r} has the delay {followup.delay_s}; give 0 or more")
