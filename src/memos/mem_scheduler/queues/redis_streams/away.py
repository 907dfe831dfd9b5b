"""The shards whose node does not answer: whoever finds one away goes on without it, and it is asked behind their
back, with growing pauses, until it answers again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from memos import log
from memos.errors import ConfigError, QueueError

logger = log.get_logger(__name__)

PAUSE_MIN_S = 0.05
PAUSE_MAX_S = 2.0


class Away:
    """Thread-safe; a thread lives while a shard is away."""

    def __init__(self, ask: Callable[[int], None], *, on_back: Callable[[int], None]) -> None:
        """`ask` raises QueueError while the shard is away; `on_back` may raise it too: it is away still."""
        self._ask = ask
        self._on_back = on_back
        self._lock = threading.Lock()
        self._away: frozenset[int] = frozenset()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def __call__(self) -> frozenset[int]:
        """Those that are away."""
        return self._away

    def note(self, number: int, error: Exception) -> None:
        """This shard did not answer."""
        with self._lock:
            if number in self._away or self._closed.is_set():
                return
            self._away |= {number}
            logger.warning("queue.shard_away", shard=number, error=str(error))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="memos-queue-shards", daemon=True)
                self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        pause_s = PAUSE_MIN_S
        while True:
            self._closed.wait(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(PAUSE_MAX_S, pause_s * 2)
            for number in sorted(self._away):
                if self._closed.is_set():
                    return
                if self._is_back(number):
                    pause_s = PAUSE_MIN_S
            with self._lock:
                if not self._away:
                    self._thread = None
                    return

    def _is_back(self, number: int) -> bool:
        try:
            self._ask(number)
            self._on_back(number)
        except (QueueError, ConfigError):
            return False
        with self._lock:
            self._away -= {number}
        logger.info("queue.shard_back", shard=number)
        return True
