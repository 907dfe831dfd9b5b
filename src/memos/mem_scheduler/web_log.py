"""Web logs: what the scheduler tells people about memory, one builder per category of event.

A `LogSink` takes logs without ever blocking and counts what it must drop; the durable copy of a log is
the row that the store commits together with the change it tells of. Builders fill in the cube's real
sizes and capacities, and keep totals (`memory_len`) and changes (`memory_delta`) apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import (
    ACTIVATION_MEMORY_TYPE,
    ADD_MEMORY_LOG,
    ADD_MESSAGE_LOG,
    KNOWLEDGE_BASE_UPDATE_LOG,
    LONG_TERM_MEMORY_TYPE,
    MODEL_FAULT_LOG,
    NOT_APPLICABLE_TYPE,
    SCHEDULE_MEMORY_LOG,
    TASK_STATUS_LOG,
    TEXT_MEMORY_TYPE,
    UPDATE_MEMORY_LOG,
    USER_INPUT_TYPE,
    WORKING_MEMORY_TYPE,
    TaskState,
)
from memos.mem_scheduler.schemas.web_log_schemas import (
    DEFAULT_MEMORY_CAPACITIES,
    DEFAULT_MEMORY_SIZES,
    MemoryCapacities,
    MemorySizes,
    ScheduleLogForWebItem,
)
from memos.memory.item import Capacities, CubeSizes, MemoryItem, MemoryKind, WorkingEntry
from memos.models.ask import Answer

LOG_TEXT_CHARS_MAX = 200


class LogSink(Protocol):
    """Where web logs go besides the store."""

    def emit(self, logs: Sequence[ScheduleLogForWebItem]) -> None:
        """Take the logs. Never blocks and never raises; what does not fit is dropped and counted."""
        ...

    def drain(self, limit: int | None = None) -> list[ScheduleLogForWebItem]:
        """Take out up to `limit` buffered logs, oldest first; a sink without a buffer gives none."""
        ...


@dataclass(frozen=True, slots=True)
class CubeFacts:
    """How full a cube is: the figures every web log carries."""

    sizes: CubeSizes
    capacities: Capacities

    def with_working(self, working: int, *, moved_out: int = 0) -> CubeFacts:
        """The same cube with `working` places taken, after `moved_out` items became long-term ones."""
        sizes = replace(self.sizes, working=working, long_term=self.sizes.long_term + moved_out)
        return replace(self, sizes=sizes)

    def memory_sizes(self) -> MemorySizes:
        return MemorySizes(
            **{
                **DEFAULT_MEMORY_SIZES,
                "long_term_memory_size": self.sizes.long_term,
                "user_memory_size": self.sizes.user,
                "working_memory_size": self.sizes.working,
            }
        )

    def memory_capacities(self) -> MemoryCapacities:
        return MemoryCapacities(
            **{
                **DEFAULT_MEMORY_CAPACITIES,
                "long_term_memory_capacity": self.capacities.long_term,
                "user_memory_capacity": self.capacities.user,
                "working_memory_capacity": self.capacities.working,
            }
        )


def shortened(text: str) -> str:
    """`text` on one line of bounded length."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LOG_TEXT_CHARS_MAX else flat[: LOG_TEXT_CHARS_MAX - 1] + "…"


def item_metadata(item: MemoryItem) -> dict[str, Any]:
    """What a web log tells of an item besides its text."""
    return {
        "id": item.id,
        "memory_type": str(item.kind),
        "key": item.key,
        "status": str(item.status),
        "confidence": item.confidence,
        "tags": list(item.tags),
        "sources": [
            {"type": source.type, "role": source.role, "message_id": source.message_id, "name": source.name}
            for source in item.sources
        ],
        "created_at": item.created_at.isoformat(),
        "updated_at": item.updated_at.isoformat(),
        "memory_time": (item.happened_at or item.updated_at).isoformat(),
        # Why reading made nothing of it, where it did not.
        **({"reading": str(item.extra["reading"])} if "reading" in item.extra else {}),
    }


def log_entry(
    message: ScheduleMessageItem, category: str, text: str, facts: CubeFacts, **fields: Any
) -> ScheduleLogForWebItem:
    """A log of `category` about the cube of `message`: what all builders begin with."""
    return ScheduleLogForWebItem(
        task_id=message.task_id,
        user_id=message.user_id,
        mem_cube_id=message.mem_cube_id,
        memcube_name=message.mem_cube_id,
        label=category,
        log_content=text,
        api_path=message.api_path,
        trace_id=message.trace_id,
        current_memory_sizes=facts.memory_sizes(),
        memory_capacities=facts.memory_capacities(),
        **fields,
    )


