"""`answer`: the assistant said something. Tells it as `addMessage`, and counts the memories it used as used.

Which those are: the ids that the message's `info` names (`memory_ids`, as the chat knows them; also
`used`), only those of the message's cube; without that field, the working memories most of whose words
the answer repeats. Uses, the window of answers and the log are one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import present
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.web_log import message_log
from memos.memory.item import MemoryItem
from memos.memory.store import Change, TouchItems
from memos.retrieval.keywords import analyse

USED_FIELDS = ("memory_ids", "used")
USED_MAX = 200
SHARE_MIN = 0.6  # of a memory's words that an answer repeats, if it used the memory
SHARED_MIN = 2


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        with ctx.bound_to(message):
            if not ctx.is_repeat(message):
                _tell(ctx, message)


def _tell(ctx: HandlerContext, message: ScheduleMessageItem) -> None:
    services = ctx.services
    monitor, cube_id, user_id = services.activity, message.mem_cube_id, message.user_id
    used = used_by(ctx, message)
    before = monitor.read_answers(services.store, cube_id, user_id)
    answers = monitor.answered(before, message.content, used, services.clock.now())
    changes: list[Change] = [monitor.answers_change(cube_id, user_id, answers)]
    if used:
        changes.append(TouchItems(tuple(used), "used by an answer"))
    ctx.apply(message, changes, logs=[message_log(message, role="assistant", facts=ctx.facts(cube_id))])


def used_by(ctx: HandlerContext, message: ScheduleMessageItem) -> list[str]:
    """The ids of the memories of the message's cube that the answer used."""
    store = ctx.services.store
    info = message.info or {}
    named = next((info[name] for name in USED_FIELDS if name in info), None)
    if named is None:
        return [item.id for item in quoted(message.content, store.working(message.mem_cube_id).items)]
    ids = [one for one in named if isinstance(one, str)] if isinstance(named, list) else []
    found = present(store, ids[:USED_MAX])
    return [item.id for item in found if item.cube_id == message.mem_cube_id]


def quoted(answer: str, items: Sequence[MemoryItem]) -> list[MemoryItem]:
    """Those of the items most of whose words stand in the answer."""
    said = frozenset(analyse(answer))
    found = []
    for item in items:
        own = frozenset(analyse(item.memory))
        shared = len(own & said)
        if shared >= SHARED_MIN and shared >= SHARE_MIN * len(own):
            found.append(item)
    return found
