"""`RelationalStore`: the store's methods, each one transaction of a database.

The one class that is inherited from: `SqliteStore` and `PostgresStore` open their database and add what only
that database has.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from memos.clock import Clock, utc
from memos.errors import EmbedderMismatch, InvalidInput, ItemGone, ItemNotFound, SubjectErased
from memos.mem_scheduler.schemas.keys import is_before
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.memory.activation.index import Block, ChatReuse, KeptPrefix
from memos.memory.item import Capacities, CubeSizes, ItemStatus, MemoryItem, WorkingSet
from memos.memory.relational import aliases, entries, serving
from memos.memory.relational import erase as erasing
from memos.memory.relational import logs as logs_
from memos.memory.relational.entries import Binding
from memos.memory.relational.rows import micros
from memos.memory.relational.tables import Database, Tables
from memos.memory.relational.verify import faults
from memos.memory.relational.writing import Writing
from memos.memory.store import (
    Applied,
    Cause,
    Change,
    Followup,
    ItemFilter,
    JournalRow,
    Page,
    ReadView,
    ServingQueue,
)

if TYPE_CHECKING:
    from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
    from memos.models.base import Vectors

VECTOR_CACHE_BYTES_MAX = 512 * 1024 * 1024
WEB_LOGS_MAX = 100_000
_SHORT_MAX = 64  # changes of a transaction that may share its COMMIT with others


class RelationalStore:
    """Fulfils `memos.memory.store.MemoryStore` but for `backup`, on a database that is open.

    Usable at once; close it, or use `with`. The database is closed with it, also when opening fails.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        capacities: Capacities | None = None,
        vector_cache_bytes_max: int = VECTOR_CACHE_BYTES_MAX,
        web_logs_max: int = WEB_LOGS_MAX,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        from memos.memory.relational.cache import RecallCache  # loads numpy

        self._clock = clock
        self._capacities = capacities or Capacities()
        self._web_logs_max = web_logs_max
        self._random_bytes = random_bytes
        self._cache = RecallCache(vector_cache_bytes_max)
        self._bound_as: Binding | None = None
        self._database = database
        try:
            self._store_id = self._first_use()
        except BaseException:
            database.close()
            raise

    def _first_use(self) -> str:
        with self._database.read(()) as tables:
            store_id = tables.meta.get("store_id")
        if store_id is None:
            with self._database.write() as tables:
                tables.cubes.hold_all()  # another process may be first
                store_id = tables.meta.get("store_id")
                if store_id is None:
                    store_id = str(uuid.UUID(bytes=self._random_bytes(16), version=4))
                    tables.meta.put("store_id", store_id)
                    tables.meta.put("created_at", utc(self._clock.now()).isoformat())
        return store_id

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
        with self._writing(cause, alone=len(changes) > _SHORT_MAX) as (writing, _):
            writing.hold(changes)
            for change in changes:
                writing.apply(change)
            seqs, archived = writing.finish()
            logs_.put_web_logs(writing.tables, logs, kept_max=self._web_logs_max)
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
            outbox = writing.tables.outbox
            # The mark first: from here on nobody else can be at work on this message, so that what the
            # guard finds holds until the commit.
            fresh = outbox.put_mark(message_key, parent_key, now)
            guard()
            writing.tables.cubes.share()  # an erasure that runs is waited for, a later one waits
            self._refuse_erased(writing.tables, message_key, cause)
            if not fresh:
                return Applied(fresh=False, followups=tuple(outbox.pending(message_key)))
            outbox.tick([message_key])
            writing.hold(changes)
            for change in changes:
                writing.apply(change)
            seqs, archived = writing.finish()
            logs_.check_followups(message_key, followups)
            outbox.put_followups(followups, now)
            pending = outbox.pending(message_key) if followups else []
            logs_.put_web_logs(writing.tables, logs, kept_max=self._web_logs_max)
        return Applied(followups=tuple(pending), seqs=seqs, archived=archived)

    def _refuse_erased(self, tables: Tables, message_key: str, cause: Cause | None) -> None:
        if cause is None or not cause.user_id:
            return
        moment = erasing.erased_at(tables, cause.user_id, store_id=self._store_id)
        if is_before(message_key, moment):
            raise SubjectErased("the user was erased after this task was submitted: nothing of it is stored")

    @contextmanager
    def _writing(self, cause: Cause | None, *, alone: bool = False) -> Iterator[tuple[Writing, int]]:
        with self._database.write(alone=alone) as tables:
            now = self._now()
            yield (
                Writing(
                    tables,
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
        with self._database.read() as tables:
            return tables.outbox.has_mark(message_key)

    def pending_followups(self, message_key: str | None = None) -> list[Followup]:
        with self._database.read() as tables:
            return tables.outbox.pending(message_key)

    def tick(self, message_keys: Sequence[str]) -> None:
        if message_keys:
            with self._database.write() as tables:
                tables.outbox.tick(message_keys)

    def sweep(self, settled: Sequence[str], *, queue_id: str = "") -> int:
        if not settled:
            return 0
        with self._database.write() as tables:
            if any(one.id != queue_id for one in serving.noted(tables.meta)):
                return 0
            return tables.outbox.sweep(settled)

    def serve(self, queue: ServingQueue) -> None:
        with self._database.write() as tables:
            serving.note(tables.meta, queue)

    def queues(self) -> list[ServingQueue]:
        with self._database.read() as tables:
            return serving.noted(tables.meta)

    def retire(self, queue_id: str, *, token: str | None = None) -> bool:
        with self._database.write() as tables:
            return serving.strike_out(tables.meta, queue_id, token=token)

    def marks(self, *, limit: int) -> list[tuple[str, str]]:
        with self._database.read() as tables:
            return tables.outbox.oldest_marks(limit)

    # -- activation -----------------------------------------------------------------------------------

    def block(self, namespace: str) -> Block | None:
        with self._database.read() as tables:
            return tables.blocks.find(namespace)

    def put_block(self, block: Block) -> Block:
        """Raises VersionConflict, StoreUnavailable."""
        with self._database.write() as tables:
            return tables.blocks.put(block, self._now())

    def note_chat(self, namespace: str, outcome: ChatReuse) -> None:
        with self._database.write() as tables:
            tables.blocks.note_chat(namespace, outcome, self._now())

    def blocks(self, *, cube_id: str | None = None, user_id: str | None = None) -> list[Block]:
        with self._database.read() as tables:
            return tables.blocks.all(cube_id, user_id)

    def prefixes(self, *, namespaces: Sequence[str] | None = None, doomed: bool = False) -> list[KeptPrefix]:
        with self._database.read() as tables:
            return tables.blocks.prefixes(namespaces, doomed=doomed)

    def forget_prefixes(self, backend: str, ids: Sequence[str]) -> int:
        with self._database.write() as tables:
            return tables.blocks.forget(backend, ids)

    # -- reading --------------------------------------------------------------------------------------

    def get(self, item_ids: Sequence[str]) -> list[MemoryItem]:
        """Items in the order asked for. Raises ItemNotFound, ItemGone."""
        with self._database.read() as tables:
            found = aliases.resolved(tables.items, item_ids)
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
        with self._database.read(wanted.cube_ids or None) as tables:
            return tables.items.find(wanted, limit=limit, cursor=cursor)

    @contextmanager
    def read(self, cube_id: str) -> Iterator[ReadView]:
        """A snapshot of one cube, for as long as the block lasts."""
        from memos.memory.relational.view import RelationalReadView

        with self._database.snapshot(cube_id) as tables:
            with self._database.translating():
                view = RelationalReadView(
                    tables,
                    cube_id,
                    cache=self._cache,
                    bound_as=self._bound_as,
                    translating=self._database.translating,
                )
            yield view

    def working(self, cube_id: str) -> WorkingSet:
        with self._database.read((cube_id,)) as tables:
            return tables.working.read(cube_id, tables.cubes.find(cube_id))

    def state(self, cube_id: str, name: str) -> Mapping[str, Any] | None:
        with self._database.read((cube_id,)) as tables:
            text = tables.working.state(cube_id, name)
        if text is None:
            return None
        value: dict[str, Any] = json.loads(text)
        return value

    def cubes(self, user_id: str | None = None) -> list[str]:
        with self._database.read() as tables:
            return tables.cubes.ids(user_id)

    def sizes(self, cube_id: str) -> CubeSizes:
        with self._database.read((cube_id,)) as tables:
            cube = tables.cubes.find(cube_id)
            return CubeSizes() if cube is None else cube.sizes(working=tables.cubes.places_taken(cube.no))

    def seq(self, cube_id: str) -> int:
        with self._database.read((cube_id,)) as tables:
            cube = tables.cubes.find(cube_id)
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
        with self._database.read(None if cube_id is None else (cube_id,)) as tables:
            return tables.journal.read(
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
        with self._database.read(None if cube_id is None else (cube_id,)) as tables:
            return tables.logs.read(
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
        with self._database.read() as tables:
            return logs_.dropped(tables)

    # -- vectors --------------------------------------------------------------------------------------

    def vector_fingerprint(self) -> tuple[str, int] | None:
        """The model the store is bound to; None before the first `bind_embedder`."""
        with self._database.read() as tables:
            binding = entries.get_binding(tables.meta)
        return None if binding is None else (binding.fingerprint, binding.dim)

    def bind_embedder(self, fingerprint: str, dim: int) -> None:
        """Bind store and process to a model. A store that holds no vector yet may be bound anew."""
        wanted = _binding(fingerprint, dim)
        with self._database.read(()) as tables:
            if entries.get_binding(tables.meta) == wanted:
                self._bound_as = wanted
                return
        with self._database.write() as tables:
            tables.cubes.hold_all()
            stored = entries.get_binding(tables.meta)
            if stored != wanted:
                if stored is not None and tables.items.any_vector():
                    raise EmbedderMismatch(
                        f"the vectors in {self._database.name} are of {stored.fingerprint!r} (dimension {stored.dim}), "
                        f"the configured model is {fingerprint!r} ({dim}); run `memos reembed`, "
                        "or configure the other model again"
                    )
                entries.put_binding(tables.meta, wanted)
        self._bound_as = wanted

    def without_vector(self, *, limit: int) -> list[MemoryItem]:
        """Oldest first."""
        with self._database.read() as tables:
            return tables.items.without_vector(max(0, limit))

    def put_vectors(self, vectors: Mapping[str, Vectors]) -> None:
        """Raises ItemNotFound, InvalidInput, EmbedderMismatch; deleted items are passed over."""
        if vectors:
            with self._writing(None) as (writing, _):
                writing.put_vectors(vectors)
                writing.finish()

    def drop_vectors(self, fingerprint: str, dim: int) -> None:
        """Forget all vectors and bind to another model."""
        wanted = _binding(fingerprint, dim)
        with self._database.write(alone=True) as tables:
            tables.cubes.hold_all()
            tables.items.forget_vectors()
            entries.put_binding(tables.meta, wanted)
        self._bound_as = wanted

    # -- erasing --------------------------------------------------------------------------------------

    def texts_of(self, user_id: str, *, chars_min: int = 12, limit: int = 200) -> list[str]:
        """The longest texts that this user alone said, to look for traces of after `erase`."""
        with self._database.read() as tables:
            return tables.erasing.texts_of(user_id, chars_min=chars_min, limit=limit)

    def erase(self, user_id: str, *, state_names: Sequence[str] = ()) -> dict[str, int]:
        """Everything of a user out of the store, in one transaction; how many of each went.

        See `memos.memory.relational.erase`. `state_names`: pieces of monitor state that are the user's.
        """
        check_id("user_id", user_id)
        with self._writing(Cause(label="erase"), alone=True) as (writing, now):
            return erasing.erase(writing, user_id, now=now, store_id=self._store_id, state_names=state_names)

    def erased_at(self, user_id: str) -> float | None:
        """The wall time at which the user was erased last; None: never."""
        with self._database.read(()) as tables:
            return erasing.erased_at(tables, user_id, store_id=self._store_id)

    def checkpoint(self) -> bool:
        """Overwrite what older states may still stand anywhere, as far as the database can."""
        return self._database.checkpoint()

    # -- keeping house --------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """Reads the whole store; one line per fault."""
        with self._database.read() as tables:
            return list(faults(tables))

    def close(self) -> None:
        """Close the database. Safe to call twice; every other call raises StoreUnavailable afterwards."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _binding(fingerprint: str, dim: int) -> Binding:
    if not fingerprint or dim < 1:
        raise InvalidInput(f"not a model: fingerprint {fingerprint!r}, dimension {dim}")
    return Binding(fingerprint, dim)
