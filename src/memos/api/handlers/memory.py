"""MemoryHandler: get, list, edit and delete stored memories. Everything goes through the store's contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from memos import context
from memos.api import access
from memos.api.handlers.base_handler import BaseHandler, HandlerDependencies
from memos.api.product_models import (
    DeleteMemoryRequest,
    DeleteMemoryResponse,
    GetMemoryDashboardRequest,
    GetMemoryRequest,
    GetMemoryResponse,
)
from memos.api.shapes import buckets, memory_shape
from memos.api.without_effect import warnings_of
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
MISSING_SHOWN = 20  # ids named in a message
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
        """Items by id, in order. Raises ItemNotFound (also of what who asks may not see), ItemGone."""
        items = self._store.get(item_ids)
        for item_id, item in zip(item_ids, items, strict=True):
            if not access.current().has_cube(item.cube_id):
                raise ItemNotFound(f"no item {item_id!r} was ever stored here")
        return items

    def edit(self, item_id: str, text: str) -> MemoryItem:
        """Replace the text of a memory; indexes and working memory follow. Raises VersionConflict."""
        check_text("text", text)
        [item] = self.get([item_id])
        access.may_write(cubes=[item.cube_id])
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
        deleted. Deleting again is no error. Raises AccessDenied.
        """
        access.may_write(cubes=cube_ids)
        living: list[str] = []
        for item_id in dict.fromkeys(item_ids):
            try:
                [item] = self.get([item_id])
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
        deleted then. Raises AccessDenied; without cubes only those that who asks may write are looked at.
        """
        access.may_write(cubes=cube_ids)
        cubes = tuple(cube_ids) or access.current().scope()
        ids: list[str] = []
        for file_id in dict.fromkeys(file_ids):
            wanted = ItemFilter(cube_ids=cubes, session_ids=(file_id,), statuses=_KEPT, raw=True)
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
            [item] = self.get([item_id])
        except ItemGone:
            return GetMemoryResponse(message=f"memory {item_id!r} was deleted", data=None)
        except ItemNotFound:
            return GetMemoryResponse(message=f"no memory has the id {item_id!r}", data=None)
        return GetMemoryResponse(message="Memory retrieved successfully", data=memory_shape(item))

    def handle_get_memory_by_ids(self, item_ids: Sequence[str]) -> GetMemoryResponse:
        """The memories of these ids that are there, in order; the message says which are not."""
        memories, missing = [], []
        for item_id in item_ids:
            try:
                [item] = self.get([item_id])
            except (ItemGone, ItemNotFound):
                missing.append(item_id)
            else:
                memories.append(memory_shape(item))
        message = "Memories retrieved successfully"
        if missing:
            message += f"; deleted or never stored: {', '.join(missing[:MISSING_SHOWN])}"
            message += ", …" if len(missing) > MISSING_SHOWN else ""
        return GetMemoryResponse(message=message, data={"memories": memories})

    def handle_get_memories(self, asked: GetMemoryRequest) -> GetMemoryResponse:
        """The memories of a cube, newest first, in the documented buckets. Raises AccessDenied."""
        return self._listing(asked, [asked.mem_cube_id])

    def handle_get_memories_dashboard(self, asked: GetMemoryDashboardRequest) -> GetMemoryResponse:
        """The same over the named cube, or every cube in which the user has memories, one bucket each.

        Without a cube and a user it is over all cubes, for admins. Raises AccessDenied.
        """
        if asked.mem_cube_id:
            return self._listing(asked, [asked.mem_cube_id])
        if not asked.user_id:
            access.must_be_admin("a listing of all users")
        cubes = [one for one in self._store.cubes(asked.user_id) if access.current().has_cube(one)]
        return self._listing(asked, cubes)

    def _listing(self, asked: GetMemoryRequest, cubes: Sequence[str]) -> GetMemoryResponse:
        access.may_read(users=[asked.user_id] if asked.user_id else [], cubes=cubes)
        parsed = parse_filter(asked.filter)
        found: dict[str, list[dict[str, object]]] = {"text_mem": [], "pref_mem": []}
        for cube_id in cubes:
            wanted = replace(parsed.wanted, cube_ids=(cube_id,))
            if asked.user_id:
                wanted = replace(wanted, user_ids=(asked.user_id,))
            for name, kinds in (("text_mem", _TEXT_KINDS), ("pref_mem", _PREFERENCE_KINDS)):
                if name == "text_mem" or asked.include_preference:
                    of_kinds = replace(parsed, wanted=replace(wanted, kinds=kinds))
                    found[name].append(self._bucket(asked, cube_id, of_kinds))
        return GetMemoryResponse(
            message="Memories retrieved successfully", data=buckets(**found), warnings=warnings_of(asked)
        )

    def handle_delete_memories(self, asked: DeleteMemoryRequest) -> DeleteMemoryResponse:
        """Delete by id or by match; answers success only after it is done.

        Raises AccessDenied, InvalidInput, ItemNotFound.
        """
        access.may_write(users=[asked.user_id] if asked.user_id else [], cubes=asked.writable_cube_ids or ())
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
            cubes = tuple(asked.writable_cube_ids or access.current().scope())
            wanted = replace(parsed.wanted, statuses=_KEPT, cube_ids=cubes)
            if asked.user_id:
                wanted = replace(wanted, user_ids=(asked.user_id,))
            if asked.session_id:
                wanted = replace(wanted, session_ids=(asked.session_id,))
            deleted = self.delete_matching(replace(parsed, wanted=wanted))
        return DeleteMemoryResponse(
            message=f"{deleted} memories deleted", data={"status": "success", "deleted": deleted}
        )

    def _bucket(self, asked: GetMemoryRequest, cube_id: str, parsed: ParsedFilter) -> dict[str, object]:
        if asked.page is None and asked.page_size is None:
            everything = [memory_shape(item) for item in self._matching(parsed)]
            return {"cube_id": cube_id, "memories": everything, "total_nodes": len(everything)}
        size = asked.page_size or PAGE_SIZE
        first = ((asked.page or 1) - 1) * size
        if parsed.predicate is None and first == 0:
            page = self._store.find(parsed.wanted, limit=size)
            items, total = list(page.items), page.total
        else:
            matching = self._matching(parsed)
            items, total = matching[first : first + size], len(matching)
        memories = [memory_shape(item) for item in items]
        return {"cube_id": cube_id, "memories": memories, "total_nodes": total}

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
