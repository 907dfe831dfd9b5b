"""The policies in the queue's file, and what this process knows of them.

Every write transaction compares the file's version with the known one, so that what it decides is decided
by the policies of that moment; `get` and `version` answer from memory, at most one claim behind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.policies import KnownPolicies, check_policy, policy_of, policy_text


class SqlitePolicyTable(KnownPolicies):
    """Policies by label. Thread-safe; `get` takes no lock, so the queue may call it under its own."""

    def __init__(self, write: Callable[[str, TaskPolicy], None]) -> None:
        """`write` stores a policy that was checked, in a transaction of its own."""
        super().__init__()
        self._write = write
        self._sure = True  # False: the version may be of a transaction that was not committed

    def put(self, label: str, policy: TaskPolicy) -> None:
        check_policy(label, policy)
        try:
            self._write(label, policy)
        except BaseException:
            self._sure = False
            raise

    def follow(self, connection: sqlite3.Connection, version: int) -> None:
        """Read the table anew when the file has another version than is known."""
        if version == self._version and self._sure:
            return
        rows = connection.execute("SELECT label, fields FROM policy").fetchall()
        self._written = {label: policy_of(text) for label, text in rows}
        self._version = version
        self._sure = True


def store(connection: sqlite3.Connection, label: str, policy: TaskPolicy) -> bool:
    """Write the policy; False when it stands there already."""
    written = connection.execute(
        "INSERT INTO policy (label, fields) VALUES (?, ?) ON CONFLICT DO UPDATE SET fields = excluded.fields"
        " WHERE fields <> excluded.fields",
        (label, policy_text(policy)),
    )
    return written.rowcount == 1
