"""Several sinks behind one: every log goes to each, and draining takes from the first."""

from __future__ import annotations

from collections.abc import Sequence

from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import LogSink


class FanOutSink:
    """Fulfils `LogSink`. Blocks and raises no more than the sinks do: never."""

    def __init__(self, first: LogSink, *others: LogSink) -> None:
        self._sinks = (first, *others)

    def emit(self, logs: Sequence[ScheduleLogForWebItem]) -> None:
        for sink in self._sinks:
            sink.emit(logs)

    def drain(self, limit: int | None = None) -> list[ScheduleLogForWebItem]:
        return self._sinks[0].drain(limit)
