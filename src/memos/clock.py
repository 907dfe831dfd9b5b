"""Time as a parameter: whoever needs the time is given a `Clock`.

`SystemClock` is the real one; `memos.testing.ManualClock` moves only when a test says so. Wall time
(`now`) is for what people read and for what outlives a process; `monotonic` is for measuring.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the project needs to know about time. Implementations are thread-safe."""

    def now(self) -> float:
        """Wall time in seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; the origin means nothing."""
        ...

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> bool:
        """Wait on a held `condition` for at most `timeout_s` seconds of this clock; False on time-out."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> bool:
        return condition.wait(timeout_s)


def utc(seconds: float) -> datetime:
    """The aware UTC datetime of `seconds` since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def to_utc(moment: datetime) -> datetime:
    """`moment` in UTC. A naive datetime is taken as local time of this machine."""
    return moment.astimezone(UTC)
