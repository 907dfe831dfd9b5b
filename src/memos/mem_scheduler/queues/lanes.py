"""One lane in memory: its waiting messages in order, its leases, its counts by label."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass, field

from memos.mem_scheduler.queues.base import Lane, LaneDepth
from memos.mem_scheduler.queues.packs import Pack


@dataclass(slots=True, eq=False)
class Lease:
    """A batch that somebody holds. The epoch is the proof."""

    epoch: int
    home: LaneQueue
    slot: int
    packs: list[Pack]
    labels: dict[str, int]  # messages by label
    claimed_labels: frozenset[str]  # what the claim asked for
    claimed_at: float  # monotonic
    expires_at: float  # monotonic
    timer_at: float = 0.0  # when the queue looks at it next; not later than expires_at
    count: int = field(init=False)  # messages in all its packs

    def __post_init__(self) -> None:
        self.count = sum(self.labels.values())


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
        "waiting",
        "waiting_counted",
    )

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.name = str(lane)
        self.queue: OrderedDict[Pack, None] = OrderedDict()
        self.waiting = 0  # messages in it
        self.later: dict[Pack, None] = {}  # delayed messages
        self.leases: dict[int, Lease] = {}  # by slot
        self.held = 0  # messages in the lane: queued, delayed, leased and coalesced
        self.queued: dict[str, int] = {}  # by label, as the next two
        self.delayed: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.newest: dict[str, Pack] = {}  # label -> the waiting message that a newer one may absorb
        self.ready_label: str | None = None  # under which it stands in the fair order
        self.head_label: str | None = None  # under which its waiting messages are counted
        self.waiting_counted = 0
        self.timer_at = 0.0  # when the block of its head ends, as the queue's timers know it

    @property
    def head(self) -> Pack | None:
        return next(iter(self.queue), None)

    def append(self, pack: Pack) -> None:
        self.queue[pack] = None
        self.count(pack.label, len(pack.fields))

    def put_back(self, packs: list[Pack]) -> None:
        """Return messages to the head, in their order."""
        for pack in reversed(packs):
            self.queue[pack] = None
            self.queue.move_to_end(pack, last=False)
            self.count(pack.label, len(pack.fields))

    def count(self, label: str, number: int) -> None:
        """So many messages more wait."""
        self.waiting += number
        add(self.queued, label, number)

    def take_out(self, pack: Pack) -> None:
        """Remove waiting messages from wherever they stand."""
        del self.queue[pack]
        self.count(pack.label, -len(pack.fields))
        if self.newest.get(pack.label) is pack:
            del self.newest[pack.label]

    def replace(self, pack: Pack, heir: Pack) -> None:
        """`heir`, of the same label, takes the place of a waiting message."""
        waiting = [heir if one is pack else one for one in self.queue]
        self.queue.clear()
        self.queue.update(dict.fromkeys(waiting))
        if self.newest.get(pack.label) is pack:
            self.newest[pack.label] = heir

    def free_slot(self) -> int:
        slot = 0
        while slot in self.leases:
            slot += 1
        return slot

    def depth(self, *, parked: bool, now: float, look_max: int) -> LaneDepth:
        """`look_max`: waiting packs that are looked at for the lag."""
        waiting = dict(self.queued)
        oldest_s: dict[str, float] = {}
        for pack in itertools.islice(self.queue, look_max):
            if pack.label not in oldest_s:
                since = pack.ready_at if pack.blocked_since is None else pack.blocked_since
                oldest_s[pack.label] = max(0.0, now - since)
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
