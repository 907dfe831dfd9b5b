"""`GeneralScheduler`: the scheduler with the built-in handlers, and the documented methods around them.

The table of `handlers.HANDLERS` decides what each label does; the documented consumer methods are that
table under their documented names, so that they can be called, wrapped and overridden. Called outside a
batch they act as if the queue had delivered the messages: effects once per message, chained messages
queued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memos import context, log
from memos.clock import utc
from memos.configs.mem_scheduler import GeneralSchedulerConfig
from memos.mem_scheduler.base_scheduler import DEFAULT_CUBE_ID, BaseScheduler
from memos.mem_scheduler.current import BatchRun, batch_run, running
from memos.mem_scheduler.handlers import (
    HANDLERS,
    HandlerFunction,
    add,
    answer,
    api_mix_search,
    mem_activate,
    mem_feedback,
    mem_organize,
    mem_read,
    mem_update,
    moves,
    pref_add,
    query,
)
from memos.mem_scheduler.handlers.context import HandlerContext, RecallLimits, Services
from memos.mem_scheduler.handlers.turn import SessionTurn, TurnQuery
from memos.mem_scheduler.model_steps.intent import judged
from memos.mem_scheduler.monitors.retention import RetentionRounds
from memos.mem_scheduler.queues.base import Delivery, TaskQueue
from memos.mem_scheduler.registry import Handler
from memos.mem_scheduler.schemas.keys import KeyMint
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, validate_message
from memos.mem_scheduler.schemas.task_schemas import (
    ADD_TASK_LABEL,
    ANSWER_TASK_LABEL,
    API_MIX_SEARCH_TASK_LABEL,
    MEM_ACTIVATE_TASK_LABEL,
    MEM_FEEDBACK_TASK_LABEL,
    MEM_ORGANIZE_TASK_LABEL,
    MEM_READ_TASK_LABEL,
    MEM_UPDATE_TASK_LABEL,
    PREF_ADD_TASK_LABEL,
    QUERY_TASK_LABEL,
)
from memos.mem_scheduler.startup import Launch
from memos.memory.item import MemoryItem, content_hash
from memos.memory.store import Cause, ItemFilter, ReplaceWorking
from memos.memory.textual import TextualMemoryItem
from memos.memory.working_record import STATE, WorkingRecord

logger = log.get_logger(__name__)


class GeneralScheduler(BaseScheduler):
    """See the module docstring."""

    def __init__(
        self,
        config: GeneralSchedulerConfig,
        *,
        queue: TaskQueue,
        services: Services,
        default_cube_id: str = DEFAULT_CUBE_ID,
        launch: Launch | None = None,
    ) -> None:
        super().__init__(
            config, queue=queue, services=services, default_cube_id=default_cube_id, launch=launch
        )
        self._limits = RecallLimits(
            top_k=config.top_k,
            candidates_max=config.candidates_max,
            query_trigger_interval_s=config.query_trigger_interval,
            activation_interval_s=config.act_mem_update_interval
            if config.enable_activation_memory
            and services.activation is not None
            and services.activation.builds
            else None,
        )
        self._keys = KeyMint(services.clock)
        self._turn = SessionTurn(services, self._limits)
        self.register_handlers(self._built_in())
        rounds = RetentionRounds(
            services.retention,
            services.store,
            services.clock,
            submit=self.submit_messages,
            served=lambda: MEM_ORGANIZE_TASK_LABEL in self.handlers,
        )
        self._housekeeper.add_duty(rounds.ask)
        keeper = services.activation
        if keeper is not None and keeper.builds:
            self._housekeeper.add_duty(lambda: keeper.sweep().prefixes)

    def _built_in(self) -> dict[str, Any]:
        """The default registrations: the documented methods, with the policies of the table."""
        methods: Mapping[str, Handler] = {
            QUERY_TASK_LABEL: self._query_message_consumer,
            ANSWER_TASK_LABEL: self._answer_message_consumer,
            ADD_TASK_LABEL: self._add_message_consumer,
            MEM_UPDATE_TASK_LABEL: self._memory_update_consumer,
            MEM_READ_TASK_LABEL: self._mem_read_message_consumer,
            PREF_ADD_TASK_LABEL: self._pref_add_message_consumer,
            MEM_ORGANIZE_TASK_LABEL: self._mem_reorganize_message_consumer,
            MEM_FEEDBACK_TASK_LABEL: self._mem_feedback_message_consumer,
            API_MIX_SEARCH_TASK_LABEL: self._api_mix_search_message_consumer,
            MEM_ACTIVATE_TASK_LABEL: self._activation_memory_consumer,
        }
        return {
            label: methods[label] if row.policy is None else (methods[label], row.policy)
            for label, row in HANDLERS.items()
        }

    # -- the documented consumer methods ---------------------------------------------------------------

    def _query_message_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(query.handle, messages)

    def _answer_message_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(answer.handle, messages)

    def _add_message_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(add.handle, messages)

    def _memory_update_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(mem_update.handle, messages)

    def _mem_read_message_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(mem_read.handle, messages)

    def _pref_add_message_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(pref_add.handle, messages)

    def _mem_reorganize_message_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(mem_organize.handle, messages)

    def _mem_feedback_message_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(mem_feedback.handle, messages)

    def _api_mix_search_message_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(api_mix_search.handle, messages)

    def _activation_memory_consumer(self, messages: Sequence[ScheduleMessageItem]) -> None:
        self._handle(mem_activate.handle, messages)

    def process_feedback(self, message: ScheduleMessageItem) -> mem_feedback.FeedbackOutcome | None:
        """Carry out feedback now, in the calling thread, and say what it did; None for a repeat.

        Raises Discard for what is no feedback, StoreError.
        """
        done: list[mem_feedback.FeedbackOutcome | None] = []

        def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
            done.extend(mem_feedback.process(ctx, one) for one in messages)

        self._handle(handle, [message])
        return done[0]

    _query_message_consume = _query_message_consumer  # the names of an earlier document
    _answer_message_consume = _answer_message_consumer

    def _handle(self, handler: HandlerFunction, messages: Sequence[ScheduleMessageItem]) -> None:
        run = batch_run()
        if run is not None and all(run.delivered(message) for message in messages):
            handler(HandlerContext(self.services, run, limits=self._limits), messages)
        elif messages:
            self._handle_directly(handler, messages, run)

    def _handle_directly(
        self, handler: HandlerFunction, messages: Sequence[ScheduleMessageItem], outer: BatchRun | None
    ) -> None:
        """The messages come from a program, not from the queue: give them keys, queue what they chain.

        Inside a handler the keys are derived, so that a repeat of the handler repeats no effect.
        """
        checked = [validate_message(message) for message in messages]
        if outer is None:
            deliveries = [
                Delivery(key, message.model_copy(update={"redis_message_id": key}))
                for key, message in zip(self._keys.mint(len(checked)), checked, strict=True)
            ]
        else:
            deliveries = [
                Delivery(
                    child.key,
                    child.message.model_copy(update={"redis_message_id": child.key}),
                    parent_key=child.parent_key,
                )
                for child in map(outer.child, checked)
            ]
        inner = BatchRun(deliveries)
        with running(inner):
            context = HandlerContext(self.services, inner, limits=self._limits)
            handler(context, [delivery.message for delivery in deliveries])
        inner.close()
        followups = inner.followups()
        if outer is not None:
            outer.chain(followups)
        elif followups:
            self._queue.submit([], followups=followups, inside_handler=True)

    # -- the turn, step by step ------------------------------------------------------------------------

    def search(
        self,
        query: str,
        user_id: str,
        mem_cube_id: str,
        mem_cube: Any = None,
        top_k: int | None = None,
        method: str | None = None,
        search_args: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """Recall from a cube, as the documented `retriever.search` does it."""
        found: list[Any] = self.retriever.search(
            query=query,
            user_id=user_id,
            mem_cube_id=mem_cube_id,
            mem_cube=mem_cube,
            top_k=self.top_k if top_k is None else top_k,
            method=method or self.search_method,
            search_args=search_args,
        )
        return found

    def process_session_turn(
        self,
        queries: str | Sequence[str],
        user_id: str,
        mem_cube_id: str,
        mem_cube: Any = None,
        top_k: int | None = None,
        session_id: str = "",
    ) -> tuple[list[MemoryItem], list[MemoryItem]]:
        """What stands in working memory, and what a recall would bring for the newest of the queries.

        Changes nothing: `replace_working_memory` does. The second list is empty when working memory
        suffices.
        """
        texts = [queries] if isinstance(queries, str) else list(queries)
        text = texts[-1] if texts else ""
        asked = TurnQuery(
            text, user_id, mem_cube_id, session_id, next(iter(context.turns_left_out(text)), "")
        )
        working = self.services.store.working(mem_cube_id)
        activity = self.services.activity.read(self.services.store, mem_cube_id, user_id)
        record = WorkingRecord.from_json(self.services.store.state(mem_cube_id, STATE))
        intent = judged(
            self.services.llm_for("intent"),
            asked.text,
            working.items,
            self._turn.intent(asked, working, activity, record),
            before=[*(one.text for one in activity.queries), *texts[:-1]],
            today=utc(self.services.clock.now()),
        )
        if not intent.trigger_retrieval:
            return list(working.items), []
        pool = self._turn.pool(asked, working, intent.missing_evidence)
        best = sorted(pool.candidates, key=lambda candidate: -candidate.score)
        here = {item.id for item in working.items}
        new = [pool.items[one.item_id] for one in best if one.item_id not in here]
        return list(working.items), new[: self.top_k if top_k is None else top_k]

    def replace_working_memory(
        self,
        user_id: str,
        mem_cube_id: str,
        mem_cube: Any = None,
        original_memory: Sequence[MemoryItem] = (),
        new_memory: Sequence[MemoryItem] = (),
        query: str = "",
    ) -> list[MemoryItem]:
        """Pool old and new memories, rank them against `query` (by default the last one asked), and put
        the best into working memory, in one step. Returns what stands there now.

        Raises VersionConflict when somebody replaced the set meanwhile.
        """
        store = self.services.store
        working = store.working(mem_cube_id)
        wanted = {item.id for item in (*original_memory, *new_memory)}
        activity = self.services.activity.read(store, mem_cube_id, user_id)
        text = query or (activity.queries[-1].text if activity.queries else "")
        if not text:
            text = " ".join(item.memory for item in new_memory)[:1_000]
        if not text.strip():
            return list(working.items)
        pool = self._turn.pool(TurnQuery(text, user_id, mem_cube_id), working, ())
        chosen = tuple(candidate for candidate in pool.candidates if candidate.item_id in wanted)
        plan, _ = self._turn.plan(working, replace(pool, candidates=chosen))
        store.apply(
            [ReplaceWorking(mem_cube_id, plan.entries, working.version, reason="replace_working_memory")],
            cause=Cause(user_id=user_id),
        )
        return list(store.working(mem_cube_id).items)

    def move_memory(self, memory_id: str, to_memory_type: str, reason: str, user_id: str = "") -> MemoryItem:
        """Move a memory to another kind, with its `scheduleMemory` log, and return it as it is then.

        Raises ItemNotFound, ItemGone, InvalidInput for a move that is not allowed, VersionConflict.
        """
        return moves.move(self.services, memory_id, to_memory_type, reason, user_id=user_id)

    def update_activation_memory(
        self,
        new_memories: Sequence[Any] = (),
        label: str = "",
        user_id: str = "",
        mem_cube_id: str = "",
        mem_cube: Any = None,
    ) -> None:
        """Promote memories to activation memory now: prepare them as a prefix for the model.

        new_memories: what is to stand in it, most relevant first, as items, ids or texts of memories that the
        cube holds; none: its working memory. A text that is no memory of the cube is left out, since nothing
        could tell when it no longer holds. Without anything that keeps prefixes, a log says so; nothing is
        raised but StoreError and LeaseLost.
        """
        cube_id = mem_cube_id or self._default_cube_id
        info: dict[str, Any] = {mem_activate.FORCED: True}
        if new_memories:
            info[mem_activate.MEMORY_IDS] = self._ids_of(new_memories, cube_id)
        message = ScheduleMessageItem(
            user_id=user_id or cube_id,
            mem_cube_id=cube_id,
            label=MEM_ACTIVATE_TASK_LABEL,
            content=f"promote for {label or 'a program'}",
            info=info,
        )
        self._handle(mem_activate.handle, [message])

    def _ids_of(self, memories: Sequence[Any], cube_id: str) -> list[str]:
        """The ids of memories that are named by item, id or text; the others are told of."""
        found: list[str] = []
        unknown = 0
        for one in memories:
            named = one.id if isinstance(one, MemoryItem | TextualMemoryItem) else str(one)
            for wanted in (
                ItemFilter(cube_ids=(cube_id,), ids=(named,)),
                ItemFilter(cube_ids=(cube_id,), content_hashes=(content_hash(named),)),
            ):
                page = self.services.store.find(wanted, limit=1)
                if page.items:
                    found.append(page.items[0].id)
                    break
            else:
                unknown += 1
        if unknown:
            logger.warning("activation.unknown_memories", left_out=unknown)
        return found
