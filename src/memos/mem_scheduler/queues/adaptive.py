"""How many messages a batch may have: the adaptive rule. Pure.

A label starts at 1. A full batch that took less than 50 ms doubles the size (at most 256 and the
policy's bound); one that took longer brings it down to what fits into 50 ms. So a slow handler keeps
few messages in flight, and few are repeated after a kill, while a fast one drains at full speed.

Messages that are cheaper together (`TOGETHER`: the queries of one `mem_update` batch share the questions to
a model) come at least so many at once, however slow they are, except right after a lost lease.
"""

from __future__ import annotations

from collections.abc import Iterable

from memos.mem_scheduler.schemas.task_schemas import MEM_UPDATE_TASK_LABEL

BATCH_SIZE_MAX = 256
BATCH_TARGET_S = 0.05
TOGETHER = {MEM_UPDATE_TASK_LABEL: 8}


def next_size(size: int, taken: int, took_s: float) -> int:
    """The size after a batch of `taken` messages that took `took_s` seconds, when `size` was allowed."""
    if took_s < BATCH_TARGET_S:
        return min(BATCH_SIZE_MAX, size * 2) if taken >= size else size
    return max(1, min(size // 2, int(taken * BATCH_TARGET_S / took_s)))


class BatchSizes:
    """The present size of each label. Not thread-safe."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._lost: set[str] = set()  # labels of which a lease was lost and no batch has run since

    def of(self, label: str) -> int:
        least = 1 if label in self._lost else TOGETHER.get(label, 1)
        return max(self._sizes.get(label, 1), least)

    def record(self, labels: Iterable[str], taken: int, took_s: float) -> None:
        """A batch of `taken` messages with these labels ran `took_s` seconds."""
        for label in labels:
            self._sizes[label] = next_size(self._sizes.get(label, 1), taken, took_s)
            self._lost.discard(label)

    def reset(self, labels: Iterable[str]) -> None:
        """A lease was lost: begin again with one message."""
        for label in labels:
            self._sizes.pop(label, None)
            self._lost.add(label)
