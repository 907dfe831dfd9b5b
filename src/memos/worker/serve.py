"""One worker: claims and runs until it is told to stop, then drains.

The first SIGTERM or SIGINT: claim no more, let what runs finish until the grace ends, then hand the rest
back at once, so that others need not wait for its leases. The second one: hand back now. A task that was
handed back runs again elsewhere; what it had committed by then is not done twice.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import Any

from memos import log
from memos.errors import ConfigError
from memos.mem_scheduler.base_scheduler import BaseScheduler
from memos.settings import Settings
from memos.worker.signals import StopSignals

logger = log.get_logger(__name__)

DRAINED = 0
HANDED_BACK = 3  # exit code: not all of what ran could finish


def pin_threads() -> None:
    """One thread for every matrix product, unless the environment says otherwise: the pool of handlers is
    what uses the cores, and several workers of a machine would only take them from each other."""
    for name in _THREADS:
        os.environ.setdefault(name, "1")


_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def refuse_local_queue(settings: Settings, what: str) -> None:
    """ConfigError where the queue lives in one process: another would wait for ever."""
    if settings.queue.effective_backend == "local":
        raise ConfigError(
            f"{what} needs a queue that processes share, and MEMOS_QUEUE__BACKEND=local is in the memory of "
            "one; unset it (sqlite, for the processes of one machine) or use Redis (for many machines)"
        )


def wait_for_stop(
    signals: StopSignals, *, watched: Any = None, on_watched: Callable[[], bool] = lambda: False
) -> None:
    """Wait for a signal.

    `watched` (with a `fileno`) is waited for as well: when it is readable `on_watched` is called, and says
    whether to go on.
    """
    files: list[Any] = [signals] if watched is None else [signals, watched]
    while not signals.count:
        ready, _, _ = select.select(files, [], [])
        signals.clear()
        if watched in ready and not on_watched():
            break


def drain(scheduler: BaseScheduler, signals: StopSignals, *, grace_s: float | None = None) -> int:
    """Stop, and hand back at once when another signal comes; returns DRAINED or HANDED_BACK.

    The scheduler stops on a thread of its own, so that the signal is heard meanwhile.
    """
    logger.info("worker.draining", running=len(scheduler.get_running_tasks()))
    patient = 2 if signals.count else 1  # the signal after the one that began this
    finished: list[bool] = []
    read, write = os.pipe()

    def stop() -> None:
        try:
            finished.append(scheduler.stop(grace_s))
        finally:
            os.close(write)

    thread = threading.Thread(target=stop, name="memos-drain", daemon=True)
    thread.start()
    files: list[Any] = [read, signals]
    while True:
        ready, _, _ = select.select(files, [], [])
        signals.clear()
        if read in ready:
            break
        if signals.count >= patient:
            logger.warning("worker.handing_back")
            scheduler.hurry()
    os.close(read)
    thread.join()
    return DRAINED if finished == [True] else HANDED_BACK
