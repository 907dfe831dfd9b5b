"""The `summarise` scope of `mem_organize`: what a cube holds about one subject, in a few sentences.

Asked for by the last page of the `cube` scope where there is a model for it. The parts stay as they are;
the summary stands beside them and names them as its sources. One message asks one question about a few
subjects and commits once; while there are more, it chains the next. Without a usable answer nothing is
summarised: rules write no prose.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from uuid import uuid4

from memos import log
from memos.clock import utc
from memos.mem_scheduler.change_logs import after
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import all_of, handed_over, indexed, retired
from memos.mem_scheduler.model_steps.account import Account, patiently
from memos.mem_scheduler.model_steps.summaries import GROUPS_MAX, STEP, SummariesRead, summarise
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_ORGANIZE_TASK_LABEL
from memos.mem_scheduler.web_log import added_log
from memos.memory.item import MemoryItem
from memos.memory.store import AddItems, Change, ItemFilter
from memos.memory.summary import Group, as_summary, groups
from memos.models.ask import Answer

logger = log.get_logger(__name__)

SCOPE = "summarise"
ITEMS_MAX = 5_000


@dataclass(slots=True)
class Asked:
    """What the model said about the groups of one message. It is asked once, however often it is decided."""

    account: Account = field(default_factory=Account)
    groups: list[Group] = field(default_factory=list)
    read: SummariesRead | None = None
    more: bool = False


def content() -> str:
    """The content of the message that asks for it."""
    return json.dumps({"scope": SCOPE})


def attempt(ctx: HandlerContext, message: ScheduleMessageItem, asked: Asked) -> None:
    """One question and its summaries. Raises VersionConflict when a summary changed meanwhile."""
    if asked.read is None:
        _ask(ctx, message, asked)
    read = asked.read or SummariesRead(Answer(STEP, ""))
    now = utc(ctx.services.clock.now())
    new: list[MemoryItem] = []
    changes: list[Change] = []
    heirs: dict[str, str] = {}
    for place, text in read.texts.items():
        group = asked.groups[place]
        item = as_summary(group, text, item_id=str(uuid4()), now=now)
        new.append(item)
        if group.before is not None:
            heirs[group.before.id] = item.id
    if new:
        changes.append(AddItems(tuple(indexed(ctx, message.mem_cube_id, new)), reason="summarised"))
        working = ctx.services.store.working(message.mem_cube_id)
        changes += handed_over(working, heirs, "summarised again")
        changes += [
            retired(group.before, "summarised again", by_id=heirs[group.before.id])
            for group in asked.groups
            if group.before is not None and group.before.id in heirs
        ]
    logs = asked.account.logs(ctx, message)
    if new:
        facts = after(ctx.facts(message.mem_cube_id), come=new)
        logs.append(added_log(message, new, facts=facts))
    followups = []
    if asked.more and new:  # a model that gives nothing is not asked about the rest
        followups.append(ctx.chained(message, MEM_ORGANIZE_TASK_LABEL, content=content()))
    ctx.apply(message, changes, followups=followups, logs=logs)
    logger.info("summarise.done", groups=len(asked.groups), written=len(new), dropped=read.dropped)


def _ask(ctx: HandlerContext, message: ScheduleMessageItem, asked: Asked) -> None:
    services = ctx.services
    llm = services.llm_for("summaries")
    read = SummariesRead(Answer(STEP, ""))
    if llm is not None:
        wanted = ItemFilter(cube_ids=(message.mem_cube_id,), raw=False)
        found = groups(all_of(services.store, wanted, limit=ITEMS_MAX))
        asked.groups, asked.more = found[:GROUPS_MAX], len(found) > GROUPS_MAX
        if asked.groups:

            def question() -> Answer:
                nonlocal read
                read = summarise(llm, asked.groups, today=utc(services.clock.now()))
                return read.answer

            answer = patiently(ctx, message, STEP, question)
            asked.account.took(answer, dropped=read.dropped)
    asked.read = read
