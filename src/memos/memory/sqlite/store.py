"""`SqliteStore`: the store's methods, each one transaction on the file."""

from __future__ import annotations

import json
import secrets
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from memos.clock import Clock, utc
from memos.errors import EmbedderMismatch, InvalidInput, ItemGone, ItemNotFound, SubjectErased
from memos.mem_scheduler.schemas.keys import is_before
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.memory.item import Capacities, CubeSizes, ItemStatus, MemoryItem, WorkingSet
from memos.memory.sqlite import aliases, filters, index, journal, outbox, web_logs
from memos.memory.sqlite import erase as erasing
from memos.memory.sqlite.backup import copy_database
from memos.memory.sqlite.connection import Database
from memos.memory.sqlite.cubes import find_cube, sizes_of
from memos.memory.sqlite.faults import translating
from memos.memory.sqlite.index import Binding
from memos.memory.sqlite.places import read_working
from memos.memory.sqlite.rows import ITEM_COLUMNS, item_of, micros
from memos.memory.sqlite.verify import faults
from memos.memory.sqlite.writing import Writing
from memos.memory.store import Applied, Cause, Change, Followup, ItemFilter, JournalRow, Page, ReadView

if TYPE_CHECKING:
    from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
    from memos.models.base import Vectors

BUSY_TIMEOUT_S = 10.0
VECTOR_CACHE_BYTES_MAX = 512 * 1024 * 1024
WEB_LOGS_MAX = 100_000

_STATE = "SELECT value FROM state JOIN cube ON cube.no = state.cube_no WHERE cube.id = ? AND state.name = ?"
_CUBES = "SELECT id FROM cube ORDER BY no"
_CUBES_OF_USER = """
SELECT id FROM cube
WHERE no IN (SELECT DISTINCT cube_no FROM item WHERE user_id = ? AND live = 1) ORDER BY no
"""
_WITHOUT_VECTOR = f"""
SELECT {ITEM_COLUMNS}, cube.id FROM item JOIN cube ON cube.no = item.cube_no
WHERE item.live = 1 AND item.has_vector = 0 ORDER BY item.no LIMIT ?
"""
_ANY_VECTOR = "SELECT 1 FROM vector LIMIT 1"
_RAISE_SEQ_WHERE_VECTORS = """
UPDATE cube SET seq = seq + 1 WHERE no IN (SELECT cube_no FROM item WHERE has_vector = 1)
"""
_FORGET_VECTORS = """
UPDATE item SET has_vector = 0, seq = (SELECT seq FROM cube WHERE cube.no = item.cube_no) WHERE has_vector = 1
"""
_DELETE_VECTORS = "DELETE FROM vector"


