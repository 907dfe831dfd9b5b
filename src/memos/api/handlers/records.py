"""RecordHandler: a whole cube set aside under a record id, brought back, or deleted for good.

Setting aside archives the live memories and remembers which they were, in one transaction: they are kept,
readable by id, and recalled no more. Recovering brings exactly those back that are still archived. A hard
delete takes what stands under the record id, or, where nothing does, sets aside and deletes in one go.
"""

from __future__ import annotations

from collections.abc import Sequence

from memos import context
from memos.api import access
from memos.api.cube_models import (
    DeleteMemoryByRecordIdRequest,
    Moved,
    RecordResponse,
    RecoverMemoryByRecordIdRequest,
)
from memos.errors import ItemGone, ItemNotFound
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.store import Cause, Change, ItemFilter, MemoryStore, PutState, SetStatus

SCAN_SIZE = 500
_STATE = "deleted_record:"
_LIVE = (ItemStatus.ACTIVATED, ItemStatus.RESOLVING)


class RecordHandler:
    """Sets aside, recovers and deletes. Thread-safe as far as the store's transactions are."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def handle_delete(self, asked: DeleteMemoryByRecordIdRequest) -> RecordResponse:
        """Set the cube's memories aside, or delete what was set aside. Raises AccessDenied."""
        cube_id = asked.mem_cube_id
        access.may_write(cubes=[cube_id])
        name = _STATE + asked.record_id
        before = self._ids(cube_id, name)
        if asked.hard_delete and before:
            gone = [item.id for item in self._kept(before)]
            self._move(cube_id, gone, ItemStatus.DELETED, f"deleted: record {asked.record_id}", name, [])
            return _answer(f"{len(gone)} memories deleted", len(gone))
        live = [item.id for item in self._live(cube_id)]
        if asked.hard_delete:
            self._move(cube_id, live, ItemStatus.DELETED, f"deleted: record {asked.record_id}", name, [])
            return _answer(f"{len(live)} memories deleted", len(live))
        reason = f"set aside: record {asked.record_id}"
        self._move(cube_id, live, ItemStatus.ARCHIVED, reason, name, list(dict.fromkeys([*before, *live])))
        return _answer(f"{len(live)} memories set aside", len(live))

    def handle_recover(self, asked: RecoverMemoryByRecordIdRequest) -> RecordResponse:
        """Bring back what was set aside under the record id. Raises AccessDenied."""
        cube_id = asked.mem_cube_id
        access.may_write(cubes=[cube_id])
        name = _STATE + asked.delete_record_id
        back = [
            item.id for item in self._kept(self._ids(cube_id, name)) if item.status is ItemStatus.ARCHIVED
        ]
        self._move(
            cube_id, back, ItemStatus.ACTIVATED, f"recovered: record {asked.delete_record_id}", name, []
        )
        return _answer(f"{len(back)} memories recovered", len(back))

    def _move(
        self,
        cube_id: str,
        item_ids: Sequence[str],
        status: ItemStatus,
        reason: str,
        name: str,
        record: Sequence[str],
    ) -> None:
        if not item_ids and not self._ids(cube_id, name):
            return  # nothing changes, and an unknown cube is not made by asking
        changes: list[Change] = [PutState(cube_id, name, {"ids": list(record)})]
        if item_ids:
            changes.insert(0, SetStatus(tuple(item_ids), status, reason))
        self._store.apply(changes, cause=Cause(trace_id=context.current_trace_id()))

    def _ids(self, cube_id: str, name: str) -> list[str]:
        kept = self._store.state(cube_id, name) or {}
        return [str(one) for one in kept.get("ids", ())]

    def _kept(self, item_ids: Sequence[str]) -> list[MemoryItem]:
        """Those of the items that were not deleted meanwhile, and did not become part of another one."""
        found = []
        for item_id in item_ids:
            try:
                [item] = self._store.get([item_id])
            except (ItemGone, ItemNotFound):
                continue
            if item.id == item_id:
                found.append(item)
        return found

    def _live(self, cube_id: str) -> list[MemoryItem]:
        found: list[MemoryItem] = []
        cursor: str | None = None
        while True:
            wanted = ItemFilter(cube_ids=(cube_id,), statuses=_LIVE)
            page = self._store.find(wanted, limit=SCAN_SIZE, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found


def _answer(message: str, count: int) -> RecordResponse:
    return RecordResponse(message=message, data=Moved(status="success", count=count))
