"""`mem_read`: read raw items into derived ones. Content: a JSON list of ids of raw items.

New facts, confirmed ones, superseded ones, the mark on the raw items that they are read, and the web logs
are one transaction, so a raw item is marked as read only when what it taught is stored. It stays what it
was: recallable, under its id. With a model a `pref_add` about the user's turns is chained. An extractor that fails leaves everything as it is, and the queue tries
again. Items that were deleted, read already, or stand in another cube are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from memos import log
from memos.mem_scheduler.handlers.add import item_ids
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import present
from memos.mem_scheduler.handlers.learned import commit, learner, with_retries
from memos.mem_scheduler.model_steps.preferences import TURNS_MAX, turns_to_read
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import PREF_ADD_TASK_LABEL
from memos.memory.item import MemoryItem, ReadState
from memos.memory.store import Followup

logger = log.get_logger(__name__)


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        with ctx.bound_to(message):
            if not ctx.is_repeat(message):
                with_retries(lambda message=message: _read(ctx, message))  # type: ignore[misc]


def _read(ctx: HandlerContext, message: ScheduleMessageItem) -> None:
    ids = item_ids(message)
    found = present(ctx.services.store, ids)
    if len(found) < len(set(ids)):
        logger.info("mem_read.items_gone", items=len(set(ids)) - len(found))
    raw = [item for item in found if _is_to_read(item, message.mem_cube_id)]
    learned = learner(ctx).read(message.mem_cube_id, raw)
    commit(ctx, message, learned, raw=raw, followups=_preferences(ctx, message, raw))
    nothing = [reason for reason in learned.reasons.values() if reason.startswith("nothing")]
    if nothing:
        logger.info("mem_read.nothing_derived", items=len(nothing), reasons=sorted(set(nothing))[:5])


def _preferences(
    ctx: HandlerContext, message: ScheduleMessageItem, raw: Sequence[MemoryItem]
) -> list[Followup]:
    """With a model, the tasks that look for preferences which rules do not see."""
    if ctx.services.llm_for("preferences") is None:
        return []
    ids = [item.id for item in turns_to_read(raw)]
    return [
        ctx.chained(message, PREF_ADD_TASK_LABEL, content=json.dumps(ids[first : first + TURNS_MAX]))
        for first in range(0, len(ids), TURNS_MAX)
    ]


def _is_to_read(item: MemoryItem, cube_id: str) -> bool:
    return item.cube_id == cube_id and item.raw and item.live and item.read is not ReadState.DONE
