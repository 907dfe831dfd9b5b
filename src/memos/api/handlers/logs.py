"""LogHandler: the web logs that the store keeps, as pages and as a live stream.

The stream reads the store, so it shows what every process wrote, in order and without a gap: a reader that
was away goes on after the last number that it saw. Without news a comment is sent now and then, so that a
reader who has gone is noticed.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from memos.api import access
from memos.api.log_models import LogRow, LogsResponse
from memos.errors import QueueFull
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.store import MemoryStore

PAGE_MAX = 500
LOOK_S = 0.25  # between looks of a stream
PING_S = 15.0  # without news
STREAMS_MAX = 200

Numbered = tuple[int, ScheduleLogForWebItem]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which logs. Empty: all of that kind."""

    user_id: str | None = None
    cube_id: str | None = None
    label: str | None = None
    trace_id: str | None = None


class LogHandler:
    """Reads only. Thread-safe."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._streams = 0

    def handle_logs(self, asked: LogQuery, *, limit: int, before: int | None) -> LogsResponse:
        """One page, newest first. Raises AccessDenied, InvalidInput, StoreError."""
        allowed(asked)
        found = self._page(asked, limit=limit, before=before)
        rows = [_row(number, entry) for number, entry in found if _is_visible(entry)]
        more = found[-1][0] if len(found) == limit else None
        return LogsResponse(message="Logs retrieved successfully", data=rows, next_before=more)

    @contextmanager
    def stream_place(self) -> Iterator[None]:
        """One of the places for streams. Raises QueueFull when all are taken."""
        with self._lock:
            if self._streams >= STREAMS_MAX:
                raise QueueFull(f"{STREAMS_MAX} streams of logs are open; close one, or read pages")
            self._streams += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams -= 1

    def newest(self) -> int:
        """The number of the newest log; 0 before the first."""
        found = self._store.web_logs(limit=1)
        return found[0][0] if found else 0

    async def follow(self, asked: LogQuery, *, after: int) -> AsyncIterator[LogRow | None]:
        """Logs after the number `after`, oldest first, for ever; None now and then without news."""
        import anyio  # comes with FastAPI, which importing this module must not load
        import anyio.to_thread

        silent_s = 0.0
        while True:
            news = await anyio.to_thread.run_sync(self._after, asked, after)
            for number, entry in news:
                after = number
                if _is_visible(entry):
                    yield _row(number, entry)
            if news:
                silent_s = 0.0
                continue
            await anyio.sleep(LOOK_S)
            silent_s += LOOK_S
            if silent_s >= PING_S:
                silent_s = 0.0
                yield None

    def _after(self, asked: LogQuery, after: int) -> list[Numbered]:
        """The oldest logs after a number, at most a page."""
        newest = self._page(asked, limit=1, before=None)
        if not newest or newest[0][0] <= after:
            return []
        found: list[Numbered] = []
        before: int | None = None
        while True:
            page = self._page(asked, limit=PAGE_MAX, before=before)
            fresh = [one for one in page if one[0] > after]
            found = [*found, *fresh][-PAGE_MAX:]
            if len(fresh) < len(page) or len(page) < PAGE_MAX:
                return found[::-1]
            before = page[-1][0]

    def _page(self, asked: LogQuery, *, limit: int, before: int | None) -> list[Numbered]:
        return self._store.web_logs(
            cube_id=asked.cube_id,
            user_id=asked.user_id,
            label=asked.label,
            trace_id=asked.trace_id,
            limit=limit,
            before=before,
        )


def allowed(asked: LogQuery) -> None:
    """AccessDenied unless who asks may see these logs; those of all users are for admins."""
    for name, value in (("user_id", asked.user_id), ("mem_cube_id", asked.cube_id)):
        if value is not None:
            check_id(name, value)
    if asked.user_id is None and asked.cube_id is None:
        access.must_be_admin("reading the logs of every user")
    access.may_read(
        users=[asked.user_id] if asked.user_id is not None else [],
        cubes=[asked.cube_id] if asked.cube_id is not None else [],
    )


def _is_visible(entry: ScheduleLogForWebItem) -> bool:
    return access.current().has_cube(entry.mem_cube_id)


def _row(number: int, entry: ScheduleLogForWebItem) -> LogRow:
    return LogRow(number=number, log=entry.model_dump(mode="json"))
