"""The claims that wait for work: each with its own condition on the queue's lock.

One event wakes one waiter that serves its label, not all of them; whoever leaves passes on what is
left. A waiter sleeps until the earliest time it knows of; an earlier one wakes it to look again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from memos.clock import Clock


class Waiter:
    """One waiting claim."""

    __slots__ = ("called", "condition", "labels", "until")

    def __init__(self, labels: frozenset[str], lock: threading.Lock) -> None:
        self.labels = labels
        self.condition = threading.Condition(lock)
        self.until = 0.0
        self.called = False


class Waiters:
    """All waiting claims, longest waiting first. Every method needs the lock held."""

    def __init__(self, lock: threading.Lock, clock: Clock) -> None:
        self._lock = lock
        self._clock = clock
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, labels: frozenset[str], *, until: float) -> None:
        """Sleep until called or until that time (monotonic).

        What is left is counted from now, not from when the caller looked: time passed since then.
        """
        waiter = Waiter(labels, self._lock)
        waiter.until = until
        self._waiting[waiter] = None
        try:
            self._clock.wait(waiter.condition, max(0.0, until - self._clock.monotonic()))
        finally:
            del self._waiting[waiter]

    def call(self, label: str) -> None:
        """There is work of this label: wake one waiter that serves it."""
        for waiter in self._waiting:
            if not waiter.called and label in waiter.labels:
                self._call(waiter)
                return

    def call_by(self, due_at: float) -> None:
        """See that a waiter is awake by that time: any one, as whoever wakes looks after all times."""
        if all(not waiter.called and waiter.until > due_at for waiter in self._waiting):
            for waiter in self._waiting:
                self._call(waiter)
                return

    def call_if(self, finds_work: Callable[[frozenset[str]], bool]) -> None:
        """Wake the first waiter that would find work."""
        for waiter in self._waiting:
            if not waiter.called and finds_work(waiter.labels):
                self._call(waiter)
                return

    def call_all(self) -> None:
        for waiter in self._waiting:
            self._call(waiter)

    @staticmethod
    def _call(waiter: Waiter) -> None:
        waiter.called = True
        waiter.condition.notify()
