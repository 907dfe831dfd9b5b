"""Every move of a memory between kinds goes through `memos.memory.convert`: this is where it is called.

Into and out of working memory (`entering`, `leaving`: what `mem_update` does), and from one home to
another (`move`: what a program asks for), with the row, the journal and the log in one transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from memos.clock import utc
from memos.mem_scheduler.change_logs import after, moved_log
from memos.mem_scheduler.handlers.context import cause_of
from memos.mem_scheduler.handlers.edits import rewritten
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_UPDATE_TASK_LABEL
from memos.mem_scheduler.web_log import CubeFacts
from memos.memory.convert import REASON_CHARS_MAX, Area, Conversion, convert
from memos.memory.item import MemoryItem, MemoryKind

if TYPE_CHECKING:
    from memos.mem_scheduler.handlers.context import Services


def entering(item: MemoryItem, why: str, now: datetime) -> Conversion | None:
    """The item gets a place in working memory; None when it lives there already."""
    if item.kind is MemoryKind.WORKING:
        return None
    return convert(item, Area.WORKING, why[:REASON_CHARS_MAX], now)


def leaving(item: MemoryItem, why: str, now: datetime) -> Conversion:
    """The item loses its place and goes home; one that was written to working memory alone gets a home."""
    home = MemoryKind.LONG_TERM if item.kind is MemoryKind.WORKING else item.kind
    return convert(item, home, why[:REASON_CHARS_MAX], now, from_kind=Area.WORKING)


def move(services: Services, item_id: str, to_kind: str, reason: str, *, user_id: str = "") -> MemoryItem:
    """Move a memory to another home, with its log; returns it as it is then.

    Raises ItemNotFound, ItemGone, InvalidInput for a move that is not allowed, VersionConflict.
    """
    store = services.store
    (item,) = store.get([item_id])
    moved = convert(item, to_kind, reason, utc(services.clock.now()))
    told = ScheduleMessageItem(
        user_id=user_id or item.user_id, mem_cube_id=item.cube_id, label=MEM_UPDATE_TASK_LABEL, content=reason
    )
    facts = after(
        CubeFacts(store.sizes(item.cube_id), store.capacities), gone=[item], come=[moved.item], archived=False
    )
    log = moved_log(told, [moved], facts=facts)
    store.apply([rewritten(item, moved.item, moved.reason)], cause=cause_of(told), logs=[log])
    services.sink.emit([log])
    return store.get([item_id])[0]
