"""`mem_update`: bring into working memory what the query needs.

Keywords and the query window go to the activity state; intent says whether working memory suffices; if
not, old and new memories are pooled, scored and the best take the places. Activity, the new set and the
log are one transaction; if somebody replaced the set meanwhile, everything is decided again on the new
one, a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Sequence

from memos import log, metrics
from memos.clock import utc
from memos.errors import VersionConflict
from memos.mem_scheduler.handlers.context import HandlerContext, info_text
from memos.mem_scheduler.handlers.edits import rewritten
from memos.mem_scheduler.handlers.moves import entering, leaving
from memos.mem_scheduler.handlers.turn import Pool, SessionTurn, TurnQuery
from memos.mem_scheduler.monitors.activation import ActivationMonitor
from memos.mem_scheduler.monitors.activity import Activity
from memos.mem_scheduler.monitors.intent import Intent
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.web_log import unchanged_log, working_log
from memos.memory.item import MemoryItem, WorkingEntry, WorkingSet
from memos.memory.store import Change, ReplaceWorking
from memos.retrieval.request import QUERY_CHARS_MAX

logger = log.get_logger(__name__)

CONFLICT_TRIES = 3
TURN_ID = "turn_id"  # in a message's `info`: the chat turn that it belongs to


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        with ctx.bound_to(message):
            if not ctx.is_repeat(message):
                _update(ctx, message)


def turn_query(message: ScheduleMessageItem) -> TurnQuery:
    """What the message asks."""
    return TurnQuery(
        text=message.content[:QUERY_CHARS_MAX],
        user_id=message.user_id,
        cube_id=message.mem_cube_id,
        session_id=message.session_id,
        turn_id=info_text(message, TURN_ID),
    )


def _update(ctx: HandlerContext, message: ScheduleMessageItem) -> None:
    for left in reversed(range(CONFLICT_TRIES)):
        try:
            _attempt(ctx, message)
            return
        except VersionConflict:
            if not left:
                raise  # the queue tries again later
            logger.info("working.conflict", tries_left=left)


def _attempt(ctx: HandlerContext, message: ScheduleMessageItem) -> None:
    services = ctx.services
    monitor = services.activity
    turn = SessionTurn(services, ctx.limits)
    query = turn_query(message)
    at = services.clock.now()
    working = services.store.working(query.cube_id)
    before = monitor.read(services.store, query.cube_id, query.user_id)
    intent = turn.intent(query, working, before)
    activity = monitor.asked(before, query.text, monitor.keywords_of(query.text), at)
    if not intent.trigger_retrieval:
        _leave(ctx, message, working, intent.reason, activity)
        metrics.WORKING_MEMORY_LOOKUPS.add(outcome="hit")
        return
    pool = turn.pool(query, working, intent.missing_evidence)
    _replace(ctx, message, working, intent, monitor.recalled(activity, at), turn, pool)
    metrics.WORKING_MEMORY_LOOKUPS.add(outcome="miss")


def _leave(
    ctx: HandlerContext,
    message: ScheduleMessageItem,
    working: WorkingSet,
    reason: str,
    activity: Activity,
) -> None:
    """Working memory stays as it is."""
    ctx.apply(
        message,
        [ctx.services.activity.change(message.mem_cube_id, message.user_id, activity)],
        logs=[
            unchanged_log(
                message,
                size=len(working.entries),
                reason=reason,
                facts=ctx.facts(message.mem_cube_id),
            )
        ],
    )
    logger.info("working.left", reason=reason, size=len(working.entries))


def _replace(
    ctx: HandlerContext,
    message: ScheduleMessageItem,
    working: WorkingSet,
    intent: Intent,
    activity: Activity,
    turn: SessionTurn,
    pool: Pool,
) -> None:
    """Working memory becomes what the plan says."""
    plan = turn.plan(working, pool)
    if not plan.entries and not working.entries:
        _leave(
            ctx, message, working, "; ".join(["nothing in memory fits the query", *pool.degraded]), activity
        )
        return

    def with_items(entries: Sequence[WorkingEntry]) -> list[tuple[WorkingEntry, MemoryItem]]:
        return [(entry, pool.items[entry.item_id]) for entry in entries]

    reason = "; ".join([intent.reason, *pool.degraded])
    at = ctx.services.clock.now()
    entered = [entering(pool.items[one.item_id], one.reason or reason, utc(at)) for one in plan.added]
    moves = [one for one in entered if one is not None]
    moves += [leaving(pool.items[one.item_id], one.reason, utc(at)) for one in plan.removed]
    activation = ActivationMonitor(ctx.limits.activation_interval_s)
    changes: list[Change] = [
        ctx.services.activity.change(message.mem_cube_id, message.user_id, activity),
        *(rewritten(pool.items[one.item.id], one.item, one.reason) for one in moves if one.changed),
        *activation.mark(ctx.services.store, message.mem_cube_id, working_version=working.version + 1, at=at),
        ReplaceWorking(message.mem_cube_id, plan.entries, working.version, reason=f"mem_update: {reason}"),
    ]
    ctx.apply(
        message,
        changes,
        logs=[
            working_log(
                message,
                added=with_items(plan.added),
                kept=with_items(plan.kept),
                removed=[(pool.items[one.item_id], one.reason) for one in plan.removed],
                moves={one.item.id: (str(one.from_kind), str(one.to_kind)) for one in moves},
                reason=reason,
                facts=ctx.facts(message.mem_cube_id),
            )
        ],
    )
    logger.info("working.replaced", added=len(plan.added), kept=len(plan.kept), removed=len(plan.removed))
