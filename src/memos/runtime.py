"""The composition root: `build(settings)` joins the parts, `Runtime.close()` takes them apart again.

This is the only module that knows which backend stands behind which protocol. Opening goes from the
store outwards and closing the other way round: the scheduler drains, the queue closes, the store last.
`current()` is the process's one runtime (locked; a forked child builds its own), which the documented
`server_router` names and `init_server()` are views of; at exit it is drained and closed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from memos import log, tracing
from memos.clock import Clock, SystemClock
from memos.errors import ConfigError, MemosError
from memos.runtime_activation import Activation, build_activation
from memos.runtime_documents import build_intake
from memos.runtime_models import Models, build_models
from memos.runtime_queue import build_queue, queue_following, redis_client
from memos.runtime_store import build_store, restore_store
from memos.settings import Settings

if TYPE_CHECKING:
    from memos.configs.mem_scheduler import SchedulerConfigFactory
    from memos.mem_chat.chat import MemChat
    from memos.mem_scheduler.general_scheduler import GeneralScheduler
    from memos.mem_scheduler.queues.base import TaskQueue
    from memos.mem_scheduler.sinks.rabbitmq import RabbitMqSink
    from memos.mem_scheduler.utils.status_tracker import TaskStatusTracker
    from memos.mem_scheduler.web_log import LogSink
    from memos.memory.indexer import Indexer
    from memos.memory.reader import MemReader
    from memos.memory.store import MemoryStore
    from memos.models.base import LLM, Embedder, Reranker
    from memos.retrieval.hybrid import HybridRetriever
    from memos.retrieval.searcher import Searcher
    from memos.tracing import Tracer

logger = log.get_logger(__name__)

WORKER_PROCESS = "memos-worker-process"
DRAIN_LOOK_S = 0.02  # between looks at the queue while closing


@dataclass(frozen=True, slots=True)
class Runtime:
    """Every part of a running system. Close it, or use it as a context manager."""

    settings: Settings
    clock: Clock
    store: MemoryStore
    queue: TaskQueue
    models: Models  # all of them; those below are the ones that are named most
    embedder: Embedder | None
    embedder_missing: str  # why there is no embedder; "" when there is one
    reranker: Reranker | None
    llm: LLM | None
    chat_llms: Mapping[str, LLM]
    indexer: Indexer
    retriever: HybridRetriever
    searcher: Searcher
    reader: MemReader
    log_sink: LogSink
    scheduler: GeneralScheduler
    status_tracker: TaskStatusTracker
    chat: MemChat
    activation: Activation  # what keeps prefixes of prompts
    publisher: RabbitMqSink | None = None  # of web logs to a broker
    redis_client: Any = None
    tracer: Tracer | None = None

    def drain(self, timeout_s: float) -> bool:
        """Let the scheduler run what waits, for at most `timeout_s`; whether nothing is left.

        Messages of labels that nobody serves are not waited for.
        """
        deadline = self.clock.monotonic() + timeout_s
        while self.scheduler._running:
            depth = self.queue.depth(lanes=False)
            if not depth.running and depth.remaining <= sum(self.scheduler.unserved_labels().values()):
                return True
            if self.clock.monotonic() >= deadline:
                logger.warning("close.not_drained", remaining=depth.remaining, running=depth.running)
                return False
            time.sleep(DRAIN_LOOK_S)
        return False

    def close(self) -> None:
        """Close everything. Safe to call twice.

        A queue in memory goes with the process, so a running scheduler first finishes what waits, for
        as long as the settings let `stop` take. A durable queue keeps it for the next process.
        """
        if self.settings.queue.effective_backend == "local":
            with contextlib.suppress(MemosError):
                self.drain(self.settings.scheduler.stop_grace_s)
        publisher = (self.publisher.close,) if self.publisher is not None else ()
        tracer = (partial(tracing.uninstall, self.tracer),) if self.tracer is not None else ()
        for step in (
            self.scheduler.stop,
            self.queue.close,
            *publisher,
            self.store.close,
            self.models.close,
            *tracer,
        ):
            with contextlib.suppress(MemosError):
                step()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def build(
    settings: Settings,
    *,
    start: bool | None = None,
    rebind: bool = False,
    clock: Clock | None = None,
    scheduler: SchedulerConfigFactory | None = None,
) -> Runtime:
    """Open every part. `start`: whether the scheduler runs (None: as the settings say).

    `scheduler` takes the place of the settings' scheduler section; what it asks for and this version does
    not have is refused. `rebind` skips the check that the stored vectors are of the configured embedder. Raises ConfigError,
    or the StoreError that says what is wrong with the file; what was opened by then is closed again.
    """
    log.configure(settings.log.level, settings.log.form)
    pin_threads()
    with contextlib.ExitStack() as opened:
        if is_worker_process() and scheduler is None:
            # The program's own module is imported there, and may name the runtime: it is the one that works.
            section = settings.scheduler.model_copy(update={"startup_mode": "thread", "enabled": False})
            settings = settings.model_copy(update={"scheduler": section})
        chosen = scheduler or _scheduler_config(settings)
        if scheduler is not None:
            settings = _following(settings, scheduler)
        runtime = _assemble(settings, chosen, clock or SystemClock(), rebind=rebind, opened=opened)
        if settings.scheduler.enabled if start is None else start:
            runtime.scheduler.start()
        if runtime.publisher is not None and start is not False:
            runtime.publisher.start()
        opened.pop_all()
    return runtime


def pin_threads() -> None:
    """One thread for the matrix products of a search, unless the environment says otherwise.

    A search multiplies one vector with a matrix: several threads only wait for each other (p95 over
    10,000 vectors 33 ms instead of 11 on two cores). Where numpy is loaded already the program that did so
    keeps its own choice.
    """
    if "numpy" not in sys.modules:
        for name in _BLAS_THREADS:
            os.environ.setdefault(name, "1")


_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def _assemble(
    settings: Settings,
    scheduler_config: SchedulerConfigFactory,
    clock: Clock,
    *,
    rebind: bool,
    opened: contextlib.ExitStack,
) -> Runtime:
    from memos.mem_chat.chat import MemChat
    from memos.mem_scheduler.handlers.context import Services
    from memos.mem_scheduler.monitors.activity import ActivityMonitor
    from memos.mem_scheduler.monitors.intent import IntentMonitor
    from memos.mem_scheduler.monitors.retention import RetentionRules
    from memos.mem_scheduler.monitors.search_history import SearchHistoryMonitor
    from memos.mem_scheduler.scheduler_factory import SchedulerFactory
    from memos.mem_scheduler.sinks.fan_out import FanOutSink
    from memos.mem_scheduler.sinks.local import LocalLogSink
    from memos.memory.cube import NaiveMemCube
    from memos.memory.indexer import Indexer
    from memos.memory.reader import MemReader
    from memos.models.extractive import ExtractiveAnswerer
    from memos.retrieval.hybrid import HybridRetriever
    from memos.retrieval.keywords import analyse
    from memos.retrieval.searcher import Searcher
    from memos.retrieval.weights import RecallWeights

    tracer = _tracer(settings)
    if tracer is not None:
        opened.callback(tracing.uninstall, tracer)
    store = build_store(settings, clock)
    opened.callback(store.close)
    models = build_models(settings.models, clock)
    opened.callback(models.close)
    embedder = models.embedder
    if embedder is not None and not rebind:
        store.bind_embedder(embedder.fingerprint, embedder.dim)
    queue = build_queue(settings, clock, store)
    opened.callback(queue.close)
    indexer = Indexer(embedder)
    retriever = HybridRetriever(
        store,
        embedder,
        clock=clock,
        weights=RecallWeights.with_values(settings.recall.weights),
        stages=settings.recall.stages,
    )
    searcher = Searcher(retriever)
    config = scheduler_config.config
    sink: LogSink = LocalLogSink(config.max_web_log_queue_size)
    publisher = _publisher(settings, store, clock)
    if publisher is not None:
        opened.callback(publisher.close)
        sink = FanOutSink(sink, publisher)
    activation = build_activation(settings, models, store, clock)
    services = Services(
        store=store,
        indexer=indexer,
        retriever=retriever,
        searcher=searcher,
        clock=clock,
        sink=sink,
        intent=IntentMonitor(
            embedder,
            terms_min=settings.scheduler.gate_terms_min,
            spread_min=settings.scheduler.gate_spread_min,
            several_margin=settings.scheduler.gate_several_margin,
        ),
        activity=ActivityMonitor(
            window=config.context_window_size, keywords_max=config.query_key_words_limit
        ),
        cube_of=lambda cube_id: NaiveMemCube(
            cube_id, store=store, indexer=indexer, retriever=retriever, clock=clock
        ),
        activation=activation.keeper,
        llm=models.scheduler_llm,
        reader_llm=models.reader_llm,
        model_steps=frozenset(settings.scheduler.model_steps),
        reranker=models.reranker,
        item_tokens_max=settings.memory.item_tokens_max,
        retention=RetentionRules(
            threshold=settings.memory.retention_threshold,
            ttl_days=settings.memory.retention_ttl_days,
            interval_s=settings.memory.retention_interval_s,
        ),
        searches=SearchHistoryMonitor(
            window=settings.scheduler.search_window_size, turns=settings.scheduler.search_history_turns
        ),
    )
    launch = None
    if config.scheduler_startup_mode == "process":
        from memos.worker.spawn import launcher

        launch = launcher(settings, scheduler_config)
    scheduler = SchedulerFactory.from_config(scheduler_config, queue=queue, services=services, launch=launch)
    reader = MemReader(clock=clock, tokens_max=settings.memory.item_tokens_max)
    chat = MemChat(
        store=store,
        indexer=indexer,
        retriever=retriever,
        reader=reader,
        scheduler=scheduler,
        answerer=ExtractiveAnswerer(analyse),
        llm=models.llm,
        llms=models.chat_llms,
        clock=clock,
        extract=services.extract,
        item_tokens_max=settings.memory.item_tokens_max,
        prompt_tokens_max=settings.models.chat_prompt_tokens_max,
        sink=sink,
        intake=build_intake(settings, models.vision_llm),
        blocks=activation.blocks,
        backend_of=activation.backend_of,
        prefix_ttl_s=settings.activation.ttl_s,
    )
    client = redis_client(queue)
    if client is not None:
        scheduler.status_tracker.share(client, prefix=f"{settings.queue.redis_prefix}:{{ms:0}}:status")
    return Runtime(
        settings=settings,
        clock=clock,
        store=store,
        queue=queue,
        models=models,
        embedder=embedder,
        embedder_missing=models.embedder_missing,
        reranker=models.reranker,
        llm=models.llm,
        chat_llms=models.chat_llms,
        indexer=indexer,
        retriever=retriever,
        searcher=searcher,
        reader=reader,
        log_sink=sink,
        publisher=publisher,
        scheduler=scheduler,
        status_tracker=scheduler.status_tracker,
        chat=chat,
        redis_client=client,
        activation=activation,
        tracer=tracer,
    )


def _tracer(settings: Settings) -> Tracer | None:
    """What takes spans to an endpoint, installed; None where nothing is traced. ConfigError without its package."""
    if not settings.tracing.enabled:
        return None
    try:
        from memos.otel import OtelTracer
    except ImportError as error:
        raise ConfigError(
            "MEMOS_TRACING__ENABLED needs OpenTelemetry: pip install 'memscheduler[otel]'"
        ) from error
    tracer = OtelTracer()
    tracing.install(tracer)
    return tracer


def _publisher(settings: Settings, store: MemoryStore, clock: Clock) -> RabbitMqSink | None:
    """What takes web logs to a broker; None where no broker is named. ConfigError without its package."""
    chosen = settings.rabbitmq
    if not chosen.host:
        return None
    from memos.mem_scheduler.sinks.rabbitmq import Broker, RabbitMqSink

    broker = Broker(
        host=chosen.host,
        port=chosen.port,
        user=chosen.user,
        password=chosen.password.get_secret_value(),
        virtual_host=chosen.virtual_host,
        tls=chosen.tls,
        ca_file=chosen.ca_file,
        exchange=chosen.exchange,
        exchange_type=chosen.exchange_type,
        queue=chosen.queue,
    )
    return RabbitMqSink(broker, store, cursor=settings.rabbitmq_cursor_path, clock=clock)


def _scheduler_config(settings: Settings) -> SchedulerConfigFactory:
    """What the settings say, in the documented form."""
    from memos.configs.mem_scheduler import SchedulerConfigFactory

    chosen = settings.scheduler
    return SchedulerConfigFactory(
        backend=f"{chosen.kind}_scheduler",
        config={
            "top_k": chosen.top_k,
            "thread_pool_max_workers": max(2, chosen.workers),
            "enable_parallel_dispatch": chosen.workers > 1,
            "scheduler_startup_mode": chosen.startup_mode,
            "served_labels": chosen.labels,
            "act_mem_update_interval": chosen.act_mem_update_interval,
            "context_window_size": chosen.context_window_size,
            "enable_activation_memory": chosen.enable_activation_memory,
            "query_trigger_interval": chosen.query_trigger_interval,
            "stop_grace_s": chosen.stop_grace_s,
            "disabled_handlers": chosen.disabled_handlers,
            "search_method": chosen.search_method,
            "max_web_log_queue_size": chosen.web_log_buffer_max,
            "use_redis_queue": settings.queue.effective_backend == "redis",
        },
    )


def _following(settings: Settings, scheduler: SchedulerConfigFactory) -> Settings:
    """The settings as a scheduler configuration changes them. Raises ConfigError for what is not here."""
    config = scheduler.config
    for key, value, refused, why in (
        ("auth_config_path", config.auth_config_path, config.auth_config_path, "nothing needs credentials"),
        (
            "db_url",
            "…",  # it may hold a password
            config.db_url and not config.db_url.startswith(("postgresql://", "postgres://")),
            "the store is a file or on PostgreSQL: give db_path, or a db_url of postgresql://…",
        ),
        (
            "enable_orm_persistence",
            config.enable_orm_persistence,
            not config.enable_orm_persistence,
            "the state of monitors always stands in the store",
        ),
    ):
        if refused:
            raise ConfigError(f"{key}={value!r} cannot be honoured ({why}); leave it out")
    section = settings.scheduler.model_copy(
        update={
            "kind": "optimized" if scheduler.backend == "optimized_scheduler" else "general",
            "top_k": config.top_k,
            "workers": config.workers,
            "startup_mode": config.scheduler_startup_mode,
            "labels": config.served_labels,
            "act_mem_update_interval": config.act_mem_update_interval,
            "enable_activation_memory": config.enable_activation_memory,
            "context_window_size": config.context_window_size,
            "query_trigger_interval": config.query_trigger_interval,
            "stop_grace_s": config.stop_grace_s,
            "disabled_handlers": config.disabled_handlers,
            "search_method": config.search_method,
            "web_log_buffer_max": config.max_web_log_queue_size,
        }
    )
    changes: dict[str, Any] = {"scheduler": section}
    if config.db_url:
        changes["store"] = settings.store.model_copy(update={"url": SecretStr(config.db_url)})
    elif config.db_path:
        changes["store"] = settings.store.model_copy(update={"path": Path(config.db_path).expanduser()})
    changes["queue"] = queue_following(settings.queue, config)
    return settings.model_copy(update=changes)


def restore(settings: Settings, backup: Path) -> int:
    """Put a backup where the settings have their store and none is yet (a database: nothing in it); returns
    its bytes.

    Raises InvalidInput when a store is there already, StoreCorrupt when the backup is damaged.
    """
    return restore_store(settings, backup)


_lock = threading.RLock()
_current: Runtime | None = None


def current() -> Runtime:
    """The process's runtime, built from the environment at the first call.

    Locked: concurrent first calls build once. What goes wrong while building is raised to every caller
    until it is mended; nothing half-built stays.
    """
    global _current
    with _lock:
        if _current is None:
            _current = build(Settings.load())
        return _current


def is_worker_process() -> bool:
    """Whether this process is the one that the startup mode `process` starts."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.current_process().name == WORKER_PROCESS


