"""What reading handlers do with what was learned: one transaction, told in the web logs.

Local programs and the playground get `addMemory`, `updateMemory` and `archiveMemory`; calls through any
other API path get one `knowledgeBaseUpdate` in the place of the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memos import log
from memos.errors import VersionConflict
from memos.mem_scheduler.change_logs import after, archived_log
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import handed_over
from memos.mem_scheduler.model_steps.account import Account
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import added_log, knowledge_base_log, updated_log
from memos.memory.item import MemoryItem
from memos.memory.learning import Extractor, Learned, Learner
from memos.memory.store import Followup
from memos.memory.summary import stale_summaries

logger = log.get_logger(__name__)

CONFLICT_TRIES = 3
TRIGGER = "Messages"


def learner(ctx: HandlerContext, extract: Extractor | None = None) -> Learner:
    """The learner over the services; `extract` reads in the place of theirs."""
    services = ctx.services
    return Learner(
        services.store,
        services.indexer,
        services.clock,
        extract=extract or services.extract,
        tokens_max=services.item_tokens_max,
    )


def with_retries(attempt: Callable[[], None]) -> None:
    """Run `attempt` again, a bounded number of times, when a fact changed between its look and its write."""
    for left in reversed(range(CONFLICT_TRIES)):
        try:
            attempt()
            return
        except VersionConflict:
            if not left:
                raise  # the queue tries again later
            logger.info("learned.conflict", tries_left=left)


def commit(
    ctx: HandlerContext,
    message: ScheduleMessageItem,
    learned: Learned,
    *,
    raw: Sequence[MemoryItem] = (),
    followups: Sequence[Followup] = (),
    account: Account | None = None,
) -> None:
    """Commit everything with the mark of `message`; `raw` are stored items nobody has told of yet, `account`
    is what questions to a model came to."""
    heirs = {item.id: by_id for item, by_id in learned.replaced}
    # The place of a turn passes on as well: beside what holds, the turn would say the opposite.
    places_of = {**learned.outdated, **heirs}
    working = ctx.services.store.working(message.mem_cube_id)
    places = handed_over(working, places_of, "holds in its place")
    # The places last: the item that takes one over has to be there.
    logs = [*(account.logs(ctx, message) if account else ()), *_logs(ctx, message, learned, raw)]
    stale = stale_summaries(ctx.services.store, message.mem_cube_id, heirs)
    ctx.apply(message, [*learned.changes, *places, *stale], followups=followups, logs=logs)
    logger.info(
        "learned.done",
        raw=len(raw),
        added=len(learned.added),
        confirmed=len(learned.confirmed),
        superseded=len(learned.replaced),
        left_out=len(learned.left_out),
        conflicts=len(learned.conflicts),
    )


def _logs(
    ctx: HandlerContext, message: ScheduleMessageItem, learned: Learned, raw: Sequence[MemoryItem]
) -> list[ScheduleLogForWebItem]:
    gone = [item for item, _ in learned.replaced]
    facts = after(ctx.facts(message.mem_cube_id), gone=gone, come=learned.added)
    earlier = {by_id: item.memory for item, by_id in learned.replaced}
    added = [*raw, *(item for item in learned.added if item.live and item.id not in earlier)]
    changed = [(item, earlier[item.id]) for item in learned.added if item.id in earlier and item.live]
    changed += [(item, item.memory) for item in learned.confirmed]
    logs: list[ScheduleLogForWebItem] = []
    if message.api_path and "playground" not in message.api_path:
        if added or changed:
            logs.append(knowledge_base_log(message, added, changed, trigger=TRIGGER, facts=facts))
    else:
        if added:
            logs.append(added_log(message, added, facts=facts))
        if changed:
            logs.append(updated_log(message, changed, facts=facts))
    for kind in dict.fromkeys(item.kind for item in gone):
        retired = [(item, f"superseded by {by_id}") for item, by_id in learned.replaced if item.kind is kind]
        logs.append(archived_log(message, retired, facts=facts))
    return logs
