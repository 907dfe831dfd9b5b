"""What a built-in handler works with: the services, and `HandlerContext.apply`, its one way to act.

`apply` commits a message's changes, the messages it chains and its web logs in one transaction together
with the mark that the message ran (`store.apply_once`); a repeat finds the mark, changes nothing and
passes on only what its followups still have to do. Handlers therefore compute first and apply once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from memos import context
from memos.clock import Clock, utc
from memos.mem_scheduler.change_logs import tell_capacity
from memos.mem_scheduler.current import BatchRun
from memos.mem_scheduler.model_steps.reading import ReadAnswers
from memos.mem_scheduler.monitors.activity import ActivityMonitor
from memos.mem_scheduler.monitors.intent import IntentMonitor
from memos.mem_scheduler.monitors.retention import NO_RETENTION, RetentionRules
from memos.mem_scheduler.monitors.search_history import SearchHistoryMonitor
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import CubeFacts, LogSink
from memos.memory.extract import derive
from memos.memory.hygiene import TOKENS_MAX
from memos.memory.learning import Extractor
from memos.memory.store import Applied, Cause, Change, ErasingStore, Followup, MemoryStore

if TYPE_CHECKING:
    from memos.memory.activation.keeper import PrefixKeeper
    from memos.memory.indexer import Indexer
    from memos.models.base import LLM, Reranker
    from memos.retrieval.hybrid import HybridRetriever
    from memos.retrieval.searcher import Searcher


MODEL_STEPS = frozenset({"reading", "intent", "rank", "preferences", "feedback", "summaries"})


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that the scheduler and its handlers use, as the composition root joined them.

    `cube_of(cube_id)` is the cube object that user code sees as `current_mem_cube`.
    """

    store: MemoryStore
    indexer: Indexer
    retriever: HybridRetriever
    searcher: Searcher
    clock: Clock
    sink: LogSink
    intent: IntentMonitor
    activity: ActivityMonitor
    cube_of: Callable[[str], Any]
    llm: LLM | None = None
    reader_llm: LLM | None = None  # for the step "reading" alone
    reranker: Reranker | None = None
    retention: RetentionRules = NO_RETENTION
    searches: SearchHistoryMonitor = field(default_factory=SearchHistoryMonitor)
    extract: Extractor = derive  # reads raw items; a model takes its place here
    item_tokens_max: int = TOKENS_MAX
    read_answers: ReadAnswers = field(default_factory=ReadAnswers)
    activation: PrefixKeeper | None = None  # prepares prefixes; None: nothing does
    model_steps: frozenset[str] = MODEL_STEPS  # those for which `llm` is asked

    def erased_at(self, user_id: str) -> float | None:
        """When the user was erased (wall time); None: never, or the store erases nobody."""
        return self.store.erased_at(user_id) if isinstance(self.store, ErasingStore) else None

    def llm_for(self, step: str) -> LLM | None:
        """The model for a step; None where the rules do it."""
        if step not in self.model_steps:
            return None
        return self.reader_llm if step == "reading" else self.llm


@dataclass(frozen=True, slots=True)
class RecallLimits:
    """The bounds of one `mem_update`."""

    top_k: int = 10
    pool_factor: int = 5  # candidates pooled, times the places
    candidates_max: int | None = None  # candidates pooled, where somebody set a number
    relativity_min: float = 0.0  # what fits less gets no place
    query_trigger_interval_s: float = 0.0  # recall at the latest after so long; 0: never by time
    activation_interval_s: float | None = None  # between activation refreshes; None: no activation memory


class HandlerContext:
    """One call of a built-in handler. `run` is the batch it belongs to."""

    def __init__(self, services: Services, run: BatchRun, *, limits: RecallLimits) -> None:
        self.services = services
        self.limits = limits
        self._run = run

    def is_repeat(self, message: ScheduleMessageItem) -> bool:
        """Whether the message's effects are committed already; passes its open followups on.

        Saves the work of a repeat. `apply` checks again, in its transaction.
        """
        store = self.services.store
        if not store.was_applied(message.redis_message_id):
            return False
        self._run.chain(store.pending_followups(message.redis_message_id))
        self._run.mark_applied(message.redis_message_id)
        return True

    def absorbed_by(self, message: ScheduleMessageItem) -> tuple[ScheduleMessageItem, ...]:
        """The messages that a coalescing message runs for as well, oldest first; its mark is theirs."""
        return self._run.absorbed_by(message.redis_message_id)

    def waited_s(self, message: ScheduleMessageItem) -> float | None:
        """Seconds since the message was submitted; None for one that does not come from the queue."""
        submitted = self._run.enqueued_at_of(message.redis_message_id)
        return None if submitted is None else max(0.0, self.services.clock.now() - submitted)

    def chained(self, message: ScheduleMessageItem, label: str, **changes: Any) -> Followup:
        """A followup of `message` under `label`: a copy with a fresh `item_id` and the given changes."""
        copy = message.model_copy(update={"label": label, "item_id": str(uuid4()), **changes})
        return self._run.child(copy)

    def apply(
        self,
        message: ScheduleMessageItem,
        changes: Sequence[Change] = (),
        *,
        followups: Sequence[Followup] = (),
        logs: Sequence[ScheduleLogForWebItem] = (),
    ) -> Applied:
        """Commit everything that `message` does, once. Raises StoreError, or LeaseLost when the batch may be
        somebody else's by now; then nothing was done."""
        key = message.redis_message_id
        applied = self.services.store.apply_once(
            key,
            changes,
            parent_key=self._run.parent_key_of(key),
            followups=followups,
            logs=logs,
            cause=cause_of(message),
            guard=self._run.refuse_when_over,
        )
        self._run.chain(applied.followups)
        self._run.mark_applied(key)
        if applied.fresh:
            self.services.sink.emit(logs)
            tell_capacity(
                self.services.store, applied.archived, cause=cause_of(message), sink=self.services.sink
            )
        return applied

    def facts(self, cube_id: str) -> CubeFacts:
        """How full the cube is."""
        store = self.services.store
        return CubeFacts(store.sizes(cube_id), store.capacities)

    def bound_to(self, message: ScheduleMessageItem) -> Any:
        """A block in which log lines carry the message's trace and task."""
        return context.bound(
            trace=message.trace_id,
            user=message.user_id,
            cube=message.mem_cube_id,
            task=message.task_id or "",
            path=message.api_path or "",
        )


def cause_of(message: ScheduleMessageItem) -> Cause:
    """What journal rows say of a change that `message` makes."""
    return Cause(
        message_key=message.redis_message_id,
        task_id=message.task_id or "",
        label=message.label,
        trace_id=message.trace_id,
        user_id=message.user_id,
    )


def moment(clock: Clock) -> Any:
    """The current time as an aware datetime."""
    return utc(clock.now())
