"""Web logs of what becomes of stored memories: merged, archived, moved to another kind.

Builders beside those of `web_log`, under the same rules: the cube's real sizes, totals and changes apart.
They are built before the change is committed (and committed with it), so they are told the sizes that
follow from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import (
    ADD_TASK_LABEL,
    ARCHIVE_MEMORY_LOG,
    MERGE_MEMORY_LOG,
    NOT_APPLICABLE_TYPE,
    SCHEDULE_MEMORY_LOG,
)
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import (
    CubeFacts,
    LogSink,
    area_of,
    item_metadata,
    log_entry,
    shortened,
    total_of,
)
from memos.memory.convert import Conversion
from memos.memory.item import CubeSizes, MemoryItem, MemoryKind
from memos.memory.merge import Cluster
from memos.memory.store import Cause, MemoryStore

_FIELD_OF_KIND = {
    MemoryKind.LONG_TERM: "long_term",
    MemoryKind.USER: "user",
    MemoryKind.PREFERENCE: "preference",
}


def after(
    facts: CubeFacts,
    *,
    gone: Sequence[MemoryItem] = (),
    come: Sequence[MemoryItem] = (),
    working: int | None = None,
    archived: bool = True,
) -> CubeFacts:
    """How full the cube is once live items are `gone` (`archived`, or moved elsewhere) or have `come`."""
    counts = {field: _count(facts.sizes, field) for field in _FIELD_OF_KIND.values()}
    for sign, items in ((-1, gone), (1, come)):
        for item in items:
            field = _FIELD_OF_KIND.get(item.kind)
            if field is not None:
                counts[field] = max(0, counts[field] + sign)
    sizes = replace(
        facts.sizes,
        **counts,
        archived=facts.sizes.archived + (len(gone) if archived else 0),
        working=facts.sizes.working if working is None else working,
    )
    return CubeFacts(sizes, facts.capacities)


def _count(sizes: CubeSizes, field: str) -> int:
    return {"long_term": sizes.long_term, "user": sizes.user, "preference": sizes.preference}[field]


def merged_log(message: ScheduleMessageItem, cluster: Cluster, *, facts: CubeFacts) -> ScheduleLogForWebItem:
    """`mergeMemory`: several memories became one. `facts` are those of after it."""
    kept = cluster.keep
    return log_entry(
        message,
        MERGE_MEMORY_LOG,
        f"{len(cluster.absorb) + 1} memories merged: {shortened(kept.memory)}",
        facts,
        from_memory_type=area_of(cluster.absorb),
        to_memory_type=str(kept.kind),
        memcube_log_content=[
            *({"type": "merged", "content": one.memory, "ref_id": one.id} for one in cluster.absorb),
            {"type": "postMerge", "content": kept.memory, "ref_id": kept.id},
        ],
        metadata=[item_metadata(one) for one in (*cluster.absorb, kept)],
        memory_len=total_of([kept], facts),
        memory_delta=-sum(one.kind is kept.kind for one in cluster.absorb),
        status="completed",
    )


def archived_log(
    message: ScheduleMessageItem, archived: Sequence[tuple[MemoryItem, str]], *, facts: CubeFacts
) -> ScheduleLogForWebItem:
    """`archiveMemory`: these items are kept and no longer recalled (item, why). `facts` are those of after it."""
    items = [item for item, _ in archived]
    return log_entry(
        message,
        ARCHIVE_MEMORY_LOG,
        f"{len(items)} memories archived",
        facts,
        from_memory_type=area_of(items),
        to_memory_type=NOT_APPLICABLE_TYPE,
        memcube_log_content=[
            {"type": "archived", "content": item.memory, "ref_id": item.id, "reason": why}
            for item, why in archived
        ],
        metadata=[item_metadata(item) for item in items],
        memory_len=total_of(items, facts),
        memory_delta=-len(items),
        status="completed",
    )


def tell_capacity(
    store: MemoryStore, item_ids: Sequence[str], *, cause: Cause, sink: LogSink | None = None
) -> None:
    """Log what capacity pushed out of recall, one `archiveMemory` for each cube and kind.

    After the commit, because the store decides in its transaction what goes. The journal has every row in
    any case; a crash in between costs this log alone.
    """
    if not item_ids:
        return
    groups: dict[tuple[str, MemoryKind], list[MemoryItem]] = {}
    for item in store.get(item_ids):
        groups.setdefault((item.cube_id, item.kind), []).append(item)
    logs = []
    for (cube_id, _), items in groups.items():
        message = ScheduleMessageItem(
            user_id=cause.user_id or items[0].user_id,
            mem_cube_id=cube_id,
            label=cause.label or ADD_TASK_LABEL,
            content="capacity",
            task_id=cause.task_id or None,
            trace_id=cause.trace_id,
        )
        facts = CubeFacts(store.sizes(cube_id), store.capacities)
        logs.append(archived_log(message, [(item, "capacity") for item in items], facts=facts))
    store.apply((), logs=logs, cause=cause)
    if sink is not None:
        sink.emit(logs)


def moved_log(
    message: ScheduleMessageItem, moves: Sequence[Conversion], *, facts: CubeFacts
) -> ScheduleLogForWebItem:
    """`scheduleMemory`: items moved from one kind to another. `moves` share both; `facts` are of after it."""
    first = moves[0]
    return log_entry(
        message,
        SCHEDULE_MEMORY_LOG,
        f"{len(moves)} memories moved from {first.from_kind} to {first.to_kind}",
        facts,
        from_memory_type=str(first.from_kind),
        to_memory_type=str(first.to_kind),
        memcube_log_content=[
            {"type": "moved", "content": move.item.memory, "ref_id": move.item.id, "reason": move.reason}
            for move in moves
        ],
        metadata=[item_metadata(move.item) for move in moves],
        memory_len=total_of([move.item for move in moves], facts),
        memory_delta=len(moves),
        status="completed",
    )
