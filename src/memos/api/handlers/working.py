"""WorkingHandler: what stands in working memory and why, and what each replacement brought and took.

The history is the journal's. Why a memory left is told by the web log of the same replacement where that is
still kept; else by the journal's own reason. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from memos.api import access
from memos.api.insight_models import (
    HeldPlace,
    WorkingChange,
    WorkingHistory,
    WorkingHistoryResponse,
    WorkingMove,
)
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.mem_scheduler.schemas.task_schemas import SCHEDULE_MEMORY_LOG
from memos.memory.item import ItemStatus, WorkingSet
from memos.memory.store import ItemFilter, JournalRow, MemoryStore

PAGE_MAX = 100
LOGS_OF_A_TRACE_MAX = 20
_KEPT = tuple(status for status in ItemStatus if status is not ItemStatus.DELETED)


class WorkingHandler:
    """Thread-safe."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def handle_history(
        self, cube_id: str, *, limit: int, before: int | None, known_seq: int | None
    ) -> WorkingHistoryResponse:
        """Places and history of a cube; one that is not there is empty. Raises AccessDenied, StoreError."""
        access.may_read(cubes=[check_id("mem_cube_id", cube_id)])
        seq = self._store.seq(cube_id)
        if known_seq is not None and known_seq == seq and before is None:
            return WorkingHistoryResponse(message="Nothing happened", data=self._answer(cube_id, seq))
        working = self._store.working(cube_id)
        rows = self._store.journal(cube_id=cube_id, item_id="", limit=limit, before=before)
        changes = [row for row in rows if row.op == "replace_working"]
        return WorkingHistoryResponse(
            message="Working memory retrieved successfully",
            data=self._answer(cube_id, seq, working, self._history(cube_id, changes)),
            next_before=rows[-1].n if len(rows) == limit else None,
        )

    def _answer(
        self,
        cube_id: str,
        seq: int,
        working: WorkingSet | None = None,
        history: Sequence[WorkingChange] = (),
    ) -> WorkingHistory:
        return WorkingHistory(
            cube_id=cube_id,
            seq=seq,
            unchanged=working is None,
            version=0 if working is None else working.version,
            capacity=self._store.capacities.working,
            places=[] if working is None else _places(working),
            history=list(history),
        )

    def _history(self, cube_id: str, rows: Sequence[JournalRow]) -> list[WorkingChange]:
        moves = [_moves(row) for row in rows]
        texts = self._texts(cube_id, (one for came, left in moves for one in (*came, *left)))
        changes = []
        for row, (came, left) in zip(rows, moves, strict=True):
            told = self._told(cube_id, row) if left else {}
            after: Mapping[str, Any] = row.after or {}
            changes.append(
                WorkingChange(
                    n=row.n,
                    at=row.at.isoformat(),
                    version=int(after.get("version", 0)),
                    reason=row.reason,
                    label=row.cause.label,
                    trace_id=row.cause.trace_id,
                    came=[
                        WorkingMove(memory_id=i, memory=texts.get(i), reason=why) for i, why in came.items()
                    ],
                    left=[
                        WorkingMove(memory_id=i, memory=texts.get(i), reason=told.get(i, row.reason))
                        for i in left
                    ],
                    kept=len(_entries(row.after)) - len(came),
                )
            )
        return changes

    def _texts(self, cube_id: str, item_ids: Iterable[str]) -> dict[str, str]:
        wanted = tuple(dict.fromkeys(item_ids))
        if not wanted:
            return {}
        found = self._store.find(
            ItemFilter(cube_ids=(cube_id,), ids=wanted, statuses=_KEPT), limit=len(wanted)
        )
        return {item.id: item.memory for item in found.items}

    def _told(self, cube_id: str, row: JournalRow) -> dict[str, str]:
        """Why each memory left, as the web log of the same trace says it."""
        if not row.cause.trace_id:
            return {}
        logs = self._store.web_logs(
            cube_id=cube_id,
            label=SCHEDULE_MEMORY_LOG,
            trace_id=row.cause.trace_id,
            limit=LOGS_OF_A_TRACE_MAX,
        )
        # The newest of them may be about another replacement: the one nearest in time tells of this one.
        nearest = sorted(logs, key=lambda one: abs((one[1].timestamp - row.at).total_seconds()), reverse=True)
        return {
            str(moved["ref_id"]): str(moved.get("reason", ""))
            for _, entry in nearest
            for moved in entry.memcube_log_content or ()
            if moved.get("type") == "removed"
        }


def _places(working: WorkingSet) -> list[HeldPlace]:
    return [
        HeldPlace(
            memory_id=item.id,
            memory=item.memory,
            memory_type=str(item.kind),
            user_id=item.user_id,
            score=round(entry.score, 6),
            reason=entry.reason,
            admitted_at=entry.admitted_at.isoformat(),
            use_count=item.use_count,
        )
        for entry, item in zip(working.entries, working.items, strict=True)
    ]


def _entries(state: Mapping[str, Any] | None) -> dict[str, str]:
    """Who stood there and why. An erased row has none."""
    return {str(one["id"]): str(one["reason"]) for one in (state or {}).get("entries", ())}


def _moves(row: JournalRow) -> tuple[dict[str, str], list[str]]:
    """What came in, each with its reason, and what left."""
    before, after = _entries(row.before), _entries(row.after)
    came = {one: why for one, why in after.items() if one not in before}
    return came, [one for one in before if one not in after]
