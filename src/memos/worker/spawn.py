"""The worker process of `scheduler_startup_mode: process`: started, told, watched and stopped.

It is a fresh interpreter (never a fork: a forked child would share the parent's connections) that builds a
runtime of its own on the same store and queue. Parent and child talk over a pipe: registrations go down,
"ready" and the end of a drain come up. A child that dies unexpectedly is started again, with growing
pauses; a child whose parent is gone drains and ends.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from memos import log
from memos import runtime as root
from memos.configs.mem_scheduler import SchedulerConfigFactory
from memos.errors import ConfigError, QueueUnavailable
from memos.mem_scheduler.base_scheduler import BaseScheduler
from memos.mem_scheduler.startup import Launch, WorkerProcess, resolved
from memos.settings import Settings
from memos.worker.serve import DRAINED, drain, pin_threads, refuse_local_queue, wait_for_stop
from memos.worker.signals import StopSignals

logger = log.get_logger(__name__)

READY_S = 120.0  # for the child to import everything and claim
END_S = 10.0  # after the grace, for the child to be gone
RESTART_S = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
STEADY_S = 300.0  # a child that ran for so long was no failed start: the pauses begin anew


def launcher(settings: Settings, config: SchedulerConfigFactory) -> Launch:
    """What starts the process for these settings. Raises ConfigError for the queue in memory."""
    refuse_local_queue(settings, "scheduler_startup_mode=process")

    def launch(handlers: Mapping[str, Any]) -> WorkerProcess:
        return SpawnedWorker(settings, config, handlers)

    return launch


class SpawnedWorker:
    """A `WorkerProcess`."""

    def __init__(
        self, settings: Settings, config: SchedulerConfigFactory, handlers: Mapping[str, Any]
    ) -> None:
        self._settings = settings
        self._config = config
        self._handlers = dict(handlers)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process: BaseProcess
        self._pipe: Connection
        self._begin()
        # multiprocessing would end its children before anybody drained them. These come before, the last first.
        atexit.register(self.stop, None)
        atexit.register(root.reset)
        self._watcher = threading.Thread(target=self._watch, name="memos-process-watch", daemon=True)
        self._watcher.start()

    def register(self, handlers: Mapping[str, Any]) -> None:
        with self._lock:
            self._handlers.update(handlers)
            self._tell("register", handlers)

    def unregister(self, labels: Iterable[str]) -> None:
        with self._lock:
            gone = list(labels)
            for label in gone:
                self._handlers.pop(label, None)
            self._tell("unregister", gone)

    def hurry(self) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError, ValueError):
            if self._process.is_alive() and self._process.pid:
                self._process.terminate()

    def stop(self, grace_s: float | None) -> bool:
        if self._stopping.is_set():
            return True
        self._stopping.set()
        atexit.unregister(self.stop)
        with self._lock:
            self._tell("stop", grace_s)
        # Only the watcher waits for the process: of two that do, one finds nothing to reap and no exit code.
        self._watcher.join(None if grace_s is None else grace_s + END_S)
        if self._watcher.is_alive():
            logger.warning("process.killed", pid=self._process.pid)
            self._process.kill()
            self._watcher.join()
        self._pipe.close()
        return self._process.exitcode == DRAINED

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(
            target=_serve,
            args=(self._settings, self._config, dict(self._handlers), there),
            name=root.WORKER_PROCESS,
            daemon=True,
        )
        process.start()
        there.close()
        self._process, self._pipe = process, here
        try:
            answer = here.recv() if here.poll(READY_S) else "it did not answer in time"
        except (EOFError, OSError):  # it closed the pipe, or was killed with it
            process.join(END_S)
            answer = f"it ended with exit code {process.exitcode}"
        if answer != "ready":
            process.kill()
            here.close()
            raise QueueUnavailable(
                f"the worker process did not start: {answer}. A program that starts one keeps its own work "
                'under `if __name__ == "__main__":`, because the process imports it'
            )
        logger.info("process.started", pid=process.pid)

    def _watch(self) -> None:
        deaths = 0
        while True:
            begun = time.monotonic()
            self._process.join()
            if self._stopping.is_set():
                return
            if time.monotonic() - begun > STEADY_S:
                deaths = 0
            pause = RESTART_S[min(deaths, len(RESTART_S) - 1)]
            deaths += 1
            logger.error("process.died", exit_code=self._process.exitcode, restart_in_s=pause)
            if self._stopping.wait(pause):
                return
            with self._lock:
                if self._stopping.is_set():
                    return
                self._pipe.close()
                try:
                    self._begin()
                except (
                    QueueUnavailable,
                    OSError,
                ) as error:  # OSError: no memory, no descriptors; later there may be
                    logger.error("process.not_restarted", error=str(error))

    def _tell(self, word: str, value: Any) -> None:
        with contextlib.suppress(OSError):  # a dead child: the next one is told all at its start
            self._pipe.send((word, value))


def _serve(
    settings: Settings, config: SchedulerConfigFactory, handlers: Mapping[str, Any], pipe: Connection
) -> None:
    """The child. Ctrl-C goes to the whole group: it is the parent's to say when to stop."""
    pin_threads()
    with StopSignals(ignored=(signal.SIGINT,)) as signals:
        code = _work(settings, config, handlers, pipe, signals)
    raise SystemExit(code)


def _work(
    settings: Settings,
    config: SchedulerConfigFactory,
    handlers: Mapping[str, Any],
    pipe: Connection,
    signals: StopSignals,
) -> int:
    local = SchedulerConfigFactory(
        config.backend, config.config.model_copy(update={"scheduler_startup_mode": "thread"})
    )
    try:
        runtime = _imported(settings) or root.build(settings, start=False, scheduler=local)
    except Exception as error:  # whatever it is, the parent is the one to tell
        pipe.send(f"{type(error).__name__}: {error}")
        return 1
    with runtime, root.adopted(runtime):
        scheduler = runtime.scheduler
        scheduler.register_handlers(resolved(handlers, scheduler))
        scheduler.start()
        pipe.send("ready")
        grace: list[float | None] = []
        wait_for_stop(signals, watched=pipe, on_watched=_listener(pipe, scheduler, grace))
        return drain(scheduler, signals, grace_s=grace[0] if grace else None)


def _imported(settings: Settings) -> root.Runtime | None:
    """The runtime that the program's own module named while it was imported, if it is of the same data."""
    found = root.built()
    same = found is not None and (
        found.settings.store_path,
        found.settings.store.url,
        found.settings.store.schema_name,
        found.settings.queue,
    ) == (settings.store_path, settings.store.url, settings.store.schema_name, settings.queue)
    return found if same else None


def _listener(pipe: Connection, scheduler: BaseScheduler, grace: list[float | None]) -> Callable[[], bool]:
    def heard() -> bool:
        try:
            word, value = pipe.recv()
        except (EOFError, OSError):
            return False  # the parent is gone
        if word == "register":
            try:
                scheduler.register_handlers(resolved(value, scheduler))
            except ConfigError as error:
                logger.error("process.not_registered", labels=sorted(value), error=str(error))
        elif word == "unregister":
            scheduler.unregister_handlers(value)
        else:
            grace.append(value)
            return False
        return True

    return heard
