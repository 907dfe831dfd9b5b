"""The dead letters in the queue's file: bounded, the oldest leave first and are counted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

from memos.errors import InvalidInput
from memos.mem_scheduler.queues.base import DeadLetter
from memos.mem_scheduler.queues.sqlite.reading import letters
from memos.mem_scheduler.queues.sqlite.rows import MessageRow, load_messages
from memos.mem_scheduler.queues.sqlite.session import Session
from memos.mem_scheduler.queues.sqlite.settling import forget_letters, prune, requeue
from memos.mem_scheduler.schemas.message_schemas import check_text

Rows: TypeAlias = list[MessageRow]  # `list` is the name of a method below


class SqliteDeadLetters:
    """Thread-safe: each call is a transaction of the queue."""

    def __init__(
        self,
        write: Callable[[], AbstractContextManager[Session]],
        read: Callable[[], AbstractContextManager[sqlite3.Connection]],
    ) -> None:
        self._write = write
        self._read = read

    @property
    def dropped(self) -> int:
        """How many letters the bound pushed out."""
        with self._read() as connection:
            number: int = connection.execute("SELECT letters_dropped FROM counter").fetchone()[0]
        return number

    def list(
        self, *, label: str | None = None, user_id: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        with self._read() as connection:
            return letters(
                connection,
                "(?1 IS NULL OR label = ?1) AND (?2 IS NULL OR user_id = ?2)",
                (label, user_id),
                limit=max(0, limit),
            )

    def show(self, key: str) -> DeadLetter:
        with self._read() as connection:
            return _only(connection, key)

    def edit(self, key: str, content: str) -> DeadLetter:
        check_text("content", content)
        with self._write() as session:
            session.connection.execute(
                "UPDATE msg SET content = ? WHERE key = ? AND place = 4", (content, key)
            )
            return _only(session.connection, key)

    def retry(self, keys: Sequence[str] | None = None) -> int:
        with self._write() as session:
            taken = _take(session, keys)
            requeue(session, taken)
        return len(taken)

    def purge(self, keys: Sequence[str] | None = None) -> int:
        with self._write() as session:
            taken = _take(session, keys)
            forget_letters(session, taken)
            prune(session)
        return len(taken)


def _only(connection: sqlite3.Connection, key: str) -> DeadLetter:
    found = letters(connection, "key = ?", (key,))
    if not found:
        raise InvalidInput(f"there is no dead letter {key!r}; `memos dead list` names them")
    return found[0]


def _take(session: Session, keys: Sequence[str] | None) -> Rows:
    if keys is None:
        return load_messages(session.connection, "place = 4 ORDER BY died_no", ())
    rows = load_messages(
        session.connection, "place = 4 AND key IN (SELECT value FROM json_each(?))", (json.dumps([*keys]),)
    )
    found = {row.key: row for row in rows}
    return [found[key] for key in dict.fromkeys(keys) if key in found]