class SqliteStore:
    """Fulfils `memos.memory.store.MemoryStore` with one file. Usable at once; close it, or use `with`.

    Raises StoreUnavailable (cannot be written), StoreCorrupt, SchemaTooNew when it opens.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        capacities: Capacities | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        vector_cache_bytes_max: int = VECTOR_CACHE_BYTES_MAX,
        web_logs_max: int = WEB_LOGS_MAX,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        from memos.memory.sqlite.cache import RecallCache  # loads numpy

        self._clock = clock
        self._capacities = capacities or Capacities()
        self._web_logs_max = web_logs_max
        self._random_bytes = random_bytes
        self._cache = RecallCache(vector_cache_bytes_max)
        self._bound_as: Binding | None = None
        self._database = Database(Path(path), busy_timeout_s=busy_timeout_s)
        try:
            self._store_id = self._first_use()
        except BaseException:
            self._database.close()
            raise

    def _first_use(self) -> str:
        with self._database.read() as connection:
            store_id = index.get_meta(connection, "store_id")
        if store_id is None:
            with self._database.write() as connection:
                store_id = index.get_meta(connection, "store_id")  # another process may have been first
                if store_id is None:
                    store_id = str(uuid.UUID(bytes=self._random_bytes(16), version=4))
                    index.put_meta(connection, "store_id", store_id)
                    index.put_meta(connection, "created_at", utc(self._clock.now()).isoformat())
        return store_id

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def store_id(self) -> str:
        return self._store_id

    @property
    def capacities(self) -> Capacities:
        return self._capacities

    # -- writing --------------------------------------------------------------------------------------

    def apply(
        self,
        changes: Sequence[Change],
        *,
        cause: Cause | None = None,
        logs: Sequence[ScheduleLogForWebItem] = (),
    ) -> Applied:
        """Commit all changes and logs, or raise and leave everything as it was."""
        with self._writing(cause) as (writing, _):
            for change in changes:
                writing.apply(change)
            seqs, archived = writing.finish()
            web_logs.put_web_logs(writing.connection, logs, kept_max=self._web_logs_max)
        return Applied(seqs=seqs, archived=archived)

    def apply_once(
        self,
        message_key: str,
        changes: Sequence[Change],
        *,
        parent_key: str = "",
        followups: Sequence[Followup] = (),
        logs: Sequence[ScheduleLogForWebItem] = (),
        cause: Cause | None = None,
        guard: Callable[[], None] = lambda: None,
    ) -> Applied:
        """Effects, followups, logs and mark in one transaction; a repeat only tells what is not ticked."""
        check_id("message_key", message_key)
        with self._writing(cause or Cause(message_key=message_key)) as (writing, now):
            connection = writing.connection
            guard()
            self._refuse_erased(connection, message_key, cause)
            if not outbox.put_mark(connection, message_key, parent_key, now):
                return Applied(fresh=False, followups=tuple(outbox.pending(connection, message_key)))
            outbox.tick(connection, [message_key])
            for change in changes:
                writing.apply(change)
            seqs, archived = writing.finish()
            web_logs.put_web_logs(connection, logs, kept_max=self._web_logs_max)
            outbox.put_followups(connection, message_key, followups, now)
            pending = outbox.pending(connection, message_key) if followups else []
        return Applied(followups=tuple(pending), seqs=seqs, archived=archived)

    def _refuse_erased(self, connection: sqlite3.Connection, message_key: str, cause: Cause | None) -> None:
        if cause is None or not cause.user_id:
            return
        moment = erasing.erased_at(connection, cause.user_id, store_id=self._store_id)
        if is_before(message_key, moment):
            raise SubjectErased("the user was erased after this task was submitted: nothing of it is stored")

    @contextmanager
    def _writing(self, cause: Cause | None) -> Iterator[tuple[Writing, int]]:
        with self._database.write() as connection:
            now = self._now()
            yield (
                Writing(
                    connection,
                    cause or Cause(),
                    now=now,
                    capacities=self._capacities,
                    bound_as=self._bound_as,
                    random_bytes=self._random_bytes,
                ),
                now,
            )

    def _now(self) -> int:
        now = micros(utc(self._clock.now()))
        assert now is not None
        return now

    def was_applied(self, message_key: str) -> bool:
        with self._database.read() as connection:
            return outbox.has_mark(connection, message_key)

    def pending_followups(self, message_key: str | None = None) -> list[Followup]:
        with self._database.read() as connection:
            return outbox.pending(connection, message_key)

    def tick(self, message_keys: Sequence[str]) -> None:
        if message_keys:
            with self._database.write() as connection:
                outbox.tick(connection, message_keys)

    def sweep(self, settled: Sequence[str]) -> int:
        if not settled:
            return 0
        with self._database.write() as connection:
            return outbox.sweep(connection, settled)

    def marks(self, *, limit: int) -> list[tuple[str, str]]:
        with self._database.read() as connection:
            return outbox.oldest_marks(connection, limit)

    # -- reading --------------------------------------------------------------------------------------

    def get(self, item_ids: Sequence[str]) -> list[MemoryItem]:
        """Items in the order asked for. Raises ItemNotFound, ItemGone."""
        with self._database.read() as connection:
            found = aliases.resolved(connection, item_ids)
        items = []
        for item_id in item_ids:
            stored = found.get(item_id)
            if stored is None:
                raise ItemNotFound(f"no item {item_id!r} was ever stored here")
            if stored.item.status is ItemStatus.DELETED:
                raise ItemGone(f"item {item_id!r} was deleted")
            items.append(stored.item)
        return items

    def find(self, wanted: ItemFilter, *, limit: int = 100, cursor: str | None = None) -> Page:
        """Newest first by `created_at`. Raises InvalidInput for a cursor that `find` did not give."""
        with self._database.read() as connection:
            return filters.find(connection, wanted, limit=limit, cursor=cursor)

    @contextmanager
    def read(self, cube_id: str) -> Iterator[ReadView]:
        """A snapshot of one cube, for as long as the block lasts."""
        from memos.memory.sqlite.view import SqliteReadView

        with self._database.snapshot() as connection:
            with translating(self.path):
                view = SqliteReadView(
                    connection, cube_id, cache=self._cache, bound_as=self._bound_as, path=self.path
                )
            yield view

    def working(self, cube_id: str) -> WorkingSet:
        with self._database.read() as connection:
            return read_working(connection, cube_id, find_cube(connection, cube_id))

    def state(self, cube_id: str, name: str) -> Mapping[str, Any] | None:
        with self._database.read() as connection:
            row = connection.execute(_STATE, (cube_id, name)).fetchone()
        if row is None:
            return None
        value: dict[str, Any] = json.loads(row[0])
        return value

    def cubes(self, user_id: str | None = None) -> list[str]:
        with self._database.read() as connection:
            rows = (
                connection.execute(_CUBES)
                if user_id is None
                else connection.execute(_CUBES_OF_USER, (user_id,))
            )
            return [row[0] for row in rows]

    def sizes(self, cube_id: str) -> CubeSizes:
        with self._database.read() as connection:
            cube = find_cube(connection, cube_id)
            return CubeSizes() if cube is None else sizes_of(connection, cube)

    def seq(self, cube_id: str) -> int:
        with self._database.read() as connection:
            cube = find_cube(connection, cube_id)
            return 0 if cube is None else cube.seq

    def journal(
        self,
        *,
        cube_id: str | None = None,
        item_id: str | None = None,
        task_id: str | None = None,
        message_key: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[JournalRow]:
        with self._database.read() as connection:
            return journal.read_journal(
                connection,
                cube_id=cube_id,
                item_id=item_id,
                task_id=task_id,
                message_key=message_key,
                limit=limit,
                before=before,
            )

    def web_logs(
        self,
        *,
        cube_id: str | None = None,
        user_id: str | None = None,
        label: str | None = None,
        trace_id: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[tuple[int, ScheduleLogForWebItem]]:
        with self._database.read() as connection:
            return web_logs.read_web_logs(
                connection,
                cube_id=cube_id,
                user_id=user_id,
                label=label,
                trace_id=trace_id,
                limit=limit,
                before=before,
            )

    @property
    def web_logs_dropped(self) -> int:
        """How many web logs the bound has pushed out since the store was made."""
        with self._database.read() as connection:
            return web_logs.dropped(connection)

    # -- vectors --------------------------------------------------------------------------------------

    def vector_fingerprint(self) -> tuple[str, int] | None:
        """The model the file is bound to; None before the first `bind_embedder`."""
        with self._database.read() as connection:
            binding = index.get_binding(connection)
        return None if binding is None else (binding.fingerprint, binding.dim)

    def bind_embedder(self, fingerprint: str, dim: int) -> None:
        """Bind file and process to a model. A file that holds no vector yet may be bound anew."""
        wanted = _binding(fingerprint, dim)
        with self._database.write() as connection:
            stored = index.get_binding(connection)
            if stored != wanted:
                if stored is not None and connection.execute(_ANY_VECTOR).fetchone():
                    raise EmbedderMismatch(
                        f"the vectors in {self.path} are of {stored.fingerprint!r} (dimension {stored.dim}), "
                        f"the configured model is {fingerprint!r} ({dim}); run `memos reembed`, "
                        "or configure the other model again"
                    )
                index.put_binding(connection, wanted)
        self._bound_as = wanted

    def without_vector(self, *, limit: int) -> list[MemoryItem]:
        """Oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(_WITHOUT_VECTOR, (max(0, limit),))
            return [item_of(row, row[-1]) for row in rows]

    def put_vectors(self, vectors: Mapping[str, Vectors]) -> None:
        """Raises ItemNotFound, InvalidInput, EmbedderMismatch; deleted items are passed over."""
        if vectors:
            with self._writing(None) as (writing, _):
                writing.put_vectors(vectors)
                writing.finish()

    def drop_vectors(self, fingerprint: str, dim: int) -> None:
        """Forget all vectors and bind to another model."""
        wanted = _binding(fingerprint, dim)
        with self._database.write() as connection:
            connection.execute(_RAISE_SEQ_WHERE_VECTORS)
            connection.execute(_FORGET_VECTORS)
            connection.execute(_DELETE_VECTORS)
            index.put_binding(connection, wanted)
        self._bound_as = wanted

    # -- erasing --------------------------------------------------------------------------------------

    def texts_of(self, user_id: str, *, chars_min: int = 12, limit: int = 200) -> list[str]:
        """The longest texts that this user alone said, to look for traces of after `erase`."""
        with self._database.read() as connection:
            return erasing.texts_of(connection, user_id, chars_min=chars_min, limit=limit)

    def erase(self, user_id: str, *, state_names: Sequence[str] = ()) -> dict[str, int]:
        """Everything of a user out of the file, in one transaction; how many of each went.

        See `memos.memory.sqlite.erase`. `state_names`: pieces of monitor state that are the user's.
        """
        check_id("user_id", user_id)
        with self._writing(Cause(label="erase")) as (writing, now):
            return erasing.erase(writing, user_id, now=now, store_id=self._store_id, state_names=state_names)

    def erased_at(self, user_id: str) -> float | None:
        """The wall time at which the user was erased last; None: never."""
        with self._database.read() as connection:
            return erasing.erased_at(connection, user_id, store_id=self._store_id)

    def checkpoint(self) -> bool:
        """Empty the write-ahead log, where older pages stand; False while a reader needs them."""
        return self._database.checkpoint()

    # -- keeping house --------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """Reads the whole file; one line per fault. A file that cannot be read to the end says so."""
        found: list[str] = []
        with self._database.read() as connection:
            try:
                found.extend(faults(connection))
            except sqlite3.DatabaseError as error:
                found.append(f"file: {error}")
        return found

    def backup(self, path: Path) -> int:
        """Copy the whole file, as it is at one moment, to a new file; returns its bytes. Writers go on."""
        with self._database.read() as connection:
            return copy_database(connection, path)

    def close(self) -> None:
        """Close the file. Safe to call twice; every other call raises StoreUnavailable afterwards."""
        self._database.close()

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _binding(fingerprint: str, dim: int) -> Binding:
    if not fingerprint or dim < 1:
        raise InvalidInput(f"not a model: fingerprint {fingerprint!r}, dimension {dim}")
    return Binding(fingerprint, dim)
