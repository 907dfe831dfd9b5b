"""Runs a batch: runs of one label go to that label's handler together; outcomes are collected and settled.

The outcome of a call
* it returns: its messages are done;
* RetryLater: they run again after the delay, which does not count as a failure;
* Discard: a message alone is dead-lettered at once;
* StoreAway: the store's server is away, and no message is worse for it: all are handed back, and the worker
  waits a moment before it tells (one that is older than a day fails as by any other exception);
* SubjectErased: its user was erased after it was submitted; it ends as cancelled, whatever else its call came
  to, and neither its error nor what it chains is kept;
* TaskCancelled: messages that were cancelled end as cancelled, others have failed;
* PartialFailure: the named messages failed, the others are done;
* any other exception, or Discard, over several messages: each is run again alone, under the same lease,
  so that only the guilty one is blamed;
* in an ordered lane whose order is strict nothing runs past a message that must be retried: what comes
  after it is handed back untouched.

`finish` is one call for the whole batch; status, metrics and logs follow what it answers. A refused
`finish` (LeaseLost) is counted and logged: somebody else may hold the batch, nothing of it is recorded.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from memos import context, log, metrics, tracing
from memos.clock import Clock, utc
from memos.errors import (
    Discard,
    LeaseLost,
    MemosError,
    PartialFailure,
    QueueError,
    RateLimited,
    RetryLater,
    StoreAway,
    SubjectErased,
    TaskCancelled,
)
from memos.mem_scheduler import workers
from memos.mem_scheduler.current import CANCEL_LOOK_S, BatchRun, running
from memos.mem_scheduler.monitors.tasks import TaskMonitor
from memos.mem_scheduler.queues.base import (
    Batch,
    Dead,
    Delivery,
    Done,
    Finish,
    Outcome,
    Release,
    Retry,
    Settled,
    TaskQueue,
)
from memos.mem_scheduler.registry import Handler, HandlerRegistry
from memos.mem_scheduler.schemas.keys import is_before
from memos.mem_scheduler.schemas.task_schemas import RunningTaskItem
from memos.mem_scheduler.traces import calling
from memos.mem_scheduler.workers import CoroutineRunner

logger = log.get_logger(__name__)

ERROR_CHARS_MAX = 2_000
STORE_AWAY_S_MAX = 86_400.0  # how long a message may wait for the store
_DONE = Done()  # one for all: a list of new ones costs as much as a short handler
# How every handler is reached, `async def` ones through a future: of no use to who looks for a fault.
_OUR_CALLS = frozenset({__file__, workers.__file__, concurrent.futures._base.__file__})

_GONE = Retry("its user was erased", delay_s=0.0, counts=False)  # of a cancelled message: the end

Aftermath = Callable[[Batch, BatchRun, Sequence[Settled]], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """A batch whose handlers have returned, and that the queue does not know of yet."""

    batch: Batch
    run: BatchRun
    outcomes: Sequence[Outcome]
    store_away: bool = False  # some of it was handed back for that


class Dispatcher:
    """Stateless between batches; `run` may be called from many threads."""

    def __init__(
        self,
        queue: TaskQueue,
        registry: HandlerRegistry,
        *,
        clock: Clock,
        monitor: TaskMonitor,
        coroutines: CoroutineRunner,
        aftermath: Aftermath,
        erased_at: Callable[[str], float | None] = lambda user_id: None,
    ) -> None:
        """`erased_at`: when a user was erased (wall time), None for never."""
        self._erased_at = erased_at
        self._queue = queue
        self._registry = registry
        self._clock = clock
        self._monitor = monitor
        self._coroutines = coroutines
        self._aftermath = aftermath

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Function by label."""
        return self._registry.handlers

    def get_running_tasks(
        self, filter_func: Callable[[RunningTaskItem], bool] | None = None
    ) -> dict[str, RunningTaskItem]:
        """Calls of handlers that have not returned, by their id."""
        tasks = self._monitor.running()
        return {key: task for key, task in tasks.items() if filter_func is None or filter_func(task)}

    def run(
        self,
        batch: Batch,
        *,
        stop_asked: Callable[[], bool] = lambda: False,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run and settle a batch, as `handle` and `settle` do."""
        self.settle([self.handle(batch, stop_asked=stop_asked, is_over=is_over)])

    def handle(
        self,
        batch: Batch,
        *,
        stop_asked: Callable[[], bool] = lambda: False,
        is_over: Callable[[], bool] = lambda: False,
    ) -> Ended:
        """Run the handlers of a batch; `settle` is to follow. What has not begun when `stop_asked` turns true is
        handed back; once `is_over` says that the lease has run out no built-in effect is committed any more.

        Raises nothing that a handler raised, but for one case: in the main thread what is not an
        `Exception` (Ctrl-C, a simulated crash) passes through and leaves the batch to its lease. On a
        thread of the pool it has no caller to reach, and is the handler's failure like any other.
        """
        run = BatchRun(
            batch.deliveries,
            asked_to_stop=self._asked_to_stop,
            monotonic=self._clock.monotonic,
            is_over=is_over,
        )
        now = self._clock.now()
        for label, group in _by_label(batch):
            # a repeat waited for something else
            fresh = [now - one.enqueued_at for one in group if not one.attempts and not one.recoveries]
            if fresh:
                metrics.TASK_WAITING_SECONDS.observe_all(fresh, label=label)
        with (
            running(run),
            context.bound(user=batch.lane.user_id, cube=batch.lane.mem_cube_id, trace="", task="", path=""),
        ):
            outcomes = self._outcomes(batch, run, stop_asked)
        return Ended(batch, run, outcomes, store_away=run.store_away)

    def _asked_to_stop(self, key: str) -> bool:
        try:
            return self._queue.is_cancelled(key)
        except QueueError:
            return False  # nobody can say now: the next look may

    def settle(self, ended: Sequence[Ended]) -> list[bool]:
        """Tell the queue, in one call; False for a batch of which it refused to hear, the lease being gone."""
        kept = [self._without_erased(one) for one in ended]
        finishes = [finish for finish, _ in kept]
        try:
            with ExitStack() as spans:
                opened = [
                    spans.enter_context(
                        tracing.span(
                            "settle",
                            parent=one.run.traceparent,
                            current=False,
                            memos_messages=len(one.outcomes),
                        )
                    )
                    for one in ended
                ]
                answers = self._told(finishes)
                for span, answer in zip(opened, answers, strict=True):
                    if isinstance(answer, Exception):
                        span.fail(type(answer).__name__)
        finally:
            for one in ended:
                one.run.close()
        return [
            self._after(one, finish, answer, erased=erased)
            for one, (finish, erased), answer in zip(ended, kept, answers, strict=True)
        ]

    def _told(self, finishes: Sequence[Finish]) -> Sequence[list[Settled] | Exception]:
        try:
            if len(finishes) > 1:
                return self._queue.finish_all(finishes)
            (one,) = finishes
            return [self._queue.finish(one.batch, one.outcomes, followups=one.followups)]
        except QueueError as error:
            return [error] * len(finishes)
        except Exception:  # what is wrong with one (a followup that no queue takes) is not to meet the others
            if len(finishes) == 1:
                raise
        return [self._told_alone(one) for one in finishes]

    def _told_alone(self, finish: Finish) -> list[Settled] | Exception:
        try:
            return self._told([finish])[0]
        except Exception as error:  # as above: told in the log, and by the lease that runs out
            return error

    def _after(
        self, ended: Ended, finish: Finish, answer: list[Settled] | Exception, *, erased: bool
    ) -> bool:
        """The queue answered for a batch: count, log and tell what became of it."""
        batch = ended.batch
        with context.bound(user=batch.lane.user_id, cube=batch.lane.mem_cube_id, trace="", task="", path=""):
            if isinstance(answer, LeaseLost):
                for delivery in batch.deliveries:
                    self._monitor.lease_lost(delivery.message.label)
                logger.warning("batch.finish_refused", lane=str(batch.lane), messages=len(batch.deliveries))
                return False
            if isinstance(answer, Exception):
                # The lease runs out and the batch comes again: at least once, and effects once by the marks.
                logger.error("batch.finish_failed", lane=str(batch.lane), error=type(answer).__name__)
                return False
            for followup in finish.followups:
                metrics.TASKS_SUBMITTED.add(label=followup.message.label)
            ends = zip(batch.deliveries, answer, strict=True)
            for (label, state), number in Counter(
                (one.message.label, said.state) for one, said in ends
            ).items():
                self._monitor.settled(label, state, number)
            if not erased:
                try:
                    self._aftermath(batch, ended.run, answer)
                except Exception as error:  # the batch is settled; what follows others is not to go with this
                    logger.error(
                        "batch.aftermath_failed",
                        lane=str(batch.lane),
                        error=type(error).__name__,
                        at=raised_at(error),
                    )
        return True

    def _without_erased(self, ended: Ended) -> tuple[Finish, bool]:
        """What the queue may keep where the user of the batch was erased while it ran, and whether that is so."""
        batch, outcomes, followups = ended.batch, ended.outcomes, ended.run.followups()
        whole = Finish(batch, outcomes, followups)
        if not followups and all(isinstance(outcome, Done | Release) for outcome in outcomes):
            return whole, False
        try:
            moment = self._erased_at(batch.lane.user_id)
            late = {one.key for one in batch.deliveries if is_before(one.key, moment)}
            if not late:
                return whole, False
            self._queue.cancel(sorted(late))
        except MemosError as error:
            logger.warning("batch.erasure_unknown", error=type(error).__name__)
            return whole, False
        kept = [
            _GONE if delivery.key in late and isinstance(outcome, Retry | Dead) else outcome
            for delivery, outcome in zip(batch.deliveries, outcomes, strict=True)
        ]
        return Finish(batch, kept, [one for one in followups if not is_before(one.key, moment)]), True

    def _outcomes(self, batch: Batch, run: BatchRun, stop_asked: Callable[[], bool]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        began = self._clock.monotonic()
        for label, group in _by_label(batch):
            members = list(group)
            handler = self._registry.get(label)
            if handler is None or stop_asked() or self._is_blocked(outcomes, label):
                outcomes.extend(Release() for _ in members)
                continue
            # What waited behind a long call may have been cancelled meanwhile, and has not begun.
            waited = self._clock.monotonic() - began >= CANCEL_LOOK_S
            wanted = members
            if waited:
                wanted = [one for one in members if not run.is_cancelled(one.key)]
            if len(wanted) == len(members):
                outcomes += self._run_group(label, handler, members, run, stop_asked)
                continue
            ran = iter(self._run_group(label, handler, wanted, run, stop_asked) if wanted else ())
            kept = {one.key for one in wanted}
            outcomes.extend(next(ran) if one.key in kept else Release() for one in members)
        return outcomes

    def _run_group(
        self,
        label: str,
        handler: Handler,
        members: Sequence[Delivery],
        run: BatchRun,
        stop_asked: Callable[[], bool],
    ) -> list[Outcome]:
        together = self._traced(label, handler, members, run)
        if together is not None:
            return self._cut_at_retry(together, label)
        logger.info("batch.split", label=label, messages=len(members))
        alone: list[Outcome] = []
        for member in self._as_delivered(members):
            if stop_asked() or self._is_blocked(alone, label):
                alone.append(Release())
            else:
                alone.extend(self._traced(label, handler, [member], run, again=True) or [])
        return alone

    def _as_delivered(self, members: Sequence[Delivery]) -> list[Delivery]:
        """The deliveries with fresh messages: the handler may have changed those that it was given."""
        try:
            fresh = {one.key: one for one in self._queue.get([member.key for member in members])}
        except QueueError:
            return list(members)
        return [fresh.get(member.key, member) for member in members]

    def _traced(
        self, label: str, handler: Handler, members: Sequence[Delivery], run: BatchRun, *, again: bool = False
    ) -> list[Outcome] | None:
        """`_call`, with spans where anybody wants them."""
        if not tracing.is_on():
            return self._call(label, handler, members, run)
        with calling(label, members, run, again=again) as span:
            outcomes = self._call(label, handler, members, run)
            failed = next((one for one in outcomes or () if isinstance(one, Retry | Dead)), None)
            if outcomes is None or failed is not None:
                span.fail("split" if failed is None else failed.error.partition(":")[0])
            return outcomes

    def _call(
        self, label: str, handler: Handler, members: Sequence[Delivery], run: BatchRun
    ) -> list[Outcome] | None:
        """Call the handler once; the outcomes of `members`, None when each must be tried alone."""
        messages = [member.message for member in members]
        task = self._monitor.begin(label, messages, utc(self._clock.now()))
        error: str | None = None
        run.begin(members)
        try:
            with context.bound(
                trace=_shared([message.trace_id for message in messages]),
                task=_shared([message.task_id or "" for message in messages]),
                path=_shared([message.api_path or "" for message in messages]),
            ):
                result = handler(messages)
                if inspect.iscoroutine(result):
                    self._coroutines.run(result)
                elif inspect.isgenerator(result) or inspect.isasyncgen(result):
                    raise TypeError("the handler is a generator: calling it ran none of it; drop its yield")
            return [_DONE] * len(members)
        except LeaseLost as lost:
            # Nothing of the call counts: whoever holds the messages now runs them.
            error = error_text(lost)
            return [Release() for _ in members]
        except RetryLater as later:
            error = error_text(later)
            return [Retry(error, delay_s=later.delay_s, counts=False) for _ in members]
        except PartialFailure as partial:
            error = error_text(partial)
            return self._partial(partial, members)
        except SubjectErased as erased:
            if len(members) > 1:
                return None
            error = error_text(erased)
            return [_GONE]
        except TaskCancelled as stopped:
            error = error_text(stopped)
            return [Retry(error, delay_s=0.0, counts=not run.is_cancelled(one.key)) for one in members]
        except StoreAway as away:
            error = error_text(away)
            now = self._clock.now()
            if all(now - one.enqueued_at < STORE_AWAY_S_MAX for one in members):
                run.store_away = True
                logger.warning("handler.store_away", label=label, messages=len(members))
                return [Release() for _ in members]
            return None if len(members) > 1 else [Retry(error)]
        except Discard as discard:
            error = error_text(discard)
            return [Dead(error)] if len(members) == 1 else None
        except BaseException as failure:  # the outcome of a handler is whatever it raises
            if not isinstance(failure, Exception | SystemExit) and is_main_thread():
                raise
            error = error_text(failure)
            logger.warning(
                "handler.failed",
                label=label,
                messages=len(members),
                error=type(failure).__name__,
                at=raised_at(failure),
            )
            logger.debug("handler.failed", label=label, exc_info=True)
            if len(members) > 1:
                return None
            if isinstance(failure, RateLimited):  # the endpoint is well: the message is no worse for waiting
                return [Retry(error, delay_s=failure.retry_after_s, counts=False)]
            return [Retry(error)]
        finally:
            self._monitor.end(task, label, utc(self._clock.now()), error=error)

    def _partial(self, partial: PartialFailure, members: Sequence[Delivery]) -> list[Outcome] | None:
        """Per message; None (each alone) when the failure names no message of the call."""
        outcomes: list[Outcome] = []
        for member in members:
            reason = partial.failed.get(member.key, partial.failed.get(member.message.item_id))
            outcomes.append(Done() if reason is None else Retry(str(reason)[:ERROR_CHARS_MAX] or "failed"))
        if any(isinstance(outcome, Retry) for outcome in outcomes):
            return outcomes
        logger.warning("handler.partial_names_nobody", named=len(partial.failed), messages=len(members))
        return [Retry(error_text(partial))] if len(members) == 1 else None

    def _cut_at_retry(self, outcomes: list[Outcome], label: str) -> list[Outcome]:
        """Keep every outcome: what ran after a failed message of the same call has run already."""
        if isinstance(outcomes[0], Retry) and not outcomes[0].counts and self._is_strict(label):
            # RetryLater over several messages: the first waits at the head, the rest behind it untouched.
            return [outcomes[0], *(Release() for _ in outcomes[1:])]
        return outcomes

    def _is_blocked(self, outcomes: Sequence[Outcome], label: str) -> bool:
        return any(isinstance(outcome, Retry | Release) for outcome in outcomes) and self._is_strict(label)

    def _is_strict(self, label: str) -> bool:
        policy = self._queue.policies.get(label)
        return policy.ordered and policy.retry_order == "strict"


def _by_label(batch: Batch) -> Iterable[tuple[str, Iterable[Delivery]]]:
    """Runs of one label, in order."""
    labels = batch.labels
    if len(labels) == 1:
        return [(next(iter(labels)), batch.deliveries)]
    return groupby(batch.deliveries, key=lambda delivery: delivery.message.label)


def is_main_thread() -> bool:
    """Whether this is the thread that signals interrupt."""
    return threading.current_thread() is threading.main_thread()


def error_text(error: BaseException) -> str:
    """What status and dead letters keep of an error: type and text, bounded."""
    try:
        text = str(error)
    except Exception:  # a user's exception class may fail to print itself
        text = "(its text cannot be shown)"
    return f"{type(error).__name__}: {text}"[:ERROR_CHARS_MAX]


def raised_at(error: BaseException) -> str:
    """Where an error was raised, as "app.py:12" or "app.py:12 > decoder.py:355".

    The innermost line of the handler's own file, then the last line where that is in another. Places
    only, because the text of an error may quote memories, and that stays below INFO.
    """
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    outside = [place for place in places if place[0] not in _OUR_CALLS] or places
    own = [place for place in outside if place[0] == outside[0][0]]
    shown = dict.fromkeys([own[-1], outside[-1]])
    return " > ".join(f"{Path(file).name}:{line}" for file, line in shown)


def _shared(values: Sequence[str]) -> str:
    """The one value that all messages of a call share, "" where they differ."""
    first = values[0]
    return first if all(value == first for value in values) else ""
