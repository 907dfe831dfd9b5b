"""The process's own buffer of web logs, behind `get_web_log_messages`.

Bounded: when it is full the oldest logs leave and are counted. The store keeps every log durably, so
what leaves the buffer can still be read there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from memos import metrics
from memos.errors import ConfigError
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem


class LocalLogSink:
    """A ring of the newest `entries_max` logs; thread-safe."""

    def __init__(self, entries_max: int = 10_000) -> None:
        if entries_max < 1:
            raise ConfigError(f"entries_max of the web log buffer must be at least 1, not {entries_max}")
        self._lock = threading.Lock()
        self._logs: deque[ScheduleLogForWebItem] = deque(maxlen=entries_max)
        self._entries_max = entries_max
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many logs left the buffer unread since the start."""
        with self._lock:
            return self._dropped

    def emit(self, logs: Sequence[ScheduleLogForWebItem]) -> None:
        with self._lock:
            over = max(0, len(self._logs) + len(logs) - self._entries_max)
            self._dropped += over
            self._logs.extend(logs)
        metrics.WEB_LOGS.add(len(logs), sink="local")
        metrics.WEB_LOGS_DROPPED.add(over, sink="local")

    def drain(self, limit: int | None = None) -> list[ScheduleLogForWebItem]:
        with self._lock:
            count = len(self._logs) if limit is None else min(limit, len(self._logs))
            return [self._logs.popleft() for _ in range(count)]

    def __len__(self) -> int:
        with self._lock:
            return len(self._logs)
