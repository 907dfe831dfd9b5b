"""The rows of the queue's file while a transaction works on them."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from memos.mem_scheduler.queues.base import Lane

# Where a message is; plain numbers, as they stand in the file.
QUEUED, LEASED, DELAYED, COALESCED, DEAD, GONE, DONE, CANCELLED = range(8)
LIVE_MAX = DEAD  # places up to this one are live
SETTLED_MIN = GONE


NUMBER_BITS = 41
_USER_BITS = 22


def first_seq_of(user_id: str) -> int:
    """Where the messages of a user begin, among those of users with the same hash."""
    return (zlib.crc32(user_id.encode(errors="surrogatepass")) & ((1 << _USER_BITS) - 1)) << NUMBER_BITS


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
    head_label: str | None = None
    head_due: float | None = None
    ready_label: str | None = None
    turn: int = 0
    new: bool = False
    dirty: bool = False
    first_seq: int = 0

    def __post_init__(self) -> None:
        self.first_seq = first_seq_of(self.user_id)

    @property
    def lane(self) -> Lane:
        return Lane(self.user_id, self.mem_cube_id, self.task_class)


LANE_COLUMNS = (
    "id, user_id, mem_cube_id, class, held, queued, delayed, running, leases, head_label, head_due,"
    " ready_label, turn"
)


def save_lanes(connection: sqlite3.Connection, lanes: Iterable[LaneRow]) -> None:
    """Write what changed."""
    new, changed = [], []
    for line in lanes:
        if not line.dirty:
            continue
        counts = (
            line.held,
            line.queued,
            line.delayed,
            line.running,
            line.leases,
            line.head_label,
            line.head_due,
            line.ready_label,
            line.turn,
        )
        if line.new:
            new.append((line.id, line.user_id, line.mem_cube_id, line.task_class, *counts))
        else:
            changed.append((*counts, line.id))
        line.new = line.dirty = False
    if new:
        connection.executemany(
            f"INSERT INTO lane ({LANE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", new
        )
    if changed:
        connection.executemany(
            "UPDATE lane SET held = ?, queued = ?, delayed = ?, running = ?, leases = ?, head_label = ?,"
            " head_due = ?, ready_label = ?, turn = ? WHERE id = ?",
            changed,
        )


@dataclass(slots=True)
class MessageRow:
    """The state of a message that is not simply done."""

    seq: int
    key: str
    lane: int
    pos: int
    place: int
    label: str
    user_id: str
    mem_cube_id: str
    ready_at: float
    due_at: float
    fresh: int
    attempts: int
    recoveries: int
    retried: int
    cancel_requested: int
    absorbed: int
    into_seq: int | None
    blocked_since: float | None
    started_at: float | None
    finished_at: float | None
    died_no: int | None
    error: str


MESSAGE_COLUMNS = (
    "seq, key, lane, pos, place, label, user_id, mem_cube_id, ready_at, due_at, fresh, attempts, recoveries,"
    " retried, cancel_requested, absorbed, into_seq, blocked_since, started_at, finished_at, died_no, error"
)


def load_messages(connection: sqlite3.Connection, where: str, parameters: Any) -> list[MessageRow]:
    """The messages that fulfil `where` (a constant text of this package)."""
    found = connection.execute(f"SELECT {MESSAGE_COLUMNS} FROM msg WHERE {where}", parameters)
    return [MessageRow(*row) for row in found]


def save_messages(connection: sqlite3.Connection, rows: Iterable[MessageRow]) -> None:
    """Write the state; a settled message loses its payload."""
    changed = [
        (
            row.lane,
            row.pos,
            row.place,
            row.ready_at,
            row.due_at,
            row.fresh,
            row.attempts,
            row.recoveries,
            row.retried,
            row.cancel_requested,
            row.absorbed,
            row.into_seq,
            row.blocked_since,
            row.started_at,
            row.finished_at,
            row.died_no,
            row.error,
            row.seq,
        )
        for row in rows
    ]
    connection.executemany(
        "UPDATE msg SET lane = ?, pos = ?, place = ?, ready_at = ?, due_at = ?, fresh = ?, attempts = ?,"
        " recoveries = ?, retried = ?, cancel_requested = ?, absorbed = ?, into_seq = ?, blocked_since = ?,"
        " started_at = ?, finished_at = ?, died_no = ?, error = ? WHERE seq = ?",
        changed,
    )
    gone = [(row.seq,) for row in rows if row.place >= SETTLED_MIN]
    if gone:
        connection.executemany("UPDATE msg SET content = NULL, rest = NULL WHERE seq = ?", gone)


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A batch that somebody holds."""

    epoch: int
    lane: int
    slot: int
    seqs: str
    labels: dict[str, int]
    waits: list[list[float]]
    absorbs: bool
    claimed_at: float
    expires_at: float
