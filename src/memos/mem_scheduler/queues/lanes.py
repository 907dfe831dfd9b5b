"""One lane in memory: its waiting messages in order, its leases, its counts by label."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass

from memos.mem_scheduler.queues.base import Lane, LaneDepth
from memos.mem_scheduler.queues.entries import Entry


@dataclass(slots=True, eq=False)
class Lease:
    """A batch that somebody holds. The epoch is the proof."""

    epoch: int
    home: LaneQueue
    slot: int
    entries: list[Entry]
    labels: tuple[str, ...]
    claimed_labels: frozenset[str]  # what the claim asked for
    claimed_at: float  # monotonic
    expires_at: float  # monotonic
    timer_at: float = 0.0  # when the queue looks at it next; not later than expires_at


class LaneQueue:
    """The messages of one lane. It exists while it holds any; not thread-safe."""

    __slots__ = (
        "delayed",
        "head_label",
        "held",
        "lane",
        "later",
        "leases",
        "name",
        "newest",
        "queue",
        "queued",
        "ready_label",
        "running",
        "timer_at",
        "waiting_counted",
    )

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.name = str(lane)
        self.queue: OrderedDict[str, Entry] = OrderedDict()
        self.later: dict[str, Entry] = {}  # delayed messages
        self.leases: dict[int, Lease] = {}  # by slot
        self.held = 0  # messages in the lane: queued, delayed, leased and coalesced
        self.queued: dict[str, int] = {}  # by label, as the next two
        self.delayed: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.newest: dict[str, Entry] = {}  # label -> the waiting message that a newer one may absorb
        self.ready_label: str | None = None  # under which it stands in the fair order
        self.head_label: str | None = None  # under which its waiting messages are counted
        self.waiting_counted = 0
        self.timer_at = 0.0  # when the block of its head ends, as the queue's timers know it

    @property
    def head(self) -> Entry | None:
        return next(iter(self.queue.values()), None)

    def append(self, entry: Entry) -> None:
        self.queue[entry.key] = entry
        add(self.queued, entry.label, 1)

    def put_back(self, entries: list[Entry]) -> None:
        """Return messages to the head, in their order."""
        for entry in reversed(entries):
            self.queue[entry.key] = entry
            self.queue.move_to_end(entry.key, last=False)
            add(self.queued, entry.label, 1)

    def take_out(self, entry: Entry) -> None:
        """Remove a waiting message from wherever it stands."""
        del self.queue[entry.key]
        add(self.queued, entry.label, -1)
        if self.newest.get(entry.label) is entry:
            del self.newest[entry.label]

    def replace(self, entry: Entry, heir: Entry) -> None:
        """`heir`, of the same label, takes the place of a waiting message."""
        waiting = [heir if one is entry else one for one in self.queue.values()]
        self.queue.clear()
        self.queue.update((one.key, one) for one in waiting)
        if self.newest.get(entry.label) is entry:
            self.newest[entry.label] = heir

    def free_slot(self) -> int:
        slot = 0
        while slot in self.leases:
            slot += 1
        return slot

    def depth(self, *, parked: bool, now: float, look_max: int) -> LaneDepth:
        """`look_max`: waiting messages that are looked at for the lag."""
        waiting = dict(self.queued)
        oldest_s: dict[str, float] = {}
        for entry in itertools.islice(self.queue.values(), look_max):
            if entry.label not in oldest_s:
                since = entry.ready_at if entry.blocked_since is None else entry.blocked_since
                oldest_s[entry.label] = max(0.0, now - since)
                if len(oldest_s) == len(waiting):
                    break
        return LaneDepth(
            self.lane,
            queued={} if parked else waiting,
            delayed=dict(self.delayed),
            parked=waiting if parked else {},
            running=dict(self.running),
            oldest_s=oldest_s,
        )


def add(counts: dict[str, int], label: str, number: int) -> None:
    """Add to a count; a count of nothing is not kept."""
    total = counts.get(label, 0) + number
    if total:
        counts[label] = total
    else:
        counts.pop(label, None)
