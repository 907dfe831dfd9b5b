"""The policies in the queue's file, and what this process knows of them.

Every write transaction compares the file's version with the known one, so that what it decides is decided
by the policies of that moment; `get` and `version` answer from memory, at most one claim behind.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from memos.mem_scheduler.orchestrator import TaskPolicy, default_policy
from memos.mem_scheduler.queues.policies import check_policy
from memos.mem_scheduler.schemas.task_schemas import TaskPriorityLevel

_DEFAULTS_MAX = 1_024
_FIELDS = frozenset(field.name for field in fields(TaskPolicy))


class SqlitePolicyTable:
    """Policies by label. Thread-safe; `get` takes no lock, so the queue may call it under its own."""

    def __init__(self, write: Callable[[str, TaskPolicy], None]) -> None:
        """`write` stores a policy that was checked, in a transaction of its own."""
        self._write = write
        self._written: dict[str, TaskPolicy] = {}
        self._defaults: dict[str, TaskPolicy] = {}
        self._version = 0
        self._sure = True  # False: the version may be of a transaction that was not committed

    @property
    def version(self) -> int:
        return self._version

    def get(self, label: str) -> TaskPolicy:
        found = self._written.get(label) or self._defaults.get(label)
        if found is None:
            found = default_policy(label)
            if len(self._defaults) < _DEFAULTS_MAX:
                self._defaults[label] = found
        return found

    def put(self, label: str, policy: TaskPolicy) -> None:
        check_policy(label, policy)
        try:
            self._write(label, policy)
        except BaseException:
            self._sure = False
            raise

    def labels(self) -> list[str]:
        return sorted(self._written)

    def follow(self, connection: sqlite3.Connection, version: int) -> None:
        """Read the table anew when the file has another version than is known."""
        if version == self._version and self._sure:
            return
        rows = connection.execute("SELECT label, fields FROM policy").fetchall()
        self._written = {label: _policy_of(json.loads(text)) for label, text in rows}
        self._version = version
        self._sure = True


def store(connection: sqlite3.Connection, label: str, policy: TaskPolicy) -> bool:
    """Write the policy; False when it stands there already."""
    written = connection.execute(
        "INSERT INTO policy (label, fields) VALUES (?, ?) ON CONFLICT DO UPDATE SET fields = excluded.fields"
        " WHERE fields <> excluded.fields",
        (label, json.dumps(asdict(policy))),
    )
    return written.rowcount == 1


def _policy_of(values: dict[str, Any]) -> TaskPolicy:
    """Fields that another version of the program wrote and this one does not know are left out."""
    known = {name: value for name, value in values.items() if name in _FIELDS}
    known["level"] = TaskPriorityLevel(known["level"])
    return TaskPolicy(**known)
