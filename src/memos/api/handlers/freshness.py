"""How fresh an answer is: the sequence number that a cube was read at, and what is still on its way.

A store gives read-your-writes: what `add` answered with is there for the next search. `min_seq` is for
everything else, such as another server's add, and for proof: the answer says what it was read at.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from memos.api.product_models import Freshness
from memos.clock import Clock
from memos.errors import InvalidInput
from memos.mem_scheduler.queues.base import LaneDepth, TaskQueue
from memos.memory.item import ReadState
from memos.memory.store import ItemFilter, MemoryStore

LOOK_S = 0.01  # between looks at a cube that is waited for
LANES_KEPT_S = 0.2  # how old the picture of the queue may be that a plain search shows


class FreshnessReader:
    """Waits for cubes and tells how fresh they are. Thread-safe."""

    def __init__(self, store: MemoryStore, queue: TaskQueue, clock: Clock) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._lock = threading.Lock()
        self._lanes: tuple[LaneDepth, ...] = ()
        self._looked_at: float | None = None

    def behind(self, wanted: Mapping[str, int]) -> list[str]:
        """The cubes that are not there yet."""
        return [cube_id for cube_id, seq in wanted.items() if self._store.seq(cube_id) < seq]

    def wait(self, wanted: Mapping[str, int], *, wait_ms: int) -> int:
        """Wait until every cube is there, at most `wait_ms`; returns the milliseconds that it took."""
        started = self._clock.monotonic()
        for pause_s in self._pauses(wanted, started, wait_ms):
            time.sleep(pause_s)
        return round(1_000 * (self._clock.monotonic() - started))

    async def wait_async(self, wanted: Mapping[str, int], *, wait_ms: int) -> int:
        """The same without a thread of its own: any number of searches may wait at once."""
        import anyio  # comes with FastAPI, which importing this module must not load

        started = self._clock.monotonic()
        for pause_s in self._pauses(wanted, started, wait_ms):
            await anyio.sleep(pause_s)
        return round(1_000 * (self._clock.monotonic() - started))

    def _pauses(self, wanted: Mapping[str, int], started: float, wait_ms: int) -> Iterator[float]:
        while self.behind(wanted):
            left_s = wait_ms / 1_000 - (self._clock.monotonic() - started)
            if left_s <= 0:
                return
            yield min(LOOK_S, left_s)

    def of(
        self, seqs: Mapping[str, int], wanted: Mapping[str, int], *, waited_ms: int
    ) -> dict[str, Freshness]:
        """The freshness of each cube that was read at `seqs`."""
        queued = self._queued(seqs, anew=bool(wanted))
        return {
            cube_id: Freshness(
                seq=seq,
                fresh=seq >= wanted.get(cube_id, 0),
                waited_ms=waited_ms,
                unread=self._unread(cube_id),
                queued=dict(queued.get(cube_id, {})),
            )
            for cube_id, seq in seqs.items()
        }

    def _unread(self, cube_id: str) -> int:
        return self._store.find(ItemFilter(cube_ids=(cube_id,), read=(ReadState.DUE,)), limit=1).total

    def _queued(self, cube_ids: Iterable[str], *, anew: bool) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {cube_id: Counter() for cube_id in cube_ids}
        for lane in self._picture(anew=anew):
            tally = found.get(lane.lane.mem_cube_id)
            if tally is not None:
                for counts in (lane.queued, lane.delayed, lane.parked, lane.running):
                    tally.update(counts)
        return found

    def _picture(self, *, anew: bool) -> tuple[LaneDepth, ...]:
        """The lanes of the queue: counting them costs with their number, so many searches share one look."""
        now = self._clock.monotonic()
        with self._lock:
            if not anew and self._looked_at is not None and now - self._looked_at < LANES_KEPT_S:
                return self._lanes
        depth = self._queue.depth()
        with self._lock:
            self._lanes, self._looked_at = depth.lanes, now
        return depth.lanes


def wanted_seqs(min_seq: int | dict[str, int] | None, cube_ids: Iterable[str]) -> dict[str, int]:
    """What is asked of each cube. InvalidInput for a cube that is not read."""
    cubes = tuple(cube_ids)
    if min_seq is None:
        return {}
    if isinstance(min_seq, int):
        return dict.fromkeys(cubes, min_seq)
    for cube_id in min_seq:
        if cube_id not in cubes:
            raise InvalidInput(f"min_seq names the cube {cube_id!r}, which this search does not read")
    return dict(min_seq)
