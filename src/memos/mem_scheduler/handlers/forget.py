"""The `forget` scope of `mem_organize`: archive what has faded, what has outlived its time to live, and
facts whose end has come. The housekeeper asks for it at an interval; see `RetentionRules`.

Nothing is deleted: every item that goes leaves an archive record, a journal row with the figure that
decided, and an `archiveMemory` log, in one transaction. What stands in working memory, and what still
waits to be read, stays. Bounded work: a page of the cube for each message, the next page is chained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from memos import log
from memos.clock import utc
from memos.mem_scheduler.change_logs import after, archived_log
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import retired
from memos.mem_scheduler.monitors.retention import FORGET_SCOPE, RetentionMonitor
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_ORGANIZE_TASK_LABEL
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.forgetting import to_archive
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind
from memos.memory.store import Change, ItemFilter

logger = log.get_logger(__name__)

SCOPE = FORGET_SCOPE
PAGE_ITEMS = 1_000


def attempt(ctx: HandlerContext, message: ScheduleMessageItem, cursor: str | None) -> None:
    """One page. Raises VersionConflict when an item of it changed meanwhile."""
    services = ctx.services
    now = utc(services.clock.now())
    page = services.store.find(ItemFilter(cube_ids=(message.mem_cube_id,)), limit=PAGE_ITEMS, cursor=cursor)
    working = frozenset(entry.item_id for entry in services.store.working(message.mem_cube_id).entries)
    going = _going(ctx, page.items, working, now)
    changes: list[Change] = [retired(item, reason) for item, reason in going]
    followups = []
    if page.next_cursor:
        content = json.dumps({"scope": SCOPE, "cursor": page.next_cursor})
        followups.append(ctx.chained(message, MEM_ORGANIZE_TASK_LABEL, content=content))
    else:
        changes.append(RetentionMonitor.looked(message.mem_cube_id, services.clock.now()))
    ctx.apply(message, changes, followups=followups, logs=_logs(ctx, message, going))
    logger.info("forget.done", looked_at=len(page.items), archived=len(going))


def _going(
    ctx: HandlerContext, items: Sequence[MemoryItem], working: frozenset[str], now: datetime
) -> list[tuple[MemoryItem, str]]:
    rules = ctx.services.retention
    by_id = {item.id: item for item in items}
    faded = to_archive(
        items,
        now,
        ttl=timedelta(days=rules.ttl_days) if rules.ttl_days else None,
        threshold=rules.threshold,
        protected=working,
    )
    going = {one.item_id: one.reason for one in faded}
    for item in items:
        if item.id not in working and not item.raw and item.valid_until and item.valid_until <= now:
            going.setdefault(item.id, f"held until {item.valid_until.isoformat()}")
    return [(by_id[item_id], reason) for item_id, reason in going.items()]


def _logs(
    ctx: HandlerContext, message: ScheduleMessageItem, going: Sequence[tuple[MemoryItem, str]]
) -> list[ScheduleLogForWebItem]:
    facts = ctx.facts(message.mem_cube_id)
    logs = []
    for kind in MemoryKind:
        group = [(replace(item, status=ItemStatus.ARCHIVED), why) for item, why in going if item.kind is kind]
        if group:
            facts = after(facts, gone=[item for item, _ in group])
            logs.append(archived_log(message, group, facts=facts))
    return logs
