"""What becomes due when: a heap of times. Pure.

A time that no longer applies stays in the heap until it comes up (the owner tells), or until half of
the heap is out of date and it is rebuilt; so the heap is bounded by twice what is really due.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

Subject = TypeVar("Subject")

_COMPACT_ABOVE = 64


class Timers(Generic[Subject]):
    """Times (monotonic seconds) with their subjects. Not thread-safe."""

    def __init__(self, applies: Callable[[Subject, float], bool]) -> None:
        """`applies(subject, due_at)`: whether that time still means something."""
        self._applies = applies
        self._heap: list[tuple[float, int, Subject]] = []
        self._ticket = itertools.count()
        self._compact_at = _COMPACT_ABOVE

    def push(self, due_at: float, subject: Subject) -> None:
        if len(self._heap) >= self._compact_at:
            self._heap = [entry for entry in self._heap if self._applies(entry[2], entry[0])]
            heapq.heapify(self._heap)
            self._compact_at = max(_COMPACT_ABOVE, 2 * len(self._heap))
        heapq.heappush(self._heap, (due_at, next(self._ticket), subject))

    def next_due(self) -> float | None:
        """The earliest time that applies; None when nothing will ever be due."""
        while self._heap:
            due_at, _, subject = self._heap[0]
            if self._applies(subject, due_at):
                return due_at
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> Subject | None:
        """Take out the earliest subject that is due; None when there is none."""
        due_at = self.next_due()
        if due_at is None or due_at > now:
            return None
        return heapq.heappop(self._heap)[2]

    def clear(self) -> None:
        self._heap.clear()

    def __len__(self) -> int:
        return len(self._heap)
