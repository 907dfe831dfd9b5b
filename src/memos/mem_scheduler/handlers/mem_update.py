"""`mem_update`: bring into working memory what the query needs.

Keywords and the query window go to the activity state; intent says whether working memory suffices; if
not, old and new memories are pooled, scored and the best take the places. Activity, the new set and the
log are one transaction; if somebody replaced the set meanwhile, everything is decided again on the new
one, a bounded number of times, without asking a model again.

With a model the messages of one batch are one round: one question for keywords and intent of all queries
about which the rules are not certain, one recall for all that they miss, and one question for rerank and
filter, only when recall happened: two calls at most, none when the rules find that working memory
suffices. Each message still has its own mark, activity and log; the new set goes with the first that
needs it. Where the model fails, the rules do the work, and the log says so.

The label coalesces: of messages that wait in a lane the newest runs for all. The older queries enter the
window and the keywords like any other, in their order, and what they miss is recalled too, so that the new
set holds the union of what was asked for; places are given against the newest query. All of it is one
transaction under the mark of the newest, with which the older ones are settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from memos import log, metrics
from memos.clock import utc
from memos.errors import VersionConflict
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import rewritten
from memos.mem_scheduler.handlers.moves import entering, leaving
from memos.mem_scheduler.handlers.turn import Pool, SessionTurn, TurnQuery
from memos.mem_scheduler.model_steps.account import Account, patiently
from memos.mem_scheduler.model_steps.intent import Verdicts, recognise
from memos.mem_scheduler.model_steps.rank import Ranking, rank, reordered
from memos.mem_scheduler.monitors.activation import ActivationMonitor
from memos.mem_scheduler.monitors.activity import Activity
from memos.mem_scheduler.monitors.intent import Intent
from memos.mem_scheduler.schemas.message_schemas import TURN_ID, ScheduleMessageItem, info_text
from memos.mem_scheduler.schemas.task_schemas import MEM_ACTIVATE_TASK_LABEL
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import unchanged_log, working_log
from memos.memory.item import MemoryItem, WorkingEntry, WorkingSet
from memos.memory.store import Change, Followup, PutState, ReplaceWorking
from memos.memory.working import Cause, WorkingPlan
from memos.memory.working_record import STATE, Use, WorkingRecord
from memos.models.ask import Answer
from memos.retrieval.request import QUERY_CHARS_MAX

logger = log.get_logger(__name__)

CONFLICT_TRIES = 3


@dataclass(slots=True)
class _Asked:
    """One message of a round: what it asks, what was decided about it, and those that it runs for."""

    message: ScheduleMessageItem
    query: TurnQuery
    intent: Intent
    keywords: tuple[str, ...] = ()
    older: tuple[_Asked, ...] = ()

    @property
    def all(self) -> tuple[_Asked, ...]:
        """It and those that it runs for, oldest first."""
        return (*self.older, self)

    @property
    def remark(self) -> str:
        """What its log says of the others."""
        return f"with {len(self.older)} older queries that waited" if self.older else ""

    @property
    def misses(self) -> bool:
        """Whether any of them needs a recall."""
        return any(one.intent.trigger_retrieval for one in self.all)


@dataclass(slots=True)
class _Advice:
    """What the model said in this round. It is asked once, however often the round is decided again."""

    account: Account = field(default_factory=Account)
    verdicts: dict[str, tuple[Intent, tuple[str, ...]]] | None = None  # by message key
    ranking: Ranking | None = None
    told: bool = False  # whether a committed log says what it came to


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    fresh = [message for message in messages if not ctx.is_repeat(message)]
    together = any(ctx.services.llm_for(step) is not None for step in ("intent", "rank"))
    for members in [fresh] if together and fresh else [[message] for message in fresh]:
        with ctx.bound_to(members[0]):
            _update(ctx, members)


def turn_query(message: ScheduleMessageItem) -> TurnQuery:
    """What the message asks."""
    return TurnQuery(
        text=message.content[:QUERY_CHARS_MAX],
        user_id=message.user_id,
        cube_id=message.mem_cube_id,
        session_id=message.session_id,
        turn_id=info_text(message, TURN_ID),
    )


def _update(ctx: HandlerContext, members: Sequence[ScheduleMessageItem]) -> None:
    advice = _Advice()
    for left in reversed(range(CONFLICT_TRIES)):
        try:
            _attempt(ctx, [one for one in members if not ctx.is_repeat(one)], advice)
            return
        except VersionConflict:
            if not left:
                raise  # the queue tries again later
            logger.info("working.conflict", tries_left=left)


def _attempt(ctx: HandlerContext, members: Sequence[ScheduleMessageItem], advice: _Advice) -> None:
    services = ctx.services
    monitor = services.activity
    turn = SessionTurn(services, ctx.limits)
    cube_id, user_id = members[0].mem_cube_id, members[0].user_id
    working = services.store.working(cube_id)
    record = WorkingRecord.from_json(services.store.state(cube_id, STATE))
    activity = monitor.read(services.store, cube_id, user_id)
    activity = monitor.used(activity, monitor.read_answers(services.store, cube_id, user_id), record)

    def ask(one: ScheduleMessageItem, older: tuple[_Asked, ...] = ()) -> _Asked:
        query = turn_query(one)
        return _Asked(one, query, turn.intent(query, working, activity, record), older=older)

    asked = [ask(one, tuple(ask(older) for older in ctx.absorbed_by(one))) for one in members]
    everything = [each for one in asked for each in one.all]
    _consult(ctx, everything, working, activity, advice)
    missing = [one for one in everything if one.intent.trigger_retrieval]
    pool = _pool(ctx, turn, missing, working, advice) if missing else None
    replaced = ""
    for one in asked:
        with ctx.bound_to(one.message):
            activity, replaced = _settle(ctx, one, turn, working, record, activity, pool, replaced, advice)


def _settle(
    ctx: HandlerContext,
    one: _Asked,
    turn: SessionTurn,
    working: WorkingSet,
    record: WorkingRecord,
    activity: Activity,
    pool: Pool | None,
    replaced: str,
    advice: _Advice,
) -> tuple[Activity, str]:
    """Commit one message of the round; the activity after it, and the message that carries the new set."""
    monitor, at = ctx.services.activity, ctx.services.clock.now()
    told = Account() if advice.told else advice.account
    for each in one.all:
        keywords = each.keywords or monitor.keywords_of(each.query.text)
        activity = monitor.asked(activity, each.query.text, keywords, at)
        if pool is not None and each.intent.trigger_retrieval:
            activity = monitor.recalled(activity, at)
    reason = "; ".join(filter(None, [one.remark, one.intent.reason]))
    if pool is None or not one.misses:
        activity = monitor.left(activity)
        _leave(ctx, one.message, working, reason, activity, told)
        outcome = "hit"
    else:
        outcome = "miss"
        if replaced:
            now = ctx.services.store.working(one.query.cube_id)
            _leave(
                ctx,
                one.message,
                now,
                f"{reason}; its recall is part of the one for {replaced}",
                activity,
                told,
            )
        else:
            activity = _replace(ctx, one, working, record, activity, turn, pool, told)
            replaced = one.message.item_id
    advice.told = True
    metrics.WORKING_MEMORY_LOOKUPS.add(outcome=outcome)
    return activity, replaced


# -- the model's part ------------------------------------------------------------------------------------


def _consult(
    ctx: HandlerContext, asked: Sequence[_Asked], working: WorkingSet, activity: Activity, advice: _Advice
) -> None:
    """The model's verdicts in the place of the rules' where those are not certain."""
    services = ctx.services
    llm = services.llm_for("intent")
    if llm is None:
        return
    doubtful = [one for one in asked if one.intent.trigger_retrieval]
    metrics.MODEL_CALLS_SAVED.add(2 * (len(asked) - len(doubtful)), reason="working_memory_suffices")
    if not doubtful:
        return
    sizes = services.store.sizes(asked[0].query.cube_id)
    if not working.items and not sizes.long_term + sizes.user + sizes.preference:
        metrics.MODEL_CALLS_SAVED.add(len(doubtful), reason="nothing_remembered")
        return
    if advice.verdicts is None:
        metrics.MODEL_CALLS_SAVED.add(2 * (len(doubtful) - 1), reason="shared")
        verdicts = Verdicts(Answer("", ""))

        def question() -> Answer:
            nonlocal verdicts
            verdicts = recognise(
                llm,
                [one.query.text for one in doubtful],
                working.items,
                before=[one.text for one in activity.queries],
                today=utc(services.clock.now()),
            )
            return verdicts.answer

        answer = patiently(ctx, doubtful[0].message, "intent_recognizing", question)
        advice.account.took(answer, dropped=verdicts.dropped)
        advice.verdicts = {
            doubtful[place].message.redis_message_id: (one.intent, one.keywords)
            for place, one in verdicts.by_place.items()
        }
    at = services.clock.now()
    forced = services.activity.recall_due(activity, at=at, interval_s=ctx.limits.query_trigger_interval_s)
    for one in doubtful:
        verdict = advice.verdicts.get(one.message.redis_message_id)
        if verdict is None:
            continue
        intent, one.keywords = verdict
        if intent.trigger_retrieval:
            gaps = tuple(dict.fromkeys([one.query.text, *intent.missing_evidence]))
            one.intent = Intent(True, gaps, intent.reason)
        elif working.items and not forced:
            one.intent = intent


def _pool(
    ctx: HandlerContext,
    turn: SessionTurn,
    missing: Sequence[_Asked],
    working: WorkingSet,
    advice: _Advice,
) -> Pool:
    """What recall finds for all that is missing, scored against the newest query, in the model's order."""
    newest = missing[-1]
    gaps = [gap for one in missing for gap in (one.query.text, *one.intent.missing_evidence)]
    pool = turn.pool(
        newest.query, working, list(dict.fromkeys(gaps)), older=[one.query for one in missing[:-1]]
    )
    services = ctx.services
    llm = services.llm_for("rank")
    if llm is None:
        return pool
    if advice.ranking is None:
        if services.reranker is not None or len(pool.candidates) < 2:
            reason = "reranker" if services.reranker is not None else "nothing_to_rank"
            metrics.MODEL_CALLS_SAVED.add(reason=reason)
            return pool
        ranking = Ranking(Answer("", ""))

        def question() -> Answer:
            nonlocal ranking
            texts = dict.fromkeys(one.query.text for one in reversed(missing))
            ranking = rank(
                llm, "\n".join(texts), pool.candidates, pool.items, today=utc(services.clock.now())
            )
            return ranking.answer

        answer = patiently(ctx, newest.message, "memory_rerankeing", question)
        advice.ranking = replace(ranking, answer=answer)
        advice.account.took(answer, dropped=ranking.dropped)
    return replace(pool, candidates=reordered(pool.candidates, advice.ranking))


