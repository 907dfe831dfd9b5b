"""`BaseScheduler`: takes messages, runs their handlers on a bounded pool, answers for what became of them.

It knows labels and functions, no business: `GeneralScheduler` brings the built-in handlers. Everything
it needs is handed to the constructor; `start` and `stop` may be called any number of times.

Threads: one consumer (claims as many batches as the pool has free places, of labels that have
handlers), one bounded pool, one heartbeat that does nothing else (`leases`), one housekeeper, and one
event loop for `async def` handlers, started with the first of them. All are daemons; handlers run under
their own context (user, cube, trace, task of what they handle).

Lock order, outermost first: `_lifecycle` → registry → pool, heartbeat or monitor → the queue's own lock.
No lock of ours is held while a handler runs, while the store is called, or while the queue waits.

Stopping: claim no more, let what runs finish until the grace ends, hand the rest back. A thread cannot
be killed: a handler that outlives the grace goes on, and its `finish` is refused.

In the startup mode `process` all of these threads are in a worker process (`startup`), and this object
takes messages in and answers for them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from memos import context, log, metrics, tracing
from memos.configs.mem_scheduler import BaseSchedulerConfig
from memos.errors import (
    ConfigError,
    InvalidInput,
    LeaseLost,
    QueueError,
    QueueFull,
    QueueUnavailable,
    SubjectErased,
)
from memos.mem_scheduler.cancelling import Cancellation, cancel
from memos.mem_scheduler.current import batch_run
from memos.mem_scheduler.dispatcher import Dispatcher, Ended
from memos.mem_scheduler.handlers.context import Services
from memos.mem_scheduler.housekeeper import Housekeeper
from memos.mem_scheduler.leases import LeaseKeeper
from memos.mem_scheduler.monitors.scheduler import SchedulerMonitor
from memos.mem_scheduler.monitors.tasks import TaskMonitor
from memos.mem_scheduler.orchestrator import SchedulerOrchestrator
from memos.mem_scheduler.queues.base import Batch, PartedQueue, Release, TaskQueue
from memos.mem_scheduler.queues.facade import ScheduleTaskQueue
from memos.mem_scheduler.registry import Handler, HandlerRegistry
from memos.mem_scheduler.schemas.keys import is_before
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, validate_message
from memos.mem_scheduler.schemas.task_schemas import RunningTaskItem
from memos.mem_scheduler.settlement import Settlement
from memos.mem_scheduler.settler import Settler
from memos.mem_scheduler.startup import Launch, WorkerProcess, is_being_imported, own_labels, portable
from memos.mem_scheduler.status_table import print_status
from memos.mem_scheduler.submitting import BLOCK_S_DEFAULT, SubmitOptions, WhenFull, pauses
from memos.mem_scheduler.traces import submitting
from memos.mem_scheduler.utils.status_tracker import TaskStatusTracker
from memos.mem_scheduler.workers import GOES_ON, CoroutineRunner, Job, WorkerPool

if TYPE_CHECKING:
    from memos.retrieval.searcher import Searcher

logger = log.get_logger(__name__)

DEFAULT_CUBE_ID = "default"
CLAIM_WAIT_S = 1.0
CLAIM_SLACK_S = 0.5
QUEUE_DOWN_WAIT_S = 1.0
STORE_AWAY_WAIT_S = 1.0
THREAD_JOIN_S = 5.0
WAKE_S = 0.05


class BaseScheduler:
    """See the module docstring. `submit_messages` works before `start`: messages wait in the queue."""

    def __init__(
        self,
        config: BaseSchedulerConfig,
        *,
        queue: TaskQueue,
        services: Services,
        default_cube_id: str = DEFAULT_CUBE_ID,
        launch: Launch | None = None,
    ) -> None:
        """`launch` starts the worker process where the startup mode is `process`."""
        if config.scheduler_startup_mode == "process" and launch is None:
            raise ConfigError(
                "scheduler_startup_mode=process needs a runtime that can start the process: build the "
                "scheduler by memos.runtime.build(settings, scheduler=…)"
            )
        self.config = config
        self.services = services
        self.top_k = config.top_k
        self.search_method = config.search_method
        self.use_redis_queue = config.use_redis_queue
        self.status_tracker = TaskStatusTracker(None, queue=queue)
        self._queue = queue
        self._default_cube_id = default_cube_id
        self._default_cube: Any = None
        self._lifecycle = threading.RLock()
        self._running = False
        self._made_by = os.getpid()
        self._stop_asked = threading.Event()
        self._hurried = threading.Event()
        self._launch = launch
        self._process: WorkerProcess | None = None  # runs the handlers in the startup mode `process`
        self._given: dict[str, Any] = {}  # what was registered, for that process
        self._consumer: threading.Thread | None = None
        self._pool = WorkerPool(config.workers)
        self._coroutines = CoroutineRunner()
        self._reported: set[str] = set()
        self._tasks = TaskMonitor()
        self.monitor = SchedulerMonitor(
            intent=services.intent,
            activity=services.activity,
            tasks=self._tasks,
            llm=services.llm_for("intent"),
        )
        self._leases = LeaseKeeper(queue, services.clock, on_timeout=self._on_timeout)
        settlement = self._settlement = Settlement(services.store, queue, services.sink)
        self._housekeeper = Housekeeper(services.store, queue, settlement, services.clock)
        self.orchestrator = SchedulerOrchestrator(queue.policies, on_write=self._leases.refresh)
        self._registry = HandlerRegistry(
            self.orchestrator,
            disabled=config.disabled_handlers,
            only=config.served_labels,
            on_change=queue.wake,
        )
        self.memos_message_queue = ScheduleTaskQueue(
            queue, submit=self.submit_messages, orchestrator=self.orchestrator
        )
        self.dispatcher = Dispatcher(
            queue,
            self._registry,
            clock=services.clock,
            monitor=self._tasks,
            coroutines=self._coroutines,
            aftermath=settlement,
            erased_at=services.erased_at,
        )

    # -- handlers ------------------------------------------------------------------------------------

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Function by label."""
        return self._registry.handlers

    def register_handlers(self, handlers: Mapping[str, Any]) -> None:
        """Register `{label: function | (function, priority, min_idle_ms) | (function, TaskPolicy)}`.

        Replaces what was registered for a label; allowed while running. Raises InvalidInput or
        ConfigError naming label and value; then nothing of the call took effect.
        """
        own = own_labels(handlers, self) if isinstance(handlers, Mapping) else frozenset()
        if self._launch is None:
            self._registry.register(handlers, own=own)
            return
        given = portable(handlers, self) if isinstance(handlers, Mapping) else {}
        self._registry.register(handlers, own=own)
        with self._lifecycle:
            self._given.update(given)
            if self._process is not None:
                self._process.register(given)

    def unregister_handlers(self, labels: Iterable[str]) -> dict[str, bool]:
        """Stop serving labels; their messages wait. Says of each label whether it had a handler."""
        removed = self._registry.unregister(labels)
        if self._launch is not None:
            with self._lifecycle:
                for label in removed:
                    self._given.pop(label, None)
                if self._process is not None:
                    self._process.unregister(removed)
        return removed

    def served_labels(self) -> frozenset[str]:
        """The labels that this scheduler claims: those with a handler that are not disabled."""
        return self._registry.served()

    # -- messages ------------------------------------------------------------------------------------

    def submit_messages(
        self,
        messages: ScheduleMessageItem | Sequence[ScheduleMessageItem],
        *,
        delay_s: float = 0.0,
        idempotency_key: str | None = None,
        when_full: WhenFull = "reject",
        timeout_s: float = BLOCK_S_DEFAULT,
    ) -> list[str]:
        """Queue one message or several, all or none, and return their keys.

        `delay_s`: run them that much later; others of their lane pass meanwhile. `idempotency_key`: a call
        that repeats it for the same user and cube, from any process, queues nothing and is given the first
        one's keys. `when_full`: a full queue refuses (reject), is waited for up to `timeout_s` (block), or
        takes what joins a waiting message of a coalescing label (coalesce).

        Inside a handler the messages are chained to the one being handled: they neither block nor
        count against the queue's bounds, and a repeat of the handler chains the same ones again, which
        the queue recognises. Messages of labels nobody serves are kept. Raises InvalidInput, QueueFull,
        QueueUnavailable.
        """
        options = SubmitOptions(delay_s, idempotency_key, when_full, timeout_s)
        ready = self._made_ready(messages)
        waits = pauses(self.services.clock.monotonic(), options.timeout_s if options.waits else 0.0)
        pause = next(waits, None)
        while True:
            try:
                return self._submit(ready, options)
            except QueueFull:
                if pause is None:
                    raise
                changed = threading.Condition()
                with changed:
                    self.services.clock.wait(changed, pause)
                pause = _following(waits, self.services.clock.monotonic())

    async def asubmit_messages(
        self,
        messages: ScheduleMessageItem | Sequence[ScheduleMessageItem],
        *,
        delay_s: float = 0.0,
        idempotency_key: str | None = None,
        when_full: WhenFull = "reject",
        timeout_s: float = BLOCK_S_DEFAULT,
    ) -> list[str]:
        """`submit_messages` for coroutines: the event loop goes on while the queue works or is waited for.

        Cancelling the awaiting task does not take back what the queue has taken.
        """
        options = SubmitOptions(delay_s, idempotency_key, when_full, timeout_s)
        ready = self._made_ready(messages)
        waits = pauses(self.services.clock.monotonic(), options.timeout_s if options.waits else 0.0)
        pause = next(waits, None)
        while True:
            try:
                return await asyncio.to_thread(self._submit, ready, options)
            except QueueFull:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
                pause = _following(waits, self.services.clock.monotonic())

    def cancel_messages(
        self,
        keys: str | Sequence[str] = (),
        *,
        item_id: str | None = None,
        task_id: str | None = None,
        user_id: str | None = None,
    ) -> Cancellation:
        """Cancel messages by key, or all open ones of an item, a business task or a user.

        What waits is taken out, surely; what runs is asked to stop (`current.cancelled()`), and ends as
        cancelled unless its handler completes it. Dead letters stay. Raises InvalidInput when nothing is
        named.
        """
        named = [keys] if isinstance(keys, str) else list(keys)
        return cancel(
            self._queue, self._settlement, keys=named, item_id=item_id, task_id=task_id, user_id=user_id
        )

    def _made_ready(
        self, messages: ScheduleMessageItem | Sequence[ScheduleMessageItem]
    ) -> list[ScheduleMessageItem]:
        self._refuse_fork()
        wanted = [messages] if isinstance(messages, ScheduleMessageItem) else _as_list(messages)
        return [_stamped(validate_message(message)) for message in wanted]

    def _submit(self, ready: list[ScheduleMessageItem], options: SubmitOptions) -> list[str]:
        if not ready:
            return []
        if not tracing.is_on():
            return self._put(ready, options)
        with submitting(ready) as traced:
            return self._put(traced, options)

    def _put(self, ready: list[ScheduleMessageItem], options: SubmitOptions) -> list[str]:
        run = batch_run()
        if run is None:
            keys = self._queue.submit(
                ready,
                delay_s=options.delay_s,
                idempotency_key=options.idempotency_key,
                when_full="coalesce" if options.when_full == "coalesce" else "reject",
            )
        else:
            run.refuse_when_over()  # whoever holds the parent now chains the same
            children = [replace(run.child(message), delay_s=options.delay_s) for message in ready]
            for child in children:
                if is_before(child.key, self.services.erased_at(child.message.user_id)):
                    raise SubjectErased("its user was erased while this task ran: it chains nothing")
            keys = self._queue.submit(
                [], followups=children, idempotency_key=options.idempotency_key, inside_handler=True
            )
        for message in ready:
            metrics.TASKS_SUBMITTED.add(label=message.label)
        self._report_unserved(ready)
        return keys

    def _refuse_fork(self) -> None:
        """A forked child has the queue but none of the threads: what it took in would wait for ever."""
        if os.getpid() != self._made_by:
            raise QueueUnavailable(
                "this scheduler was built before this process was forked; take mem_scheduler from "
                "memos.api.routers.server_router anew, or build a runtime in the child"
            )
        if is_being_imported():
            raise QueueUnavailable(
                "a worker process is importing this program, which would submit everything once more: keep its "
                'work under `if __name__ == "__main__":`'
            )

    def unserved_labels(self) -> dict[str, int]:
        """Waiting messages by label that this scheduler has no handler for."""
        served = self._registry.served()
        waiting: Counter[str] = Counter()
        for lane in self._queue.depth().lanes:
            for counts in (lane.queued, lane.delayed, lane.parked):
                waiting.update({label: n for label, n in counts.items() if label not in served})
        return {label: count for label, count in waiting.items() if count}

    def _report_unserved(self, messages: Iterable[ScheduleMessageItem]) -> None:
        served = self._registry.served()
        for label in {message.label for message in messages} - served - self._reported:
            if len(self._reported) < 1_000:
                self._reported.add(label)
            logger.warning("label.without_handler", label=label, labels_served=sorted(served))

    # -- status --------------------------------------------------------------------------------------

    def get_tasks_status(self) -> dict[str, Any]:
        """`running`, `remaining` and `pending` (= remaining), taken in one step.

        On Redis one such dictionary per stream follows, by `user:cube:label` (colons inside of ids are
        percent-encoded, so that no two streams share a key).
        """
        depth = self._queue.depth(lanes=self.use_redis_queue)
        status: dict[str, Any] = {
            "running": depth.running,
            "remaining": depth.remaining,
            "pending": depth.remaining,
        }
        for lane in depth.lanes if self.use_redis_queue else ():
            for label in {*lane.queued, *lane.delayed, *lane.parked, *lane.running}:
                remaining = sum(counts.get(label, 0) for counts in (lane.queued, lane.delayed, lane.parked))
                owner = ":".join(map(_without_colons, (lane.lane.user_id, lane.lane.mem_cube_id)))
                status[f"{owner}:{label}"] = {
                    "running": lane.running.get(label, 0),
                    "remaining": remaining,
                    "pending": remaining,
                }
        return status

    def print_tasks_status(self, tasks_status: Mapping[str, Any] | None = None) -> None:
        """Print a status of `get_tasks_status` (by default the current one) for people."""
        status = self.get_tasks_status() if tasks_status is None else tasks_status
        print_status(
            status,
            unserved=self.unserved_labels(),
            times=self._queue.depth(lanes=False).times,
            streams=self.use_redis_queue,
        )

    def get_label_times(self) -> dict[str, dict[str, float | None]]:
        """By label the p50 and p95, in seconds, of how long its last finished messages waited and ran, on
        all processes of the queue: `waiting_p50`, `waiting_p95`, `running_p50`, `running_p95`."""
        return {label: asdict(times) for label, times in self._queue.depth(lanes=False).times.items()}

    def get_running_tasks(
        self, filter_func: Callable[[RunningTaskItem], bool] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Calls of handlers in this process that have not returned, by their id."""
        return {key: dict(task) for key, task in self.dispatcher.get_running_tasks(filter_func).items()}

    def get_web_log_messages(self) -> list[dict[str, Any]]:
        """Take the web logs out of this process's buffer, oldest first; the store keeps them all."""
        return [one.model_dump(mode="json") for one in self.services.sink.drain()]

    # -- what a handler sees -------------------------------------------------------------------------

    @property
    def retriever(self) -> Searcher:
        """The documented `retriever.search(...)`."""
        return self.services.searcher

    @property
    def current_user_id(self) -> str:
        """Inside a handler the user of the message being handled; "" outside."""
        return context.user_id.get()

    @property
    def current_mem_cube_id(self) -> str:
        """Inside a handler the cube of the message being handled, outside the default cube."""
        return context.cube_id.get() or self._default_cube_id

    @property
    def current_mem_cube(self) -> Any:
        """Inside a handler the cube of the message being handled, outside the default cube."""
        cube_id = context.cube_id.get()
        if cube_id:
            return self.services.cube_of(cube_id)
        if self._default_cube is None:
            return self.services.cube_of(self._default_cube_id)
        return self._default_cube

    @current_mem_cube.setter
    def current_mem_cube(self, cube: Any) -> None:
        self.init_mem_cube(cube)

    @property
    def mem_cube(self) -> Any:
        """The documented second name of `current_mem_cube`."""
        return self.current_mem_cube

    @mem_cube.setter
    def mem_cube(self, cube: Any) -> None:
        self.init_mem_cube(cube)

    @property
    def mem_cubes(self) -> dict[str, Any]:
        """The cubes that hold memories, by id."""
        return {cube_id: self.services.cube_of(cube_id) for cube_id in self.services.store.cubes()}

    def init_mem_cube(self, mem_cube: Any, searcher: Any = None, feedback_server: Any = None) -> None:
        """Make `mem_cube` the default cube: what `current_mem_cube` is outside handlers."""
        self._default_cube = mem_cube

    def initialize_modules(
        self,
        chat_llm: Any = None,
        process_llm: Any = None,
        db_engine: Any = None,
        mem_reader: Any = None,
        redis_client: Any = None,
    ) -> None:
        """Documented, and complete already: a scheduler is usable when its constructor returns.

        Parts come in by `services`; one that is handed over here and differs is not taken over, which
        is logged, never silently ignored.
        """
        late = {
            "chat_llm": chat_llm,
            "process_llm": process_llm,
            "db_engine": db_engine,
            "mem_reader": mem_reader,
            "redis_client": redis_client,
        }
        unused = [name for name, part in late.items() if part is not None and part is not self.services.llm]
        if unused:
            logger.warning("scheduler.modules_not_taken", parts=unused, hint="hand them over in services")

    # -- running -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads. A second call while running does nothing but warn."""
        self._refuse_fork()
        with self._lifecycle:
            if self._running:
                logger.warning("scheduler.already_running")
                return
            self._hurried.clear()
            if self._launch is not None:
                self._process = self._launch(self._given)
                self._running = True
                logger.info("scheduler.started", mode="process", labels=sorted(self._registry.served()))
                return
            self._stop_asked = stop_asked = threading.Event()
            self._pool = pool = WorkerPool(self.config.workers)
            self._leases.start()
            self._housekeeper.start()
            self._consumer = threading.Thread(
                target=self._message_consumer, args=(pool, stop_asked), name="memos-consumer", daemon=True
            )
            self._consumer.start()
            self._running = True
            logger.info("scheduler.started", workers=pool.size, labels=sorted(self._registry.served()))

    def stop(self, grace_s: float | None = None) -> bool:
        """Stop claiming, let what runs finish for `grace_s` (default: the setting), hand back the rest.

        Waiting messages stay in the queue. `start` works again afterwards. A second call does nothing.
        Called by a handler it returns at once and stops behind it, or the handler would wait for itself.
        Returns whether all that ran was finished; `hurry`, from another thread, ends the grace.
        """
        if batch_run() is not None:
            threading.Thread(target=self.stop, args=(grace_s,), name="memos-stop", daemon=True).start()
            return False
        with self._lifecycle:
            if not self._running:
                self._coroutines.close()  # `run_once` needs no start, and may have run an `async def`
                self._housekeeper.stop()
                return True
            self._running = False
            self._stop_asked.set()
            grace = self.config.grace_s if grace_s is None else grace_s
            if self._process is not None:
                finished = self._process.stop(grace)
                self._process = None
                self._coroutines.close()
                logger.info("scheduler.stopped", mode="process", finished=finished)
                return finished
            self._join_consumer()
            finished = self._pool.wait_idle(grace, hurried=self._hurried.is_set)
            if not finished:
                self._hand_back()
            self._pool.close()
            self._coroutines.close()
            self._leases.stop()
            self._housekeeper.stop()
            logger.info("scheduler.stopped")
            return finished

    def hurry(self) -> None:
        """End the grace of a `stop` that waits in another thread: what runs is handed back now."""
        self._hurried.set()
        self._pool.nudge()
        process = self._process
        if process is not None:
            process.hurry()

    def _join_consumer(self) -> None:
        """Wake the consumer until it is gone: a wake just before it waits is not seen."""
        for _ in range(int(THREAD_JOIN_S / WAKE_S)):
            if self._consumer is None or not self._consumer.is_alive():
                return
            self._queue.wake()
            self._pool.nudge()
            self._consumer.join(WAKE_S)

    def run_once(self, *, lanes_max: int = 1, timeout_s: float = 0.0) -> int:
        """Claim and run up to `lanes_max` batches in the calling thread; returns how many there were.

        For programs that want no threads, and for tests that drive time themselves.
        """
        labels = self._registry.served()
        if not labels:
            return 0
        self._housekeeper.serve()
        asked_at = self.services.clock.monotonic()
        batches = self._queue.claim(labels, lanes_max=lanes_max, timeout_s=timeout_s)
        self._leases.hold(*batches, claimed_at=asked_at if timeout_s <= 0 else None)
        for batch in batches:
            self._run(batch, self._leases.is_lost)
        return len(batches)

    def keep_house(self) -> None:
        """One round of the housekeeper in the calling thread; it also runs by itself after `start`."""
        self._housekeeper.serve()
        self._housekeeper.emit_left_over()
        self._housekeeper.emit_unread()
        self._housekeeper.round()

    def _message_consumer(self, pool: WorkerPool, stop_asked: threading.Event) -> None:
        """The consumer thread's loop, under its documented name."""

        def settled(ended: Sequence[Ended]) -> None:
            self._leases.drop(*[one.batch for one in ended])
            pool.end(len(ended))

        # One for each part of the queue: those of a part that is away wait for it, the others do not.
        parts = self._queue.part_count if isinstance(self._queue, PartedQueue) else 1
        settlers = [Settler(self.dispatcher.settle, then=settled) for _ in range(parts)]
        while not stop_asked.is_set():
            try:
                free = pool.wait_free(stop_asked.is_set)
                labels = self._registry.served()
                if not free or not labels:
                    # Without any handler there is nothing to claim: look again when one is registered.
                    stop_asked.wait(CLAIM_WAIT_S)
                    continue
                asked_at = self.services.clock.monotonic()
                batches = self._queue.claim(labels, lanes_max=free, timeout_s=CLAIM_WAIT_S)
                # A claim that took longer than it waits stood still, perhaps with the leases in its hand.
                late = self.services.clock.monotonic() - asked_at > CLAIM_WAIT_S + CLAIM_SLACK_S
                self._leases.hold(*batches, claimed_at=asked_at if late else None)
                jobs = [self._job(batch, stop_asked, settlers[self._part_of(batch)]) for batch in batches]
                taken = 0 if stop_asked.is_set() else pool.submit_all(jobs)
                for batch in batches[taken:]:
                    self._release(batch)
            except QueueError as error:
                logger.warning("claim.failed", error=type(error).__name__)
                stop_asked.wait(QUEUE_DOWN_WAIT_S)
            except Exception as error:  # the thread loop: without it nothing would ever run again
                logger.error("consumer.died", error=type(error).__name__, exc_info=True)
                stop_asked.wait(QUEUE_DOWN_WAIT_S)

    def _part_of(self, batch: Batch) -> int:
        return self._queue.part_number(batch) if isinstance(self._queue, PartedQueue) else 0

    def _job(self, batch: Batch, stop_asked: threading.Event, settler: Settler) -> Job:
        def job() -> object:
            try:
                ended = self.dispatcher.handle(
                    batch,
                    stop_asked=lambda: stop_asked.is_set() or self._leases.is_lost(batch),
                    is_over=lambda: self._leases.is_over(batch),
                )
            except BaseException:
                self._leases.drop(batch)
                raise
            if ended.store_away:  # or it would be claimed and handed back without end
                stop_asked.wait(STORE_AWAY_WAIT_S)
            settler.take(ended)
            return GOES_ON

        return job

    def _run(self, batch: Batch, stop: Callable[[Batch], bool]) -> None:
        try:
            self.dispatcher.run(
                batch, stop_asked=lambda: stop(batch), is_over=lambda: self._leases.is_over(batch)
            )
        finally:
            self._leases.drop(batch)

    def _release(self, batch: Batch) -> None:
        """Hand a whole batch back, untouched."""
        self._leases.drop(batch)
        try:
            self._queue.finish(batch, [Release() for _ in batch.deliveries])
        except LeaseLost:
            pass  # somebody has it already
        except QueueError as error:
            logger.warning("batch.release_failed", lane=str(batch.lane), error=type(error).__name__)

    def _hand_back(self) -> None:
        held = self._leases.held()
        logger.warning("scheduler.grace_ended", batches=len(held))
        for batch in held:
            self._release(batch)

    def _on_timeout(self, batch: Batch) -> None:
        for delivery in batch.deliveries:
            self._tasks.timed_out(delivery.message.label)


def _following(waits: Generator[float, float], now: float) -> float | None:
    """The next pause; None when the time is over."""
    try:
        return waits.send(now)
    except StopIteration:
        return None


def _without_colons(text: str) -> str:
    return text.replace("%", "%25").replace(":", "%3A")


def _as_list(messages: object) -> list[Any]:
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise InvalidInput(
            f"submit_messages takes a ScheduleMessageItem or a list of them, not {type(messages).__name__}"
        )
    return list(messages)


def _stamped(message: ScheduleMessageItem) -> ScheduleMessageItem:
    """The message, or a copy with the current trace and API path where it names none."""
    changes: dict[str, str] = {}
    if not message.trace_id:
        changes["trace_id"] = context.current_trace_id()
    if message.api_path is None and context.api_path.get():
        changes["api_path"] = context.api_path.get()
    return message.model_copy(update=changes) if changes else message