def message_log(message: ScheduleMessageItem, *, role: str, facts: CubeFacts) -> ScheduleLogForWebItem:
    """`addMessage`: the user (or the assistant) said something."""
    return log_entry(
        message,
        ADD_MESSAGE_LOG,
        f"[{role.capitalize()}] {shortened(message.content)}",
        facts,
        from_memory_type=USER_INPUT_TYPE,
        to_memory_type=NOT_APPLICABLE_TYPE,
        memcube_log_content=[
            {
                "content": f"[{role.capitalize()}] {message.content}",
                "ref_id": message.item_id,
                "role": role,
            }
        ],
        metadata=[],
        memory_len=1,
        memory_delta=0,
        chat_history=message.chat_history,
    )


def added_log(
    message: ScheduleMessageItem, items: Sequence[MemoryItem], *, facts: CubeFacts
) -> ScheduleLogForWebItem:
    """`addMemory`: these items were stored."""
    return log_entry(
        message,
        ADD_MEMORY_LOG,
        f"{len(items)} memories added",
        facts,
        from_memory_type=USER_INPUT_TYPE,
        to_memory_type=area_of(items),
        memcube_log_content=[
            {"content": f"{item.key}: {item.memory}" if item.key else item.memory, "ref_id": item.id}
            for item in items
        ],
        metadata=[item_metadata(item) for item in items],
        memory_len=total_of(items, facts),
        memory_delta=len(items),
    )


def updated_log(
    message: ScheduleMessageItem,
    changed: Sequence[tuple[MemoryItem, str]],
    *,
    facts: CubeFacts,
) -> ScheduleLogForWebItem:
    """`updateMemory`: these items took the place of an earlier text (item, earlier text)."""
    items = [item for item, _ in changed]
    return log_entry(
        message,
        UPDATE_MEMORY_LOG,
        f"{len(items)} memories updated",
        facts,
        from_memory_type=area_of(items),
        to_memory_type=area_of(items),
        memcube_log_content=[
            {"content": item.memory, "original_content": before, "ref_id": item.id}
            for item, before in changed
        ],
        metadata=[item_metadata(item) for item in items],
        memory_len=total_of(items, facts),
        memory_delta=0,
    )


def knowledge_base_log(
    message: ScheduleMessageItem,
    added: Sequence[MemoryItem],
    changed: Sequence[tuple[MemoryItem, str]],
    *,
    trigger: str,
    facts: CubeFacts,
) -> ScheduleLogForWebItem:
    """`knowledgeBaseUpdate`: one log for everything an add or a correction did."""
    rows = [(item, "ADD", "") for item in added] + [(item, "UPDATE", before) for item, before in changed]
    items = [item for item, _, _ in rows]
    documents = [name for item in items for name in (source.name for source in item.sources) if name]
    return log_entry(
        message,
        KNOWLEDGE_BASE_UPDATE_LOG,
        f"Knowledge base updated: {len(added)} added, {len(changed)} updated",
        facts,
        from_memory_type=USER_INPUT_TYPE,
        to_memory_type=area_of(items),
        memcube_log_content=[
            {
                "log_source": "KNOWLEDGE_BASE_LOG",
                "trigger_source": trigger,
                "operation": operation,
                "memory_id": item.id,
                "content": item.memory,
                "original_content": before or None,
                "source_doc_id": next((source.name for source in item.sources if source.name), None),
            }
            for item, operation, before in rows
        ],
        metadata=[item_metadata(item) for item in items],
        memory_len=total_of(items, facts),
        memory_delta=len(added),
        source_doc_id=documents[0] if documents else None,
    )


def working_log(
    message: ScheduleMessageItem,
    *,
    added: Sequence[tuple[WorkingEntry, MemoryItem]],
    kept: Sequence[tuple[WorkingEntry, MemoryItem]],
    removed: Sequence[tuple[MemoryItem, str]],
    moves: Mapping[str, tuple[str, str]],
    reason: str,
    facts: CubeFacts,
) -> ScheduleLogForWebItem:
    """`scheduleMemory`: the working set was replaced. `removed` holds (item, why it left), `moves` from
    which memory type to which each item went."""

    def types(item: MemoryItem) -> dict[str, str]:
        move = moves.get(item.id)
        return {} if move is None else {"from_memory_type": move[0], "to_memory_type": move[1]}

    def row(change: str, entry: WorkingEntry, item: MemoryItem) -> dict[str, Any]:
        return {
            "type": change,
            "content": item.memory,
            "ref_id": item.id,
            "score": round(entry.score, 4),
            "reason": entry.reason,
            **types(item),
        }

    total = len(added) + len(kept)
    moved_out = sum(item.kind is MemoryKind.WORKING for item, _ in removed)
    return log_entry(
        message,
        SCHEDULE_MEMORY_LOG,
        f"Working memory: {len(added)} added, {len(kept)} kept, {len(removed)} removed ({shortened(reason)})",
        facts.with_working(total, moved_out=moved_out),
        from_memory_type=TEXT_MEMORY_TYPE,
        to_memory_type=WORKING_MEMORY_TYPE,
        memcube_log_content=[
            *(row("added", entry, item) for entry, item in added),
            *(row("kept", entry, item) for entry, item in kept),
            *(
                {
                    "type": "removed",
                    "content": item.memory,
                    "ref_id": item.id,
                    "reason": why,
                    **types(item),
                }
                for item, why in removed
            ),
        ],
        metadata=[item_metadata(item) for _, item in (*added, *kept)],
        memory_len=total,
        memory_delta=len(added) - len(removed),
        status="completed",
    )


