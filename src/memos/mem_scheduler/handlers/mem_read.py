"""`mem_read`: read raw items into derived ones. Content: a JSON list of ids of raw items.

New facts, confirmed ones, superseded ones, the mark on the raw items that they are read, and the web logs
are one transaction, so a raw item is marked as read only when what it taught is stored. It stays what it
was: recallable, under its id. An extractor that fails leaves everything as it is, and the queue tries again.
Items that were deleted, read already, or stand in another cube are passed over.

With a reader's model each window of items is one question (`model_steps.reading`), asked before anything is
written; what was answered is kept while the message waits, so that no window is paid for twice. An endpoint that
cannot be reached has the message come again for `UNREACHED_MAX_S`, then rules read alone; a reply that cannot be
used has them do so at once. An item of which nothing was made keeps the reason in `extra["reading"]`, and a
`modelFault` log keeps a reply that could not be used. A `pref_add` about the user's turns is chained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from memos import log
from memos.errors import ModelUnavailable, RetryLater
from memos.mem_scheduler.handlers.add import item_ids
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import present
from memos.mem_scheduler.handlers.learned import commit, learner, with_retries
from memos.mem_scheduler.model_steps.account import Account, patiently
from memos.mem_scheduler.model_steps.preferences import TURNS_MAX, turns_to_read
from memos.mem_scheduler.model_steps.reading import STEP, Window, WindowRead, extractor, read_window, windows
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import PREF_ADD_TASK_LABEL
from memos.memory.item import MemoryItem, ReadState
from memos.memory.learning import Learned
from memos.memory.store import Followup, IndexedItem, UpdateItem
from memos.models.ask import Answer
from memos.retrieval.keywords import analyse

logger = log.get_logger(__name__)

READING = "reading"  # in a raw item's `extra`: why nothing was made of it
UNREACHED_RETRY_S = 5.0
UNREACHED_MAX_S = 20.0


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        with ctx.bound_to(message):
            if not ctx.is_repeat(message):
                account = Account()
                reads = _ask(ctx, message, _raw(ctx, message), account)
                with_retries(partial(_read, ctx, message, reads, account))


def _raw(ctx: HandlerContext, message: ScheduleMessageItem) -> list[MemoryItem]:
    """The items of a message that are still to be read."""
    ids = item_ids(message)
    found = present(ctx.services.store, ids)
    if len(found) < len(set(ids)):
        logger.info("mem_read.items_gone", items=len(set(ids)) - len(found))
    return [item for item in found if _is_to_read(item, message.mem_cube_id)]


def _ask(
    ctx: HandlerContext, message: ScheduleMessageItem, raw: Sequence[MemoryItem], account: Account
) -> list[WindowRead]:
    """What the model reads out of the items; [] where rules read alone. RetryLater while it is worth waiting."""
    llm = ctx.services.llm_for("reading")
    if llm is None:
        return []
    reads: list[WindowRead] = []
    for window in windows(raw):
        key = (llm.name, *((item.id, item.version) for item in window.items))
        read = ctx.services.read_answers.get(key)
        if read is None:
            made: list[WindowRead] = []

            def question(window: Window = window, made: list[WindowRead] = made) -> Answer:
                made.append(read_window(llm, window))
                return made[-1].answer

            answer = patiently(ctx, message, STEP, question)
            read = made[-1] if made else WindowRead(window, answer)
            _wait_if_unreached(ctx, message, answer)
            ctx.services.read_answers.put(key, read)
        account.took(read.answer, dropped=read.dropped)
        reads.append(read)
    return reads


def _wait_if_unreached(ctx: HandlerContext, message: ScheduleMessageItem, answer: Answer) -> None:
    """RetryLater, which counts no attempt, where the endpoint may answer in a while."""
    waited = ctx.waited_s(message)
    if not answer.fault.startswith(ModelUnavailable.__name__) or waited is None:
        return
    if waited + UNREACHED_RETRY_S <= UNREACHED_MAX_S:
        raise RetryLater(UNREACHED_RETRY_S, f"the reader's model is not reached: {answer.fault}")


def _read(
    ctx: HandlerContext, message: ScheduleMessageItem, reads: Sequence[WindowRead], account: Account
) -> None:
    raw = _raw(ctx, message)
    learned = learner(ctx, extractor(reads) if reads else None).read(message.mem_cube_id, raw)
    told: Sequence[MemoryItem] = raw
    if reads:
        reasons = _reasons(learned, raw)
        learned = replace(learned, changes=(*reasons, *learned.changes))
        noted = {one.indexed.item.id: one.indexed.item for one in reasons}
        told = [noted.get(item.id, item) for item in raw]
    commit(ctx, message, learned, raw=told, followups=_preferences(ctx, message, raw), account=account)
    nothing = [reason for reason in learned.reasons.values() if reason.startswith("nothing")]
    if nothing:
        logger.info("mem_read.nothing_derived", items=len(nothing), reasons=sorted(set(nothing))[:5])


def _reasons(learned: Learned, raw: Sequence[MemoryItem]) -> list[UpdateItem]:
    """The items of which nothing was made, each with the reason; those that change anyway are left alone."""
    changing = {one.indexed.item.id for one in learned.changes if isinstance(one, UpdateItem)}
    changes = []
    for item in raw:
        reason = learned.reasons.get(item.id, "")
        if reason.startswith("nothing") and item.id not in changing:
            noted = replace(item, extra={**item.extra, READING: reason})
            changes.append(UpdateItem(IndexedItem(noted, analyse(item.memory)), item.version, reason))
    return changes


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
