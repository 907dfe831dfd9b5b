"""How often somebody may ask: a token bucket for each key, in this process.

A bucket holds a minute's worth of requests at most and fills steadily, so a burst after a pause is fine
and a steady stream above the rate is not. Thread-safe; buckets that are full again are forgotten.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from memos.clock import Clock

BUCKETS_MAX = 10_000


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class RateLimits:
    """The buckets of one server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}

    def wait_s(self, name: str, per_minute: int) -> float:
        """Take one request of `name` out of its bucket; 0, or the seconds until there is one again."""
        if per_minute <= 0:
            return 0.0
        rate = per_minute / 60.0
        now = self._clock.monotonic()
        with self._lock:
            bucket = self._buckets.get(name)
            if bucket is None:
                if len(self._buckets) >= BUCKETS_MAX:
                    self._forget_full(now)
                bucket = self._buckets[name] = _Bucket(float(per_minute), now)
            bucket.left = min(float(per_minute), bucket.left + (now - bucket.at) * rate)
            bucket.at = now
            if bucket.left >= 1.0:
                bucket.left -= 1.0
                return 0.0
            return (1.0 - bucket.left) / rate

    def _forget_full(self, now: float) -> None:
        """A bucket that was not touched for a minute is full, and a full one is as good as none."""
        self._buckets = {name: one for name, one in self._buckets.items() if now - one.at < 60.0}
