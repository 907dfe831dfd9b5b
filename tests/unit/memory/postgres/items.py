"""Items for the tests of this folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.activation.index import Block, KeptPrefix
from memos.memory.activation.layout import LayoutState, Resident
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


def block(*item_ids: str, namespace: str = "ns") -> Block:
    """A block to be stored first."""
    residents = tuple(Resident(one, 1, 10, f"digest {one}", mark) for mark, one in enumerate(item_ids))
    state = LayoutState(residents, len(residents))
    return Block(namespace, "ann", ("cube", "other"), "en", "header", state=state)


def prefix(*item_ids: str) -> KeptPrefix:
    """What a runtime keeps of these items."""
    return KeptPrefix(
        id="p1",
        namespace="ns",
        user_id="ann",
        backend="hf",
        fingerprint="f",
        header="header",
        tokens=30,
        bytes=1_000,
        ends=tuple(10 * (number + 1) for number in range(len(item_ids))),
        item_ids=item_ids,
        versions=(1,) * len(item_ids),
        sound=len(item_ids),
        extra={"folder": "x"},
    )
