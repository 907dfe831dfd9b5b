"""A queue at one moment, for people: `memos status` and the queue's routes show the same picture.

Pure values over what `TaskQueue` says; looking changes nothing in the queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line is quick to start
    from memos.mem_scheduler.queues.base import HeldLease, Instance, LaneDepth, QueueDepth, TaskQueue


@dataclass(frozen=True, slots=True)
class LabelSums:
    """One label over some lanes. `lag_s`: of the oldest that is ready, over all of them."""

    queued: int = 0
    delayed: int = 0
    parked: int = 0
    running: int = 0
    lag_s: float = 0.0

    @property
    def waiting(self) -> int:
        return self.queued + self.delayed + self.parked

    def __add__(self, other: LabelSums) -> LabelSums:
        return LabelSums(
            self.queued + other.queued,
            self.delayed + other.delayed,
            self.parked + other.parked,
            self.running + other.running,
            max(self.lag_s, other.lag_s),
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """What a queue shows at one moment. `at` is wall time."""

    at: float
    depth: QueueDepth
    instances: tuple[Instance, ...]
    leases: tuple[HeldLease, ...]

    @classmethod
    def of(cls, queue: TaskQueue, at: float, *, leases_max: int) -> Picture:
        """Look now; at most `leases_max` leases, the longest held first."""
        return cls(at, queue.depth(), tuple(queue.instances()), tuple(queue.leases(limit=leases_max)))

    def by_label(self) -> dict[str, LabelSums]:
        """Counts over all lanes, and the greatest lag."""
        sums: dict[str, LabelSums] = {}
        for lane in self.depth.lanes:
            for label in labels_of(lane):
                sums[label] = sums.get(label, LabelSums()) + sums_of(lane, label)
        return sums


def labels_of(lane: LaneDepth) -> list[str]:
    """The labels of which a lane holds messages, by name."""
    counts = (lane.queued, lane.delayed, lane.parked, lane.running)
    return sorted({label for count in counts for label in count})


def sums_of(lane: LaneDepth, label: str) -> LabelSums:
    """What a lane holds of one label."""
    return LabelSums(
        lane.queued.get(label, 0),
        lane.delayed.get(label, 0),
        lane.parked.get(label, 0),
        lane.running.get(label, 0),
        lane.oldest_s.get(label, 0.0),
    )
