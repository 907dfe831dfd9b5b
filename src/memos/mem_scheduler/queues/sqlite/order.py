"""Which lane is claimed next, as rows: levels, classes, then users in fair order.

Start-time fair queueing (Goyal, Vin & Cheng, 1996, section 2), as `queues.fair` has it in memory: a user
is a flow with a start tag; the ready flow with the smallest tag is served, the class's virtual time moves
to that tag, and the tag grows by cost / weight. All lanes of a user share the tag and take turns. Levels
are gone through in order, but one pick in 16 begins with a lower one; classes of one level take turns.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from memos.mem_scheduler.queues.ready import LOWER_SHARE
from memos.mem_scheduler.queues.sqlite.rows import Counters, LaneRow

Levels = tuple[tuple[tuple[str, tuple[str, ...]], ...], ...]
"""Per level the classes with those of their labels that are asked for."""

_FORGET_EVERY = 32  # picks between looks for flows whose tag says nothing any more


@dataclass(slots=True)
class _Class:
    name: str
    virtual_time: float = 0.0
    served: int = 0
    lanes: int = 0


class FairLanes:
    """The order of ready lanes inside one transaction."""

    def __init__(
        self, connection: sqlite3.Connection, counters: Counters, *, user_batches_max: int = 0
    ) -> None:
        self._user_batches_max = user_batches_max
        self._connection = connection
        self._counters = counters
        self._classes: dict[str, _Class] = {}

    def opened(self, task_class: str) -> None:
        """A lane came into being."""
        self._class(task_class).lanes += 1

    def closed(self, task_class: str) -> None:
        """A lane holds nothing any more. A class without lanes is at rest and starts anew."""
        found = self._class(task_class)
        found.lanes -= 1
        if not found.lanes:
            self._connection.execute("DELETE FROM flow WHERE class = ?", (task_class,))
            self._connection.execute("DELETE FROM class WHERE name = ?", (task_class,))
            del self._classes[task_class]

    def add(self, line: LaneRow) -> None:
        """The lane is ready under `line.ready_label`, behind the user's other lanes there."""
        line.turn = self._next_number()
        rows = self._connection.execute(
            "SELECT tag, ready FROM flow WHERE class = ? AND user_id = ?", (line.task_class, line.user_id)
        ).fetchall()
        tag = max((row[0] for row in rows), default=0.0)
        if not any(row[1] for row in rows):
            virtual_time = self._class(line.task_class).virtual_time
            if tag < virtual_time:
                tag = virtual_time
                if rows:
                    self._connection.execute(
                        "UPDATE flow SET tag = ? WHERE class = ? AND user_id = ?",
                        (tag, line.task_class, line.user_id),
                    )
        self._connection.execute(
            "INSERT INTO flow (class, user_id, label, tag, ready, ticket) VALUES (?, ?, ?, ?, 1, ?)"
            " ON CONFLICT DO UPDATE SET ready = ready + 1,"
            " ticket = CASE ready WHEN 0 THEN excluded.ticket ELSE ticket END",
            (line.task_class, line.user_id, line.ready_label, tag, line.turn),
        )

    def remove(self, line: LaneRow) -> None:
        """The lane is no longer ready under `line.ready_label`."""
        self._connection.execute(
            "UPDATE flow SET ready = ready - 1 WHERE class = ? AND user_id = ? AND label = ?",
            (line.task_class, line.user_id, line.ready_label),
        )

    def pick(self, levels: Levels) -> int | None:
        """The lane to be claimed next; it stays in the order. The caller follows with `charge`."""
        picks = self._counters.picks
        if picks % LOWER_SHARE == LOWER_SHARE - 1:
            lower = levels[1:] if picks // LOWER_SHARE % 2 else levels[:0:-1]
            levels = (*lower, *levels[:1])
        for level in levels:
            chosen: tuple[int, _Class, tuple[float, int, str, str]] | None = None
            for name, labels in level:
                best = self._best(labels)
                if best is None:
                    continue
                candidate = self._class(name)
                if chosen is None or candidate.served < chosen[0]:
                    chosen = (candidate.served, candidate, best)
            if chosen is not None:
                return self._serve(chosen[1], chosen[2])
        return None

    def ready_labels(self) -> frozenset[str]:
        """The labels under which lanes are ready."""
        found = self._connection.execute(
            f"SELECT DISTINCT label FROM flow WHERE ready > 0{self._but_aside()}"
        )
        return frozenset(row[0] for row in found)

    def charge(self, line: LaneRow, cost: float, *, weight: float) -> None:
        """The lane's user was served `cost` units."""
        virtual_time = self._class(line.task_class).virtual_time
        self._connection.execute(
            "UPDATE flow SET tag = max(tag, ?) + ?, ticket = ? WHERE class = ? AND user_id = ?",
            (virtual_time, cost / weight, self._next_number(), line.task_class, line.user_id),
        )

    def save(self) -> None:
        for one in self._classes.values():
            self._connection.execute(
                "INSERT INTO class (name, virtual_time, served, lanes) VALUES (?, ?, ?, ?) ON CONFLICT DO"
                " UPDATE SET virtual_time = excluded.virtual_time, served = excluded.served,"
                " lanes = excluded.lanes",
                (one.name, one.virtual_time, one.served, one.lanes),
            )

    def _serve(self, task_class: _Class, best: tuple[float, int, str, str]) -> int:
        tag, _, user_id, label = best
        self._counters.picks += 1
        task_class.served = self._counters.picks
        if tag > task_class.virtual_time:
            task_class.virtual_time = tag
            if not self._counters.picks % _FORGET_EVERY:
                self._connection.execute(
                    "DELETE FROM flow WHERE class = ? AND ready = 0 AND tag <= ?", (task_class.name, tag)
                )
        lane_id: int = self._connection.execute(
            "SELECT id FROM lane WHERE class = ? AND user_id = ? AND ready_label = ? ORDER BY turn LIMIT 1",
            (task_class.name, user_id, label),
        ).fetchone()[0]
        return lane_id

    def _best(self, labels: tuple[str, ...]) -> tuple[float, int, str, str] | None:
        """The flow whose turn it is: (tag, ticket, user, label)."""
        found = []
        for label in labels:
            row = self._connection.execute(
                "SELECT tag, ticket, user_id, label FROM flow WHERE label = ? AND ready > 0"
                f"{self._but_aside()} ORDER BY tag, ticket LIMIT 1",
                (label,),
            ).fetchone()
            if row is not None:
                found.append(row)
        return min(found, default=None)

    def _but_aside(self) -> str:
        """The condition that leaves out users who hold as many leases as they may."""
        if not self._user_batches_max:
            return ""
        return (
            " AND user_id NOT IN (SELECT lane.user_id FROM lease JOIN lane ON lane.id = lease.lane"
            f" GROUP BY lane.user_id HAVING count(*) >= {int(self._user_batches_max)})"
        )

    def _class(self, name: str) -> _Class:
        found = self._classes.get(name)
        if found is None:
            row = self._connection.execute(
                "SELECT name, virtual_time, served, lanes FROM class WHERE name = ?", (name,)
            ).fetchone()
            found = self._classes[name] = _Class(name) if row is None else _Class(*row)
        return found

    def _next_number(self) -> int:
        self._counters.number += 1
        return self._counters.number
