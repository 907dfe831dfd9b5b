"""Tells the queue what became of batches: what ended while a call was under way goes into the next one together.

A call costs a queue nearly the same for one batch and for several. So the thread that ends a batch while nobody
settles does it at once, by itself, and then whatever ended meanwhile; the others hand theirs over and take the
next job. Nothing waits for company: alone, a batch is settled as soon as it ended.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from memos import log
from memos.mem_scheduler.dispatcher import Ended

logger = log.get_logger(__name__)

MESSAGES_MAX = 1_000  # of one call: a long one would keep others from the queue


class Settler:
    """`settle` takes what is to be told in one call, `then` is called after it with the same. Thread-safe; bounded by
    the pool, whose jobs are at their end when their batch is settled."""

    def __init__(
        self, settle: Callable[[Sequence[Ended]], object], *, then: Callable[[Sequence[Ended]], object]
    ) -> None:
        self._settle = settle
        self._then = then
        self._lock = threading.Lock()
        self._ended: deque[Ended] = deque()
        self._settling = False

    def take(self, ended: Ended) -> None:
        """This batch ended; returns when it is settled, or when another thread will do that."""
        with self._lock:
            self._ended.append(ended)
            if self._settling:
                return
            self._settling = True
        while together := self._next():
            try:
                self._settle(together)
            except Exception as error:  # nothing else would settle what is handed over after it
                logger.error(
                    "settler.failed", batches=len(together), error=type(error).__name__, exc_info=True
                )
            finally:
                self._then(together)

    def _next(self) -> list[Ended]:
        """What goes into the next call; nothing: this thread settles no more."""
        together: list[Ended] = []
        messages = 0
        with self._lock:
            while self._ended and (not together or messages + len(self._ended[0].outcomes) <= MESSAGES_MAX):
                together.append(self._ended.popleft())
                messages += len(together[-1].outcomes)
            if not together:
                self._settling = False
        return together
