"""`add`: memories were stored or changed. Tells it; the content is a JSON list of item ids.

Local programs and the playground get `addMemory` and `updateMemory`; calls through any other API path
get one `knowledgeBaseUpdate`. Items that were deleted meanwhile are left out: there is nothing to tell.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from memos import log
from memos.errors import Discard, ItemGone, ItemNotFound
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import added_log, knowledge_base_log, updated_log
from memos.memory import learning
from memos.memory.item import MemoryItem

logger = log.get_logger(__name__)

MERGED_FROM = learning.MERGED_FROM  # in an item's `extra`: the ids of the items it took the place of


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        with ctx.bound_to(message):
            if ctx.is_repeat(message):
                continue
            ctx.apply(message, logs=_logs(ctx, message, _stored(ctx, item_ids(message))))


def item_ids(message: ScheduleMessageItem) -> list[str]:
    """The ids in the content. Discard when it is no JSON list of strings: no retry can mend it."""
    try:
        ids = json.loads(message.content)
    except ValueError as error:
        raise Discard(f"content of an {message.label!r} message is not JSON: {error}") from error
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise Discard(f"content of an {message.label!r} message must be a JSON list of item ids")
    return ids


def _stored(ctx: HandlerContext, ids: Sequence[str]) -> list[MemoryItem]:
    try:
        return ctx.services.store.get(ids)
    except (ItemGone, ItemNotFound) as error:
        if len(ids) == 1:
            logger.info("add.item_left_out", item_id=ids[0], error=type(error).__name__)
            return []
    return [item for item_id in ids for item in _stored(ctx, [item_id])]


def _logs(
    ctx: HandlerContext, message: ScheduleMessageItem, items: Sequence[MemoryItem]
) -> list[ScheduleLogForWebItem]:
    if not items:
        return []
    facts = ctx.facts(message.mem_cube_id)
    added = [item for item in items if not item.extra.get(MERGED_FROM)]
    changed = [(item, _text_before(ctx, item)) for item in items if item.extra.get(MERGED_FROM)]
    if message.api_path and "playground" not in message.api_path:
        return [knowledge_base_log(message, added, changed, trigger="Messages", facts=facts)]
    logs: list[ScheduleLogForWebItem] = []
    if added:
        logs.append(added_log(message, added, facts=facts))
    if changed:
        logs.append(updated_log(message, changed, facts=facts))
    return logs


def _text_before(ctx: HandlerContext, item: MemoryItem) -> str:
    """The texts of the items that `item` took the place of, as far as they are still kept."""
    ids = item.extra.get(MERGED_FROM)
    names = [ids] if isinstance(ids, str) else list(ids or ())
    return "\n".join(before.memory for before in _stored(ctx, [str(name) for name in names]))
