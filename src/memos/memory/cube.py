"""Cubes as programs see them: `cube.text_mem.search(...)`, `.get_all()`, `.get_working_memory()` …

A cube object holds no memory of its own: it is a view of one cube in the store, made when asked for and
as cheap as its id. It is what stands behind `current_mem_cube` and `naive_mem_cube`. A cube that has no
memories yet reads as empty and comes into being with the first `add`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic import ValidationError

from memos import context
from memos.clock import Clock, SystemClock, utc
from memos.errors import InvalidInput, ItemNotFound
from memos.mem_scheduler.schemas.message_schemas import check_id, check_text
from memos.memory.activation.described import CubeCaches
from memos.memory.activation.index import PrefixIndex
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, Source, WorkingEntry
from memos.memory.moments import parse_moment
from memos.memory.store import (
    AddItems,
    Cause,
    IndexedItem,
    ItemFilter,
    MemoryStore,
    ReplaceWorking,
    SetStatus,
    UpdateItem,
)
from memos.memory.summary import stale_summaries
from memos.memory.textual import TextualMemoryItem
from memos.retrieval.request import RecallRequest

if TYPE_CHECKING:
    from memos.memory.indexer import Indexer
    from memos.retrieval.hybrid import HybridRetriever

DEFAULT_CUBE_ID = "default"  # of programs that name no cube
PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class CubeParts:
    """What the memories of a cube are read and written with."""

    store: MemoryStore
    indexer: Indexer
    retriever: HybridRetriever
    clock: Clock
    new_id: Callable[[], str]


class TextMemory:
    """The text memories of one cube, or those of some kinds. Thread-safe.

    With `kinds` it sees and changes these alone, and what is added comes to the first of them unless it
    names another of them as its `memory_type`.
    """

    def __init__(self, cube_id: str, parts: CubeParts, *, kinds: tuple[MemoryKind, ...] = ()) -> None:
        self.cube_id = cube_id
        self._parts = parts
        self._kinds = kinds

    def search(
        self, query: str, top_k: int = 10, *, user_id: str = "", relativity: float = 0.0
    ) -> list[TextualMemoryItem]:
        """Recall, best first, inside a handler without the turn of its message. Raises InvalidInput, StoreError."""
        recall = self._parts.retriever.search(
            RecallRequest(
                query=query,
                cube_ids=(self.cube_id,),
                user_id=user_id,
                top_k=top_k,
                relativity=relativity,
                kinds=self._kinds,
                exclude_turn_ids=context.turns_left_out(query),
            )
        )
        return [TextualMemoryItem.from_item(hit.item, relativity=hit.relativity) for hit in recall.hits]

    def add(
        self, memories: Sequence[str | Mapping[str, Any] | TextualMemoryItem], *, user_id: str = ""
    ) -> list[str]:
        """Store texts, `{memory, metadata?}` mappings or items; returns their ids once they can be recalled.

        user_id: whose they are, where an item does not say; default: the user of the current task.
        """
        if isinstance(memories, str):
            raise InvalidInput("memories must be a list: put the text in one")
        items = [self._item(one, user_id) for one in memories]
        if not items:
            return []
        self._parts.store.apply([AddItems(self._indexed(items))], cause=_cause())
        return [item.id for item in items]

    def update(self, memory_id: str, new: str | Mapping[str, Any] | TextualMemoryItem) -> TextualMemoryItem:
        """Replace a memory's text and, with an item or mapping, the metadata it names; gives the new form.

        Indexes and working memory follow, the journal keeps the old text. Raises ItemNotFound, ItemGone,
        VersionConflict (somebody wrote in between: try again).
        """
        old = self._stored(memory_id)
        given = _textual(new)
        text = check_text("memory", given.memory).strip()
        now = utc(self._parts.clock.now())
        changed = replace(old, memory=text, updated_at=now, **self._named(given))
        [indexed] = self._indexed([changed])
        stale = stale_summaries(self._parts.store, old.cube_id, [old.id])
        self._parts.store.apply([UpdateItem(indexed, old.version, "edited"), *stale], cause=_cause())
        return self.get(memory_id)

    def _named(self, given: TextualMemoryItem) -> dict[str, Any]:
        """The fields of an item that the given metadata name."""
        named = given.metadata.model_dump(exclude_unset=True)
        fields: dict[str, Any] = {
            name: named[name] for name in ("key", "background", "session_id", "confidence") if name in named
        }
        if "tags" in named:
            fields["tags"] = tuple(named["tags"])
        if "memory_type" in named:
            fields["kind"] = self._kind(named["memory_type"])
        if "happened_at" in named:
            fields["happened_at"] = _moment(named["happened_at"])
        if "info" in named:
            fields["extra"] = named["info"]
        return fields

    def _indexed(self, items: Sequence[MemoryItem]) -> tuple[IndexedItem, ...]:
        with self._parts.store.read(self.cube_id) as view:
            known = view.participants()
        speakers = known.union(*(item.participants for item in items))
        return tuple(self._parts.indexer.index(items, participants=speakers))

    def get(self, memory_id: str) -> TextualMemoryItem:
        """One memory of this cube. Raises ItemNotFound, ItemGone."""
        return TextualMemoryItem.from_item(self._stored(memory_id))

    def _stored(self, memory_id: str) -> MemoryItem:
        [item] = self._parts.store.get([memory_id])
        if item.cube_id != self.cube_id or (self._kinds and item.kind not in self._kinds):
            raise ItemNotFound(f"no memory {memory_id!r} in cube {self.cube_id!r}")
        return item

    def get_by_ids(self, memory_ids: Sequence[str]) -> list[TextualMemoryItem]:
        """Memories of this cube in the order asked for. Raises ItemNotFound, ItemGone."""
        return [self.get(memory_id) for memory_id in memory_ids]

    def get_all(self) -> list[TextualMemoryItem]:
        """All live memories, newest first."""
        found: list[TextualMemoryItem] = []
        cursor: str | None = None
        while True:  # ends: a cube holds no more than its capacities
            page = self._parts.store.find(
                ItemFilter(cube_ids=(self.cube_id,), kinds=self._kinds), limit=PAGE_SIZE, cursor=cursor
            )
            found += [TextualMemoryItem.from_item(item) for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found

    def get_working_memory(self) -> list[TextualMemoryItem]:
        """What stands in working memory, best first."""
        return [TextualMemoryItem.from_item(item) for item in self._parts.store.working(self.cube_id).items]

    def replace_working_memory(
        self, memories: Sequence[TextualMemoryItem | str], *, reason: str = "replaced"
    ) -> None:
        """Make `memories` (items or ids, best first) the whole working memory, in one transaction.

        Ids that are not live memories of this cube are left out, and so is what exceeds its capacity.
        """
        ids = dict.fromkeys(one if isinstance(one, str) else one.id for one in memories)
        now = utc(self._parts.clock.now())
        entries = tuple(
            WorkingEntry(item_id, score=1 - place / max(1, len(ids)), reason=reason, admitted_at=now)
            for place, item_id in enumerate(ids)
        )
        change = ReplaceWorking(self.cube_id, entries, expected_version=None, reason=reason)
        self._parts.store.apply([change], cause=_cause())

    def delete(self, memory_ids: Sequence[str]) -> None:
        """Delete memories of this cube everywhere. Raises ItemNotFound; then nothing was deleted."""
        if isinstance(memory_ids, str):
            raise InvalidInput("memory_ids must be a list: put the id in one")
        for memory_id in memory_ids:
            self._stored(memory_id)
        if memory_ids:
            change = SetStatus(tuple(memory_ids), ItemStatus.DELETED, "deleted by request")
            self._parts.store.apply([change], cause=_cause())

    def delete_all(self) -> int:
        """Delete every live memory that is seen here; returns how many there were."""
        ids = [item.id for item in self.get_all()]
        for start in range(0, len(ids), PAGE_SIZE):
            self.delete(ids[start : start + PAGE_SIZE])
        return len(ids)

    def _kind(self, memory_type: str) -> MemoryKind:
        """Where a memory is to live. Raises InvalidInput for a name that is none of the areas."""
        if memory_type not in set(MemoryKind):
            raise InvalidInput(f"memory_type={memory_type!r} is none of {', '.join(MemoryKind)}")
        wanted = MemoryKind(memory_type)
        return wanted if not self._kinds or wanted in self._kinds else self._kinds[0]

    def _item(self, given: str | Mapping[str, Any] | TextualMemoryItem, user_id: str) -> MemoryItem:
        """A new item of this cube; of an item's own metadata its user, session, key, tags … are kept."""
        one = _textual(given)
        about = one.metadata
        now = utc(self._parts.clock.now())
        return MemoryItem(
            id=self._parts.new_id(),
            cube_id=self.cube_id,
            user_id=_user(about.user_id or user_id),
            memory=check_text("memory", one.memory).strip(),
            kind=self._kind(about.memory_type),
            role=about.role,
            participants=tuple(about.participants),
            session_id=about.session_id,
            key=about.key,
            background=about.background,
            tags=tuple(about.tags),
            sources=(Source(type="document", message_id=self._parts.new_id()),),
            created_at=now,
            updated_at=now,
            happened_at=_moment(about.happened_at),
            extra=dict(about.info),
        )


