"""Items for the tests of this folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.item import MemoryItem
from memos.memory.store import AddItems, Followup, IndexedItem

AT = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


def indexed(item_id: str, *, cube_id: str = "cube", vector: Any = None, **fields: Any) -> IndexedItem:
    given: dict[str, Any] = {
        "user_id": "ann",
        "memory": f"text of {item_id}",
        "created_at": AT,
        "updated_at": AT,
    }
    item = MemoryItem(id=item_id, cube_id=cube_id, **{**given, **fields})
    words = item.memory.lower().split()
    return IndexedItem(item, {word: words.count(word) for word in words}, vector)


def add(*item_ids: str, **fields: Any) -> AddItems:
    return AddItems(tuple(indexed(one, **fields) for one in item_ids))


def followup(key: str, parent: str) -> Followup:
    message = ScheduleMessageItem(
        user_id="ann", mem_cube_id="cube", label="mem_update", content="hello", item_id=key
    )
    return Followup(key, parent, message)


def web_log(text: str) -> ScheduleLogForWebItem:
    return ScheduleLogForWebItem(label="addMemory", user_id="ann", mem_cube_id="cube", log_content=text)
