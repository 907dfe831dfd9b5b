"""One write transaction's view of the file: counters and lanes, loaded when needed, written back once.

Not thread-safe; it lives as long as its transaction. What the transaction brings about for those who wait
(labels that became ready, times at which something will be due) is gathered in `ready` and `due_at`.
"""

from __future__ import annotations

import random as random_module
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.adaptive import BatchSizes
from memos.mem_scheduler.queues.base import PolicyTable
from memos.mem_scheduler.queues.entries import LaneId
from memos.mem_scheduler.queues.policies import slots_of
from memos.mem_scheduler.queues.sqlite.order import FairLanes
from memos.mem_scheduler.queues.sqlite.rows import LANE_COLUMNS, Counters, LaneRow, save_lanes


@dataclass(frozen=True, slots=True)
class Rules:
    """What a queue object brings to each of its transactions."""

    policies: PolicyTable
    sizes: BatchSizes  # of this process
    source: random_module.Random
    weight_of: Callable[[str], float]
    owner: str
    dead_letters_max: int
    status_entries_max: int
    user_batches_max: int = 0
    plans: dict[frozenset[str], tuple[int, tuple[tuple[tuple[str, tuple[str, ...]], ...], ...]]] = field(
        default_factory=dict
    )


class Session:
    """Counters and lanes of one transaction."""

    def __init__(self, connection: sqlite3.Connection, rules: Rules, *, now: float, wall: float) -> None:
        self.connection = connection
        self.rules = rules
        self.now = now
        self.wall = wall
        self.counters = Counters.load(connection)
        self._loaded = replace(self.counters)
        self._changes = connection.total_changes
        self.order = FairLanes(connection, self.counters, user_batches_max=rules.user_batches_max)
        self.ready: set[str] = set()
        self.due_at: float | None = None
        self._by_id: dict[int, LaneRow] = {}
        self._by_name: dict[LaneId, LaneRow] = {}

    def next_number(self) -> int:
        self.counters.number += 1
        return self.counters.number

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
            line = self._keep(LaneRow(self.next_number(), *name, new=True, dirty=True))
            self.order.opened(name[2])
        return line

    def _keep(self, line: LaneRow) -> LaneRow:
        self._by_id[line.id] = line
        self._by_name[line.user_id, line.mem_cube_id, line.task_class] = line
        return line

    def refresh(self, line: LaneRow) -> None:
        """After any change to a lane: its place in the ready order, its due time, its end."""
        line.dirty = True
        head = None
        if line.queued:
            head = self.connection.execute(
                "SELECT label, due_at FROM msg WHERE lane = ? AND place = 0 ORDER BY pos LIMIT 1", (line.id,)
            ).fetchone()
        label, due_at = head or (None, 0.0)
        line.head_label = label
        line.head_due = due_at if due_at > self.now else None
        wanted = label
        if line.head_due is not None or (line.leases and line.leases >= slots_of(self.policy(label or ""))):
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

    def _close(self, line: LaneRow) -> None:
        if not line.new:
            self.connection.execute("DELETE FROM lane WHERE id = ?", (line.id,))
        line.dirty = False
        del self._by_id[line.id]
        del self._by_name[line.user_id, line.mem_cube_id, line.task_class]
        self.order.closed(line.task_class)

    def note_due(self, due_at: float) -> None:
        """Something will be due at that time."""
        if self.due_at is None or due_at < self.due_at:
            self.due_at = due_at

    def save_lanes(self) -> None:
        """Before anybody looks for lanes in the file."""
        save_lanes(self.connection, self._by_id.values())

    def save(self) -> None:
        """Write back what changed; a look that found nothing writes nothing, so that it wakes nobody."""
        self.save_lanes()
        if self.counters == self._loaded and self.connection.total_changes == self._changes:
            return
        self.order.save()
        self.counters.save(self.connection, self.now)