def built() -> Runtime | None:
    """The process's runtime, if there is one."""
    with _lock:
        return _current


@contextlib.contextmanager
def adopted(runtime: Runtime) -> Iterator[None]:
    """Make `runtime` the process's one for the length of the block. ConfigError where there is one."""
    global _current
    with _lock:
        if _current is not None and _current is not runtime:
            raise ConfigError("this process has a runtime already; call memos.runtime.reset() first")
        _current = runtime
    try:
        yield
    finally:
        with _lock:
            if _current is runtime:
                _current = None


def reset() -> None:
    """Finish what waits, as long as the settings let `stop` take, and close the process's runtime.

    Runs at exit. The next `current()` builds a new one.
    """
    global _current
    with _lock:
        if _current is not None:
            with contextlib.suppress(MemosError):
                _current.drain(_current.settings.scheduler.stop_grace_s)
            _current.close()
            _current = None


def _forget_after_fork() -> None:
    """A forked child has none of the parent's threads and must not touch its connections: build anew.

    The parent's objects are kept alive on purpose: closing an inherited SQLite connection in the child
    would drop the parent's file locks (https://www.sqlite.org/howtocorrupt.html, section 2.6).
    """
    global _current, _lock
    _inherited.append(_current)
    _current, _lock = None, threading.RLock()


_inherited: list[Runtime | None] = []
os.register_at_fork(after_in_child=_forget_after_fork)
atexit.register(reset)