class NaiveMemCube:
    """One memory container. What it does not have (preference and parametric areas) is None.

    `act_mem` describes what runtimes keep ready over the cube; None over a store that keeps no record of it.
    """

    para_mem: None = None
    pref_mem: None = None

    def __init__(
        self,
        cube_id: str = DEFAULT_CUBE_ID,
        *,
        store: MemoryStore,
        indexer: Indexer,
        retriever: HybridRetriever,
        clock: Clock | None = None,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self.cube_id = check_id("mem_cube_id", cube_id)
        parts = CubeParts(store, indexer, retriever, clock or SystemClock(), new_id)
        self.text_mem = TextMemory(cube_id, parts)
        self.act_mem = CubeCaches(cube_id, store) if isinstance(store, PrefixIndex) else None

    def __repr__(self) -> str:
        return f"NaiveMemCube({self.cube_id!r})"


def _textual(given: object) -> TextualMemoryItem:
    if isinstance(given, TextualMemoryItem):
        return given
    if isinstance(given, str):
        return TextualMemoryItem(id="", memory=given)
    try:
        return TextualMemoryItem.model_validate({"id": "", **given} if isinstance(given, Mapping) else given)
    except ValidationError as error:
        raise InvalidInput(f"not a text, item or {{memory, metadata}} mapping: {error}") from error


def _moment(text: str) -> datetime | None:
    return parse_moment(text, field="happened_at") if text else None


def _user(given: str) -> str:
    return check_id("user_id", given or context.user_id.get() or "default")


def _cause() -> Cause:
    return Cause(trace_id=context.current_trace_id(), user_id=context.user_id.get())
