"""Numbered migrations of the queue file: `migrations/NNNN_name.sql`, forward only.

Each one runs in a transaction of its own together with the new `user_version`, so an interrupted upgrade
stands at a whole step. A file that a newer program wrote, and a database of some other program, are
refused untouched.
"""

from __future__ import annotations

import re
import sqlite3
from importlib import resources
from pathlib import Path

from memos.errors import ConfigError

APPLICATION_ID = 0x4D454D51  # "MEMQ", in the header of every queue file
_NAME = re.compile(r"(\d{4})_\w+\.sql")


def migrations() -> dict[int, str]:
    """The text of each step by its number; the numbers run from 1 without a gap."""
    folder = resources.files("memos.mem_scheduler.queues.sqlite") / "migrations"
    steps = {}
    for file in folder.iterdir():
        if match := _NAME.fullmatch(file.name):
            steps[int(match[1])] = file.read_text(encoding="utf-8")
    return dict(sorted(steps.items()))


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest layout. Raises ConfigError (too new, or not a queue)."""
    steps = migrations()
    newest = max(steps)
    if check(connection, path, newest) == newest:
        return
    for number, text in steps.items():
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Read again under the lock: another process may have migrated while this one waited.
            if check(connection, path, newest) < number:
                for statement in _statements(text):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def check(connection: sqlite3.Connection, path: Path, newest: int | None = None) -> int:
    """The layout of the file, 0 for an empty one. Raises what `migrate` raises; changes nothing."""
    newest = max(migrations()) if newest is None else newest
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not empty:
        raise ConfigError(f"{path} is not a queue but another database; give the queue a file of its own")
    if version > newest:
        raise ConfigError(
            f"{path} was written by a newer version of memscheduler (queue layout {version}, this version "
            f"knows up to {newest}); upgrade with `pip install -U memscheduler`, the file is untouched"
        )
    return version


def _statements(text: str) -> list[str]:
    found, part = [], ""
    for line in text.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    return found
