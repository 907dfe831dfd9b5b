"""The dead letters in the queue's file: bounded, the oldest leave first and are counted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

from memos.errors import InvalidInput
from memos.mem_scheduler.queues.base import DeadLetter
from memos.mem_scheduler.queues.sqlite import calls
from memos.mem_scheduler.queues.sqlite.codec import with_content
from memos.mem_scheduler.queues.sqlite.packs import Pack, load_packs, pack_of
from memos.mem_scheduler.queues.sqlite.reading import letters
from memos.mem_scheduler.queues.sqlite.rows import DEAD
from memos.mem_scheduler.queues.sqlite.session import Session
from memos.mem_scheduler.queues.sqlite.settling import forget_letters, prune, requeue
from memos.mem_scheduler.schemas.message_schemas import check_text

Packs: TypeAlias = list[Pack]  # `list` is the name of a method below


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
            pack = _find(session.connection, key)
            if pack is not None:
                session.connection.execute(
                    "UPDATE pack SET body = ? WHERE id = ?", (with_content(pack.body, content), pack.id)
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


def _find(connection: sqlite3.Connection, key: str) -> Pack | None:
    """The dead letter of a key."""
    message_id = calls.id_of_key(connection, key)
    pack = None if message_id is None else pack_of(connection, message_id)
    return pack if pack is not None and pack.place == DEAD else None


def _only(connection: sqlite3.Connection, key: str) -> DeadLetter:
    pack = _find(connection, key)
    if pack is None:
        raise InvalidInput(f"there is no dead letter {key!r}; `memos dead list` names them")
    return letters(connection, "id = ?", (pack.id,))[0]


def _take(session: Session, keys: Sequence[str] | None) -> Packs:
    if keys is None:
        return load_packs(session.connection, "place = 4 ORDER BY died_no", ())
    found = [_find(session.connection, key) for key in dict.fromkeys(keys)]
    return [pack for pack in found if pack is not None]
