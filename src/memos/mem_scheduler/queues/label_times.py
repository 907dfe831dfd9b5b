"""How long the last finished messages of each label waited and ran."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from memos.mem_scheduler.queues.base import LabelTimes

SAMPLES_MAX = 512


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class TimesByLabel:
    """The last samples of each label. Not thread-safe; labels are those that were run, hence few.

    Status is asked far more often than it changes for most labels: a summary is kept until its label
    has a new sample.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[float]] = {}
        self._running: dict[str, deque[float]] = {}
        self._summaries: dict[str, LabelTimes] = {}

    def record(self, label: str, *, waited_s: Sequence[float], ran_s: float) -> None:
        """Messages of one label that were finished together."""
        if label not in self._waiting:
            self._waiting[label] = deque(maxlen=SAMPLES_MAX)
            self._running[label] = deque(maxlen=SAMPLES_MAX)
        self._waiting[label].extend(waited_s)
        self._running[label].extend([ran_s] * len(waited_s))
        self._summaries.pop(label, None)

    def summary(self) -> dict[str, LabelTimes]:
        for label in self._waiting.keys() - self._summaries.keys():
            waiting, running = self._waiting[label], self._running[label]
            self._summaries[label] = LabelTimes(
                waiting_p50=percentile(waiting, 0.5),
                waiting_p95=percentile(waiting, 0.95),
                running_p50=percentile(running, 0.5),
                running_p95=percentile(running, 0.95),
            )
        return dict(self._summaries)