# -- what follows ----------------------------------------------------------------------------------------


def _leave(
    ctx: HandlerContext,
    message: ScheduleMessageItem,
    working: WorkingSet,
    reason: str,
    activity: Activity,
    told: Account,
) -> None:
    """Working memory stays as it is."""
    reason = "; ".join([reason, *told.remarks])
    marked, followups = _activation(ctx, message, working.version)
    ctx.apply(
        message,
        [ctx.services.activity.change(message.mem_cube_id, message.user_id, activity), *marked],
        followups=followups,
        logs=[
            *told.logs(ctx, message),
            unchanged_log(
                message,
                size=len(working.entries),
                reason=reason,
                facts=ctx.facts(message.mem_cube_id),
            ),
        ],
    )
    logger.info("working.left", reason=reason, size=len(working.entries))


def _replace(
    ctx: HandlerContext,
    asked: _Asked,
    working: WorkingSet,
    record: WorkingRecord,
    activity: Activity,
    turn: SessionTurn,
    pool: Pool,
    told: Account,
) -> Activity:
    """Working memory becomes what the plan says. Returns the activity that was stored with it."""
    message, monitor = asked.message, ctx.services.activity
    plan, pool = turn.plan(working, pool, record=record, uses=activity.uses, turn_id=asked.query.turn_id)
    if not plan.entries and not working.entries:
        reason = "; ".join(filter(None, [asked.remark, "nothing in memory fits the query", *pool.degraded]))
        _leave(ctx, message, working, reason, activity, told)
        return activity
    gone = len(record.gone(working.entries)) + record.forgotten
    first = [one.item_id for one in sorted(pool.candidates, key=lambda one: -one.score)]
    record_after = record.after(
        plan,
        activity.uses,
        first=first,
        sufficed=activity.sufficed,
        gone=gone,
        spread=turn.spread(pool.candidates),
    )
    uses, activity = activity.uses, monitor.taken(activity)

    def with_items(entries: Sequence[WorkingEntry]) -> list[tuple[WorkingEntry, MemoryItem]]:
        return [(entry, pool.items[entry.item_id]) for entry in entries]

    reason = "; ".join(filter(None, [asked.remark, asked.intent.reason, *pool.degraded, *told.remarks]))
    at = ctx.services.clock.now()
    entered = [entering(pool.items[one.item_id], one.reason or reason, utc(at)) for one in plan.added]
    moves = [one for one in entered if one is not None]
    moves += [leaving(pool.items[one.item_id], one.reason, utc(at)) for one in plan.removed]
    marked, followups = _activation(ctx, message, working.version + 1)
    changes: list[Change] = [
        monitor.change(message.mem_cube_id, message.user_id, activity),
        PutState(message.mem_cube_id, STATE, record_after.to_json()),
        *(rewritten(pool.items[one.item.id], one.item, one.reason) for one in moves if one.changed),
        *marked,
        ReplaceWorking(message.mem_cube_id, plan.entries, working.version, reason=f"mem_update: {reason}"),
    ]
    logs: list[ScheduleLogForWebItem] = told.logs(ctx, message)
    logs.append(
        working_log(
            message,
            added=with_items(plan.added),
            kept=with_items(plan.kept),
            removed=[(pool.items[one.item_id], one.reason) for one in plan.removed],
            moves={one.item.id: (str(one.from_kind), str(one.to_kind)) for one in moves},
            reason=reason,
            facts=ctx.facts(message.mem_cube_id),
        )
    )
    applied = ctx.apply(message, changes, followups=followups, logs=logs)
    if applied.fresh:
        _count(plan, uses, gone=gone, capacity=ctx.services.store.capacities.working)
    logger.info("working.replaced", added=len(plan.added), kept=len(plan.kept), removed=len(plan.removed))
    return activity


def _count(plan: WorkingPlan, uses: Sequence[Use], *, gone: int, capacity: int) -> None:
    """Count what came, what left, and where that stood which answers have used."""
    for cause in plan.causes.values():
        metrics.WORKING_MEMORY_CHANGES.add(cause=cause.value)
    if gone:
        metrics.WORKING_MEMORY_CHANGES.add(gone, cause=Cause.GONE.value)
    for use in uses:
        stood = "nowhere" if use.place is None else "place" if use.place < capacity else "ghost"
        metrics.WORKING_MEMORY_USES.add(stood=stood)


def _activation(
    ctx: HandlerContext, message: ScheduleMessageItem, version: int
) -> tuple[list[Change], list[Followup]]:
    """The mark and the task that refresh activation memory, where it is due."""
    due = ActivationMonitor(ctx.limits.activation_interval_s).mark(
        ctx.services.store, message.mem_cube_id, working_version=version, at=ctx.services.clock.now()
    )
    if due is None:
        return [], []
    task = ctx.chained(
        message, MEM_ACTIVATE_TASK_LABEL, content=f"working memory at version {version}", info=None
    )
    return [due.change], [replace(task, delay_s=due.delay_s)]
