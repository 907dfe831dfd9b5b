"""One write transaction's view of the file: counters and lanes, loaded when needed, written back once.

Not thread-safe; it lives as long as its transaction. What the transaction brings about for those who wait
(labels that became ready, times at which something will be due) is gathered in `ready` and `due_at`.
"""

from __future__ import annotations

import json
import random as random_module
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.adaptive import BatchSizes
from memos.mem_scheduler.queues.base import PolicyTable
from memos.mem_scheduler.queues.packs import LaneId
from memos.mem_scheduler.queues.policies import slots_of
from memos.mem_scheduler.queues.sqlite.order import FairLanes
from memos.mem_scheduler.queues.sqlite.rows import LANE_COLUMNS, Counters, LaneRow, save_lanes

LANES_KEPT_MAX = 20_000  # lanes that a process remembers from one transaction to the next


@dataclass(frozen=True, slots=True)
class Rules:
    """What a queue object brings to each of its transactions."""

    policies: PolicyTable
    sizes: BatchSizes  # of this process
    source: random_module.Random
    weight_of: Callable[[str], float]
    owner: str  # the name of this instance
    holder: str  # the text of its process
    dead_letters_max: int
    status_entries_max: int
    user_batches_max: int = 0
    plans: dict[frozenset[str], tuple[int, tuple[tuple[tuple[str, tuple[str, ...]], ...], ...]]] = field(
        default_factory=dict
    )


class Cache:
    """The lanes that a process remembers of the file since its last transaction.

    They hold when that transaction was committed on the same connection, when SQLite says that nobody else
    wrote since, and when the counters, which each transaction reads from their row, are those it left there.
    They are given out when a transaction begins and come back when it is committed: of one that failed, in
    whatever way, nothing is left.
    """

    def __init__(self) -> None:
        self.by_id: dict[int, LaneRow] = {}
        self.by_name: dict[LaneId, LaneRow] = {}
        self._connection: sqlite3.Connection | None = None
        self._version = -1  # of the file, as this connection counts; two connections count differently
        self._left: Counters | None = None  # None while a transaction works

    def begin(self, connection: sqlite3.Connection) -> Counters:
        """The counters as they stand in the file; what the cache holds agrees with them. Wants a transaction."""
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        counters = Counters.load(connection)
        if (
            connection is not self._connection
            or version != self._version
            or counters != self._left
            or len(self.by_id) > LANES_KEPT_MAX
        ):
            self.by_id.clear()
            self.by_name.clear()
        self._connection, self._version, self._left = connection, version, None
        return counters

    def keep(self, counters: Counters) -> None:
        """The transaction is committed and has left these counters."""
        self._left = counters


class Session:
    """Counters and lanes of one transaction. After the commit the cache is to `keep` the counters."""

    def __init__(
        self, connection: sqlite3.Connection, rules: Rules, cache: Cache, *, now: float, wall: float
    ) -> None:
        self.connection = connection
        self.rules = rules
        self.now = now
        self.wall = wall
        self.counters = cache.begin(connection)
        self._loaded = replace(self.counters)
        self._changes = connection.total_changes
        self.order = FairLanes(connection, self.counters, user_batches_max=rules.user_batches_max)
        self.ready: set[str] = set()
        self.due_at: float | None = None
        self._by_id = cache.by_id
        self._by_name = cache.by_name
        self._dirty: dict[int, LaneRow] = {}

    def next_number(self) -> int:
        self.counters.number += 1
        return self.counters.number

    def next_numbers(self, count: int) -> int:
        """The first of so many numbers that run on."""
        first = self.counters.number + 1
        self.counters.number += count
        return first

    def policy(self, label: str) -> TaskPolicy:
        return self.rules.policies.get(label)

    def lane(self, lane_id: int) -> LaneRow:
        """A lane that exists."""
        line = self._by_id.get(lane_id)
        if line is None:
            row = self.connection.execute(
                f"SELECT {LANE_COLUMNS} FROM lane WHERE id = ?", (lane_id,)
            ).fetchone()
            line = self._keep(LaneRow(*row))
        return line

    def find_lane(self, name: LaneId) -> LaneRow | None:
        line = self._by_name.get(name)
        if line is None:
            row = self.connection.execute(
                f"SELECT {LANE_COLUMNS} FROM lane WHERE user_id = ? AND mem_cube_id = ? AND class = ?", name
            ).fetchone()
            if row is not None:
                line = self._keep(LaneRow(*row))
        return line

    def open_lane(self, name: LaneId) -> LaneRow:
        """The lane of that name, which comes into being when it is not there."""
        line = self.find_lane(name)
        if line is None:
            line = self._keep(LaneRow(self.next_number(), *name, new=True))
            self.order.opened(name[2])
        return line

    def _keep(self, line: LaneRow) -> LaneRow:
        self._by_id[line.id] = line
        self._by_name[line.user_id, line.mem_cube_id, line.task_class] = line
        return line

    def leased_packs(self, line: LaneRow) -> set[int]:
        """The packs of a lane that somebody holds."""
        if not line.leases:
            return set()
        rows = self.connection.execute("SELECT packs FROM lease WHERE lane = ?", (line.id,))
        return {pack_id for (text,) in rows for pack_id in json.loads(text)}

    def refresh(self, line: LaneRow) -> None:
        """After any change to a lane: its place in the ready order, its due time, its end."""
        self._dirty[line.id] = line
        if not line.head_known:
            self._find_head(line)
        if line.head_due is not None and line.head_due <= self.now:
            line.head_due = None
        wanted = line.head_label
        if line.head_due is not None or (
            wanted is not None and line.leases and line.leases >= slots_of(self.policy(wanted))
        ):
            wanted = None
        if wanted != line.ready_label:
            if line.ready_label is not None:
                self.order.remove(line)
            line.ready_label = wanted
            if wanted is not None:
                self.order.add(line)
        if wanted is not None:
            self.ready.add(wanted)
        elif line.head_due is not None:
            self.note_due(line.head_due)
        if not line.held:
            self._close(line)

    def _find_head(self, line: LaneRow) -> None:
        line.head_known = True
        line.head_label = line.head_due = None
        if not line.queued:
            return
        held = self.leased_packs(line)
        for pack_id, label, due_at in self.connection.execute(
            "SELECT id, label, due_at FROM pack WHERE lane = ? AND place = 0 AND pos > ? ORDER BY pos",
            (line.id, line.cursor),
        ):
            if pack_id not in held:
                line.head_label = label
                line.head_due = due_at if due_at > self.now else None
                return

    def _close(self, line: LaneRow) -> None:
        if not line.new:
            self.connection.execute("DELETE FROM lane WHERE id = ?", (line.id,))
        del self._dirty[line.id]
        del self._by_id[line.id]
        del self._by_name[line.user_id, line.mem_cube_id, line.task_class]
        self.order.closed(line.task_class)

    def forget_lanes(self) -> None:
        """All lanes are gone."""
        for known in (self._by_id, self._by_name, self._dirty):
            known.clear()

    def note_due(self, due_at: float) -> None:
        """Something will be due at that time."""
        if self.due_at is None or due_at < self.due_at:
            self.due_at = due_at

    def save_lanes(self) -> None:
        """Before anybody looks for lanes in the file."""
        if self._dirty:
            save_lanes(self.connection, self._dirty.values())
            self._dirty.clear()

    def save(self) -> None:
        """Write back what changed; a look that found nothing writes nothing, so that it wakes nobody."""
        self.save_lanes()
        if self.counters == self._loaded and self.connection.total_changes == self._changes:
            return
        self.order.save()
        self.counters.save(self.connection, self.now)
