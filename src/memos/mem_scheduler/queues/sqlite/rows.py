"""The rows of the queue's file while a transaction works on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from memos.mem_scheduler.queues.base import Lane

# Where a message is; plain numbers, as they stand in the file. LEASED stands in none: a lease says it.
QUEUED, LEASED, DELAYED, COALESCED, DEAD, GONE, DONE, CANCELLED = range(8)


@dataclass(slots=True)
class Counters:
    """The one row of `counter`, as far as transactions change it."""

    number: int
    epoch: int
    picks: int
    held: int
    settled: int
    dead: int
    statuses_dropped: int
    letters_dropped: int
    policy_version: int

    @classmethod
    def load(cls, connection: sqlite3.Connection) -> Counters:
        return cls(
            *connection.execute(
                "SELECT number, epoch, picks, held, settled, dead, statuses_dropped, letters_dropped,"
                " policy_version FROM counter"
            ).fetchone()
        )

    def save(self, connection: sqlite3.Connection, now: float) -> None:
        connection.execute(
            "UPDATE counter SET number = ?, epoch = ?, picks = ?, held = ?, settled = ?, dead = ?,"
            " statuses_dropped = ?, letters_dropped = ?, policy_version = ?, seen_at = ?",
            (
                self.number,
                self.epoch,
                self.picks,
                self.held,
                self.settled,
                self.dead,
                self.statuses_dropped,
                self.letters_dropped,
                self.policy_version,
                now,
            ),
        )


@dataclass(slots=True)
class LaneRow:
    """A lane and its counts."""

    id: int
    user_id: str
    mem_cube_id: str
    task_class: str
    held: int = 0
    queued: int = 0
    delayed: int = 0
    running: int = 0
    leases: int = 0
    cursor: int = 0
    head_label: str | None = None
    head_due: float | None = None
    ready_label: str | None = None
    turn: int = 0
    new: bool = False
    filed: tuple[str | None, float | None, str | None, int] | None = None  # how it stands in the file
    head_known: bool = True  # False: head_label and head_due are to be read anew

    @property
    def lane(self) -> Lane:
        return Lane(self.user_id, self.mem_cube_id, self.task_class)


LANE_COLUMNS = (
    "id, user_id, mem_cube_id, class, held, queued, delayed, running, leases, cursor, head_label,"
    " head_due, ready_label, turn"
)


def save_lanes(connection: sqlite3.Connection, lanes: Iterable[LaneRow]) -> None:
    """Write what changed. Most changes are of counts, which stand in no index."""
    new, counted, moved = [], [], []
    for line in lanes:
        counts = (line.held, line.queued, line.delayed, line.running, line.leases, line.cursor)
        stand = (line.head_label, line.head_due, line.ready_label, line.turn)
        if line.new:
            new.append((line.id, line.user_id, line.mem_cube_id, line.task_class, *counts, *stand))
        elif line.filed == stand:
            counted.append((*counts, line.id))
        else:
            moved.append((*counts, *stand, line.id))
        line.new = False
        line.filed = stand
    if new:
        connection.executemany(
            f"INSERT INTO lane ({LANE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", new
        )
    if counted:
        connection.executemany(
            "UPDATE lane SET held = ?, queued = ?, delayed = ?, running = ?, leases = ?, cursor = ?"
            " WHERE id = ?",
            counted,
        )
    if moved:
        connection.executemany(
            "UPDATE lane SET held = ?, queued = ?, delayed = ?, running = ?, leases = ?, cursor = ?,"
            " head_label = ?, head_due = ?, ready_label = ?, turn = ? WHERE id = ?",
            moved,
        )


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A batch that somebody holds."""

    epoch: int
    lane: int
    slot: int
    packs: str  # JSON, as it stands in the file
    labels: dict[str, int]
    waits: list[list[float]]
    plain: bool
    started_at: float
    claimed_at: float
    expires_at: float
