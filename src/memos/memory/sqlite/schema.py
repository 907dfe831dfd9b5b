"""Numbered migrations: `memos/memory/migrations/NNNN_name.sql`, forward only.

Each one runs in a transaction of its own together with the new `user_version`, so an interrupted
upgrade stands at a whole step. A file that a newer program wrote, and a database of some other program,
are refused untouched.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from memos.errors import SchemaTooNew, StoreCorrupt

APPLICATION_ID = 0x4D454D53  # "MEMS", in the header of every file of ours
_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: the file's number becomes the `user_version`."""

    number: int
    name: str
    text: str


def migrations() -> list[Migration]:
    """All steps in order. Their numbers run from 1 without a gap."""
    folder = resources.files("memos.memory") / "migrations"
    steps = []
    for file in folder.iterdir():
        if match := _NAME.fullmatch(file.name):
            steps.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    steps.sort(key=lambda step: step.number)
    return steps


def statements(text: str) -> list[str]:
    """The single statements of an SQL script; triggers stay whole."""
    found, part = [], ""
    for line in text.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    return found


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Read what the file is. Raises SchemaTooNew, StoreCorrupt (another program's database)."""
    _version(connection, path, migrations()[-1].number)


def migrate(connection: sqlite3.Connection, path: Path, steps: list[Migration] | None = None) -> int:
    """Bring the file to the newest layout; returns the version it has now. Raises what `check` does."""
    steps = migrations() if steps is None else steps
    newest = steps[-1].number
    if _version(connection, path, newest) == newest:
        return newest
    for step in steps:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Read again under the lock: another process may have migrated while this one waited.
            if _version(connection, path, newest) < step.number:
                for statement in statements(step.text):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {step.number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return newest


def _version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not empty:
        raise StoreCorrupt(
            f"{path} is a database of another program; point MEMOS_STORE__PATH at a file of its own"
        )
    if version > newest:
        raise SchemaTooNew(
            f"{path} was written by a newer version of memscheduler (layout {version}, this version "
            f"knows up to {newest}); upgrade with `pip install -U memscheduler`, the file is untouched"
        )
    return version
