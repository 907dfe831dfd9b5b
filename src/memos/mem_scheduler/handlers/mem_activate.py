"""`mem_activate`: make ready, as a prefix for the model, what stands in working memory.

Off the chat path, for every reader of the cube: look whether the block changed since its prefix was made, and
whether it is worth it (long enough, asked often enough); then extend the old prefix or build a new one. The
prefix is made first and put on record with the mark and the log of this message, in one transaction. A crash
before it leaves nothing on record: the repeat makes it again, and finds what is there by its name. A prefix
that fails is a counted failure with a log, never a failed task: the chat does without, and the next round
tries again.
"""

from __future__ import annotations

from collections.abc import Sequence

from memos import log, metrics
from memos.errors import ActivationError, ActivationMiss, ActivationUnsupported, MemosError, ModelError
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.monitors.activation import ActivationMonitor
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import activation_log
from memos.memory.activation.base import MissReason
from memos.memory.activation.index import Block, PutPrefix
from memos.memory.activation.keeper import PrefixKeeper
from memos.memory.item import MemoryItem
from memos.memory.store import Change, ItemFilter
from memos.prompts import Language

BLOCKS_MAX = 32  # readers of a cube looked at in one run, those who chatted last
FORCED = "forced"  # in `info`: somebody asked for it; worth and rate of questions are not looked at
MEMORY_IDS = "memory_ids"  # in `info`: what to promote instead of working memory

logger = log.get_logger(__name__)


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        if not ctx.is_repeat(message):
            with ctx.bound_to(message):
                _promote(ctx, message)


def _promote(ctx: HandlerContext, message: ScheduleMessageItem) -> None:
    services = ctx.services
    keeper = services.activation
    version = services.store.working(message.mem_cube_id).version
    changes: list[Change] = []
    logs: list[ScheduleLogForWebItem] = []
    settled = True
    if keeper is None or not keeper.builds or keeper.index is None:
        logs.append(_told(ctx, message, (), "failed", "nothing here keeps prefixes (unsupported)"))
        metrics.ACTIVATION_PROMOTIONS.add(outcome="skipped", reason=str(MissReason.UNSUPPORTED))
    else:
        keeper.sweep()
        for block in _blocks(ctx, keeper, message):
            settled = _one(ctx, message, keeper, block, changes, logs) and settled
    monitor = ActivationMonitor(ctx.limits.activation_interval_s)
    changes.append(monitor.done(message.mem_cube_id, working_version=version, settled=settled))
    ctx.apply(message, changes, logs=logs)
    if keeper is not None and changes:
        keeper.sweep()  # what was replaced


def _blocks(ctx: HandlerContext, keeper: PrefixKeeper, message: ScheduleMessageItem) -> list[Block]:
    index = keeper.index
    assert index is not None
    info = message.info or {}
    found = index.blocks(cube_id=message.mem_cube_id)
    if not info.get(FORCED):
        return found[:BLOCKS_MAX]
    mine = [one for one in found if one.user_id == message.user_id]
    if mine:
        return mine[:BLOCKS_MAX]
    cubes = (message.mem_cube_id,)
    return [Block(keeper.blocks.namespace(message.user_id, cubes), message.user_id, cubes, "en")]


def _one(
    ctx: HandlerContext,
    message: ScheduleMessageItem,
    keeper: PrefixKeeper,
    block: Block,
    changes: list[Change],
    logs: list[ScheduleLogForWebItem],
) -> bool:
    """Promote one block; whether nothing is left to do for it."""
    forced = bool((message.info or {}).get(FORCED))
    language: Language = "zh" if block.language == "zh" else "en"
    prepared = keeper.blocks.prepare(
        block.user_id,
        block.cube_ids,
        _wanted(ctx, message, block),
        language=language,
        system_prompt=None,
    )
    try:
        kept = keeper.newest(block.namespace)
        decision = keeper.decide(prepared, kept, forced=forced)
        if decision.how == "skip":
            metrics.ACTIVATION_PROMOTIONS.add(outcome="skipped", reason=decision.reason)
            logger.info("activation.skipped", reason=decision.reason)
            if forced and decision.reason != "unchanged":
                text = f"not prepared: {decision.reason}"
                logs.append(_told(ctx, message, prepared.items, "completed", text))
            return decision.settled
        made = keeper.make(prepared, kept, decision)
    except (ActivationError, ModelError) as error:
        reason = _reason(error)
        metrics.ACTIVATION_PROMOTIONS.add(outcome="failed", reason=reason)
        logger.warning("activation.failed", reason=reason, error=str(error))
        logs.append(_told(ctx, message, (), "failed", f"not prepared ({reason}): {error}"))
        return isinstance(error, ActivationUnsupported)
    changes.append(PutPrefix(made, "replaced"))
    outcome = "extended" if decision.how == "extend" else "built"
    metrics.ACTIVATION_PROMOTIONS.add(outcome=outcome, reason=decision.reason)
    known = set(kept.item_ids) if kept is not None else set()
    text = (
        f"{len(made.item_ids)} memories {outcome} as a prefix of {made.tokens} tokens "
        f"({decision.reason}, {decision.reuse:.0%} still held)"
    )
    new = len([one for one in made.item_ids if one not in known])
    logs.append(_told(ctx, message, prepared.items, "completed", text, added=new))
    return True


def _wanted(ctx: HandlerContext, message: ScheduleMessageItem, block: Block) -> list[MemoryItem]:
    """What is to stand in the block, most relevant first."""
    store = ctx.services.store
    named = (message.info or {}).get(MEMORY_IDS)
    if isinstance(named, list):
        ids = [one for one in named if isinstance(one, str)]
        if not ids:
            return []
        found = {one.id: one for one in store.find(ItemFilter(ids=tuple(ids)), limit=len(ids)).items}
        return [
            found[one] for one in dict.fromkeys(ids) if one in found and found[one].cube_id in block.cube_ids
        ]
    return [item for cube_id in block.cube_ids for item in store.working(cube_id).items]


def _reason(error: MemosError) -> str:
    if isinstance(error, ActivationMiss):
        return str(error.reason)
    if isinstance(error, ActivationUnsupported):
        return str(MissReason.UNSUPPORTED)
    return str(MissReason.UNREACHABLE if error.retryable else MissReason.FAILED)


def _told(
    ctx: HandlerContext,
    message: ScheduleMessageItem,
    items: Sequence[MemoryItem],
    status: str,
    text: str,
    *,
    added: int = 0,
) -> ScheduleLogForWebItem:
    return activation_log(
        message, items, status=status, text=text, facts=ctx.facts(message.mem_cube_id), added=added
    )