def unchanged_log(
    message: ScheduleMessageItem, *, size: int, reason: str, facts: CubeFacts
) -> ScheduleLogForWebItem:
    """`scheduleMemory`: nothing was recalled because the working set covers the query."""
    return log_entry(
        message,
        SCHEDULE_MEMORY_LOG,
        f"Working memory unchanged: {shortened(reason)}",
        facts,
        from_memory_type=TEXT_MEMORY_TYPE,
        to_memory_type=WORKING_MEMORY_TYPE,
        memcube_log_content=[],
        metadata=[],
        memory_len=size,
        memory_delta=0,
        status="completed",
    )


def activation_log(
    message: ScheduleMessageItem,
    items: Sequence[MemoryItem],
    *,
    status: str,
    text: str,
    facts: CubeFacts,
    added: int = 0,
) -> ScheduleLogForWebItem:
    """`scheduleMemory`: working memory was made ready as a prefix for the model, or could not be.

    items: what stands in the prefix; added: how many of them the last one did not hold.
    """
    return log_entry(
        message,
        SCHEDULE_MEMORY_LOG,
        f"Activation memory: {shortened(text)}",
        facts,
        from_memory_type=WORKING_MEMORY_TYPE,
        to_memory_type=ACTIVATION_MEMORY_TYPE,
        memcube_log_content=[{"content": item.memory, "ref_id": item.id} for item in items],
        metadata=[item_metadata(item) for item in items],
        memory_len=len(items),
        memory_delta=added,
        status=status,
    )


def task_status_log(
    message: ScheduleMessageItem,
    *,
    state: TaskState,
    text: str,
    facts: CubeFacts,
    details: Sequence[Mapping[str, Any]] = (),
) -> ScheduleLogForWebItem:
    """`taskStatus`: a business task is settled, or a message was given up."""
    return log_entry(
        message,
        TASK_STATUS_LOG,
        text,
        facts,
        status=str(state),
        from_memory_type=NOT_APPLICABLE_TYPE,
        to_memory_type=NOT_APPLICABLE_TYPE,
        memcube_log_content=[],
        metadata=[dict(detail) for detail in details],
    )


RAW_CHARS_MAX = 16_000


def model_fault_log(
    message: ScheduleMessageItem, answer: Answer, *, facts: CubeFacts
) -> ScheduleLogForWebItem:
    """`modelFault`: a question to a model had no usable answer and rules did the work; the reply as it came."""
    return log_entry(
        message,
        MODEL_FAULT_LOG,
        f"{answer.step} was done by rules: {shortened(answer.fault)}",
        facts,
        status="degraded",
        from_memory_type=NOT_APPLICABLE_TYPE,
        to_memory_type=NOT_APPLICABLE_TYPE,
        memcube_log_content=[
            {
                "type": "raw_reply",
                "step": answer.step,
                "model": answer.model,
                "task": message.label,
                "ref_id": message.item_id,
                "reason": answer.fault,
                "content": answer.raw[:RAW_CHARS_MAX],
            }
        ],
        metadata=[],
    )


def area_of(items: Sequence[MemoryItem]) -> str:
    """The one area that the items live in; the long-term one where they are of several."""
    kinds = {str(item.kind) for item in items}
    return kinds.pop() if len(kinds) == 1 else LONG_TERM_MEMORY_TYPE


def total_of(items: Sequence[MemoryItem], facts: CubeFacts) -> int:
    """How many live memories the areas of the items hold together."""
    sizes = facts.sizes
    by_kind = {
        "LongTermMemory": sizes.long_term,
        "UserMemory": sizes.user,
        "PreferenceMemory": sizes.preference,
        "WorkingMemory": sizes.working,
    }
    kinds = {str(item.kind) for item in items} or {LONG_TERM_MEMORY_TYPE}
    return sum(by_kind[kind] for kind in kinds)
