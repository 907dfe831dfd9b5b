"""Who claims from the queue's file, and what everybody holds."""

from __future__ import annotations

import json
import sqlite3

from memos.mem_scheduler.queues.base import (
    INSTANCE_REFRESH_S,
    INSTANCE_SEEN_S,
    INSTANCES_MAX,
    HeldLease,
    Instance,
    Lane,
)
from memos.mem_scheduler.queues.instance import Identity
from memos.mem_scheduler.queues.sqlite.session import Session


class Presence:
    """This process's row among the instances. The queue's lock covers it."""

    def __init__(self, identity: Identity, *, since: float) -> None:
        self.identity = identity
        self._since = since
        self._labels: frozenset[str] | None = None
        self._noted_at = 0.0  # monotonic

    def note(self, session: Session, labels: frozenset[str] | None = None) -> None:
        """It claims `labels`, or (None) renews what it claimed. Written when something is new or due."""
        wanted = self._labels if labels is None else labels
        if wanted is None:
            return
        if wanted == self._labels and session.now - self._noted_at < INSTANCE_REFRESH_S:
            return
        self._labels, self._noted_at = wanted, session.now
        me, connection = self.identity, session.connection
        connection.execute(
            "INSERT OR REPLACE INTO instance (name, host, pid, labels, since, seen_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (me.name, me.host, me.pid, json.dumps(sorted(wanted)), self._since, session.wall),
        )
        connection.execute(
            "DELETE FROM instance WHERE seen_at < ? AND name NOT IN (SELECT owner FROM lease)",
            (session.wall - 2 * INSTANCE_SEEN_S,),
        )
        connection.execute(
            "DELETE FROM instance WHERE name IN"
            " (SELECT name FROM instance ORDER BY seen_at DESC LIMIT -1 OFFSET ?)",
            (INSTANCES_MAX,),
        )

    def leave(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM instance WHERE name = ?", (self.identity.name,))

    @property
    def known(self) -> bool:
        """Whether there is a row to leave."""
        return self._labels is not None


def instances(connection: sqlite3.Connection, *, wall: float) -> list[Instance]:
    rows = connection.execute(
        "SELECT name, host, pid, labels, since, seen_at FROM instance"
        " WHERE seen_at >= ? OR name IN (SELECT owner FROM lease) ORDER BY name",
        (wall - INSTANCE_SEEN_S,),
    )
    return [
        Instance(name, host, pid, frozenset(json.loads(labels)), since, seen_at)
        for name, host, pid, labels, since, seen_at in rows
    ]


def leases(connection: sqlite3.Connection, *, now: float, limit: int) -> list[HeldLease]:
    rows = connection.execute(
        "SELECT user_id, mem_cube_id, class, slot, epoch, owner, labels, claimed_at, expires_at"
        " FROM lease JOIN lane ON lane.id = lease.lane ORDER BY epoch LIMIT ?",
        (limit,),
    )
    return [
        HeldLease(
            Lane(user_id, cube_id, task_class),
            slot,
            epoch,
            owner,
            json.loads(labels),
            held_s=now - claimed_at,
            expires_in_s=expires_at - now,
        )
        for user_id, cube_id, task_class, slot, epoch, owner, labels, claimed_at, expires_at in rows
    ]
