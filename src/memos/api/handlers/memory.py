"""MemoryHandler: get, list, edit and delete stored memories. Everything goes through the store's contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from memos import context
from memos.api.handlers.base_handler import BaseHandler, HandlerDependencies
from memos.api.product_models import (
    DeleteMemoryRequest,
    DeleteMemoryResponse,
    GetMemoryRequest,
    GetMemoryResponse,
)
from memos.api.shapes import buckets, memory_shape
from memos.clock import Clock, utc
from memos.errors import InvalidInput, ItemGone, ItemNotFound
from memos.mem_scheduler.schemas.message_schemas import check_text
from memos.memory.document_items import DOCUMENT_ROLE, DOCUMENT_TAG
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind
from memos.memory.store import Cause, ItemFilter, MemoryStore, SetStatus, UpdateItem
from memos.memory.summary import stale_summaries
from memos.retrieval.filters import ParsedFilter, parse_filter

if TYPE_CHECKING:
    from memos.memory.indexer import Indexer

PAGE_SIZE = 100
SCAN_SIZE = 500
_KEPT = tuple(status for status in ItemStatus if status is not ItemStatus.DELETED)


class MemoryHandler(BaseHandler):
    """Single memories and lists of them."""

    def __init__(self, dependencies: HandlerDependencies, *, indexer: Indexer, clock: Clock) -> None:
        super().__init__(dependencies)
        self._validate_dependencies("graph_db")
        self._store: MemoryStore = dependencies.graph_db
        self._indexer = indexer
        self._clock = clock

    def get(self, item_ids: Sequence[str]) -> list[MemoryItem]:
        """Items by id, in order. Raises ItemNotFound, ItemGone."""
        return self._store.get(item_ids)

    def edit(self, item_id: str, text: str) -> MemoryItem:
        """Replace the text of a memory; indexes and working memory follow. Raises VersionConflict."""
        check_text("text", text)
        [item] = self._store.get([item_id])
        changed = replace(item, memory=text.strip(), updated_at=utc(self._clock.now()))
        with self._store.read(item.cube_id) as view:
            participants = view.participants()
        [indexed] = self._indexer.index([changed], participants=participants)
        edited = UpdateItem(indexed, item.version, "edited")
        stale = stale_summaries(self._store, item.cube_id, [item.id])
        self._store.apply([edited, *stale], cause=_cause(item.user_id))
        [stored] = self._store.get([item_id])
        return stored

    def delete(self, item_ids: Sequence[str], *, cube_ids: Sequence[str] = ()) -> int:
        """Delete memories everywhere in one step; returns how many lived.

        An unknown id, or one outside `cube_ids` when those are given, raises ItemNotFound and nothing is
        deleted. Deleting again is no error.
        """
        living: list[str] = []
        for item_id in dict.fromkeys(item_ids):
            try:
                [item] = self._store.get([item_id])
            except ItemGone:
                continue
            if cube_ids and item.cube_id not in cube_ids:
                raise ItemNotFound(
                    f"no memory {item_id!r} in cube {', '.join(cube_ids)}; nothing was deleted"
                )
            living.append(item_id)
        if living:
            self._store.apply(
                [SetStatus(tuple(living), ItemStatus.DELETED, "deleted by request")], cause=_cause("")
            )
        return len(living)

    def delete_documents(self, file_ids: Sequence[str], *, cube_ids: Sequence[str] = ()) -> int:
        """Delete documents, every version, with all that was read from them, in one step.

        Returns how many memories were theirs. An id without a document raises ItemNotFound; nothing is
        deleted then.
        """
        ids: list[str] = []
        for file_id in dict.fromkeys(file_ids):
            wanted = ItemFilter(cube_ids=tuple(cube_ids), session_ids=(file_id,), statuses=_KEPT, raw=True)
            parsed = ParsedFilter(wanted, lambda item: item.role == DOCUMENT_ROLE)
            found = [item.id for item in self._matching(parsed)]
            if not found:
                raise ItemNotFound(f"there is no document {file_id!r}; nothing was deleted")
            ids += found
        self._store.apply(
            [SetStatus(tuple(ids), ItemStatus.DELETED, "document deleted by request")], cause=_cause("")
        )
        return len(ids)

    def documents(self, *, cube_id: str = "", user_id: str = "") -> list[MemoryItem]:
        """The first chunk of each document, newest first; `document_of` tells the rest."""
        wanted = ItemFilter(
            cube_ids=(cube_id,) if cube_id else (),
            user_ids=(user_id,) if user_id else (),
            tags=(DOCUMENT_TAG,),
            raw=True,
        )
        return self._matching(ParsedFilter(wanted, lambda item: item.role == DOCUMENT_ROLE))

    def delete_matching(self, parsed: ParsedFilter) -> int:
        """Delete everything that passes; returns how many. Raises InvalidInput for a filter without bounds."""
        if parsed.wanted == ItemFilter(statuses=parsed.wanted.statuses):
            raise InvalidInput("this would reach the memories of every user; name a user or a cube")
        ids = [item.id for item in self._matching(parsed)]
        for start in range(0, len(ids), SCAN_SIZE):
            change = SetStatus(tuple(ids[start : start + SCAN_SIZE]), ItemStatus.DELETED, "deleted by filter")
            self._store.apply([change], cause=_cause(""))
        return len(ids)

    # -- the documented routes --------------------------------------------------------------------------

    def handle_get_memory(self, item_id: str) -> GetMemoryResponse:
        """One memory; an unknown or deleted id is an answer with data null that says which."""
        try:
            [item] = self._store.get([item_id])
        except ItemGone:
            return GetMemoryResponse(message=f"memory {item_id!r} was deleted", data=None)
        except ItemNotFound:
            return GetMemoryResponse(message=f"no memory has the id {item_id!r}", data=None)
        return GetMemoryResponse(message="Memory retrieved successfully", data=memory_shape(item))

    def handle_get_memories(self, asked: GetMemoryRequest) -> GetMemoryResponse:
        """The memories of a cube, newest first, in the documented buckets."""
        parsed = parse_filter(asked.filter)
        wanted = replace(parsed.wanted, cube_ids=(asked.mem_cube_id,))
        if asked.user_id:
            wanted = replace(wanted, user_ids=(asked.user_id,))
        text = self._bucket(asked, replace(parsed, wanted=replace(wanted, kinds=_TEXT_KINDS)))
        preferences = self._bucket(asked, replace(parsed, wanted=replace(wanted, kinds=_PREFERENCE_KINDS)))
        return GetMemoryResponse(
            message="Memories retrieved successfully",
            data=buckets(text_mem=[text], pref_mem=[preferences] if asked.include_preference else []),
        )

    def handle_delete_memories(self, asked: DeleteMemoryRequest) -> DeleteMemoryResponse:
        """Delete by id or by match; answers success only after it is done. Raises ItemNotFound."""
        if asked.file_ids is not None:
            deleted = self.delete_documents(asked.file_ids, cube_ids=tuple(asked.writable_cube_ids or ()))
        elif asked.memory_ids is not None:
            deleted = self.delete(asked.memory_ids, cube_ids=tuple(asked.writable_cube_ids or ()))
        else:
            if not (asked.writable_cube_ids or asked.user_id):
                raise InvalidInput(
                    "name writable_cube_ids or user_id: a session or filter alone spans every user"
                )
            parsed = parse_filter(asked.filter)
            wanted = replace(parsed.wanted, statuses=_KEPT, cube_ids=tuple(asked.writable_cube_ids or ()))
            if asked.user_id:
                wanted = replace(wanted, user_ids=(asked.user_id,))
            if asked.session_id:
                wanted = replace(wanted, session_ids=(asked.session_id,))
            deleted = self.delete_matching(replace(parsed, wanted=wanted))
        return DeleteMemoryResponse(
            message=f"{deleted} memories deleted", data={"status": "success", "deleted": deleted}
        )

    def _bucket(self, asked: GetMemoryRequest, parsed: ParsedFilter) -> dict[str, object]:
        size = asked.page_size or PAGE_SIZE
        first = ((asked.page or 1) - 1) * size
        if parsed.predicate is None and first == 0:
            page = self._store.find(parsed.wanted, limit=size)
            items, total = list(page.items), page.total
        else:
            matching = self._matching(parsed)
            items, total = matching[first : first + size], len(matching)
        memories = [memory_shape(item) for item in items]
        return {"cube_id": asked.mem_cube_id, "memories": memories, "total_nodes": total}

    def _matching(self, parsed: ParsedFilter) -> list[MemoryItem]:
        """Everything that passes, newest first. Ends: a cube holds no more than its capacities."""
        found: list[MemoryItem] = []
        cursor: str | None = None
        while True:
            page = self._store.find(parsed.wanted, limit=SCAN_SIZE, cursor=cursor)
            found += [item for item in page.items if parsed.predicate is None or parsed.predicate(item)]
            cursor = page.next_cursor
            if cursor is None:
                return found


_TEXT_KINDS = (MemoryKind.LONG_TERM, MemoryKind.USER, MemoryKind.WORKING)
_PREFERENCE_KINDS = (MemoryKind.PREFERENCE,)


def _cause(user_id: str) -> Cause:
    return Cause(trace_id=context.current_trace_id(), user_id=user_id or context.user_id.get())
