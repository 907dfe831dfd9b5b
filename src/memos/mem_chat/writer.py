"""The one way by which conversations become stored memories: read, index, commit, announce.

When `write` returns, every item is committed and can be recalled, in all cubes or in none. The `add`
task that follows (web logs, and later deeper reading) is announced to the scheduler afterwards; if the
queue refuses it, the memories stay and `Written.task_error` says why.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from memos import context, log
from memos.errors import QueueError
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import ADD_TASK_LABEL
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.reader import MemReader
from memos.memory.store import AddItems, Cause, IndexedItem, ItemFilter, MemoryStore
from memos.memory.turns import Conversation, Skipped, parse_conversation

if TYPE_CHECKING:
    from memos.memory.indexer import Indexer

_LOCKS = 64
logger = log.get_logger(__name__)


class Submitter(Protocol):
    """What the writer and the chat need of a scheduler."""

    def submit_messages(self, messages: list[ScheduleMessageItem]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Written:
    """What one `write` stored, cube after cube in the order of the turns."""

    items: tuple[MemoryItem, ...]
    skipped: tuple[Skipped, ...] = ()
    seqs: Mapping[str, int] = field(default_factory=dict)
    archived: tuple[str, ...] = ()  # what capacity pushed out
    task_error: str = ""  # why the `add` task is not queued


class ConversationWriter:
    """Stores conversations. Thread-safe; two writes to one cube take turns, so places in a session rise."""

    def __init__(
        self,
        *,
        store: MemoryStore,
        indexer: Indexer,
        reader: MemReader,
        scheduler: Submitter,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._store = store
        self._indexer = indexer
        self._reader = reader
        self._scheduler = scheduler
        self._new_id = new_id
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def write(
        self,
        messages: str | Sequence[Mapping[str, Any]] | Conversation,
        *,
        user_id: str,
        cube_ids: Sequence[str],
        session_id: str = "",
        turn_id: str = "",
        task_id: str | None = None,
        user_name: str = "",
        source_type: str = "chat",
        info: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        reason: str = "added",
    ) -> Written:
        """Store `messages` in each cube. Raises InvalidInput, StoreError; then nothing is stored."""
        conversation = messages if isinstance(messages, Conversation) else parse_conversation(messages)
        indexed: list[IndexedItem] = []
        skipped: tuple[Skipped, ...] = ()
        with ExitStack() as held:
            # In one order everywhere, so that two writes over the same cubes cannot wait for each other.
            for slot in sorted({hash(cube_id) % _LOCKS for cube_id in cube_ids}):
                held.enter_context(self._locks[slot])
            for cube_id in cube_ids:
                reading = self._reader.read_messages(
                    conversation,
                    user_id=user_id,
                    cube_id=cube_id,
                    session_id=session_id,
                    turn_id=turn_id,
                    user_name=user_name,
                    first_position=self._next_position(cube_id, session_id),
                    source_type=source_type,
                    info=info,
                    tags=tags,
                )
                skipped = reading.skipped
                indexed += self._index(cube_id, reading.items)
            cause = Cause(
                task_id=task_id or "",
                label=ADD_TASK_LABEL,
                trace_id=context.current_trace_id(),
                user_id=user_id,
            )
            applied = self._store.apply([AddItems(tuple(indexed), reason=reason)], cause=cause)
        items = tuple(one.item for one in indexed)
        task_error = self._announce(items, cube_ids, user_id, session_id, task_id, user_name)
        return Written(items, skipped, dict(applied.seqs), applied.archived, task_error)

    def _index(self, cube_id: str, items: Sequence[MemoryItem]) -> list[IndexedItem]:
        with self._store.read(cube_id) as view:
            known = view.participants()
        speakers = known.union(*(item.participants for item in items))
        return list(self._indexer.index(list(items), participants=speakers))

    def _next_position(self, cube_id: str, session_id: str) -> int:
        wanted = ItemFilter(cube_ids=(cube_id,), session_ids=(session_id,), statuses=_KEPT)
        newest = self._store.find(wanted, limit=1).items
        return newest[0].position + 1 if newest else 0

    def _announce(
        self,
        items: Sequence[MemoryItem],
        cube_ids: Sequence[str],
        user_id: str,
        session_id: str,
        task_id: str | None,
        user_name: str,
    ) -> str:
        tasks = [
            ScheduleMessageItem(
                item_id=self._new_id(),
                user_id=user_id,
                mem_cube_id=cube_id,
                session_id=session_id,
                label=ADD_TASK_LABEL,
                content=json.dumps([item.id for item in items if item.cube_id == cube_id]),
                user_name=user_name,
                task_id=task_id,
                api_path=context.api_path.get() or None,
            )
            for cube_id in cube_ids
        ]
        try:
            self._scheduler.submit_messages(tasks)
        except QueueError as error:  # the memories are stored: what is lost is their log
            logger.warning("writer.task_refused", error=str(error), cubes=len(tasks))
            return str(error)
        return ""


_KEPT = (ItemStatus.ACTIVATED, ItemStatus.RESOLVING, ItemStatus.ARCHIVED, ItemStatus.QUARANTINED)
