"""The documented form of a memory."""

from __future__ import annotations

from datetime import UTC, datetime

from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, Source
from memos.memory.textual import TextualMemoryItem, TextualMemoryMetadata

MOMENT = datetime(2024, 5, 2, 10, 30, tzinfo=UTC)


def test_every_field_of_an_item_is_there_in_the_documented_form() -> None:
    """The text stays bare; dates are ISO 8601, sources and times are metadata, relativity rides along."""
    item = MemoryItem(
        id="m1",
        cube_id="cube",
        user_id="user",
        memory="We flew to Lisbon",
        kind=MemoryKind.USER,
        status=ItemStatus.RESOLVING,
        version=3,
        raw=False,
        key="Lisbon",
        background="holiday",
        participants=("Ann",),
        role="user",
        session_id="s1",
        scenario="travel",
        position=4,
        sources=(Source(type="chat", role="user", message_id="t1", at=MOMENT),),
        tags=("trip",),
        links=("lisbon",),
        confidence=0.5,
        created_at=MOMENT,
        updated_at=MOMENT,
        happened_at=MOMENT,
        use_count=2,
        used_at=MOMENT,
        extra={"project": "Atlas"},
    )
    shown = TextualMemoryItem.from_item(item, relativity=0.7)
    assert (shown.id, shown.memory) == ("m1", "We flew to Lisbon")
    iso = "2024-05-02T10:30:00+00:00"
    given = shown.metadata.model_dump()
    sources = given.pop("sources")
    assert sources == [
        {
            "type": "chat",
            "role": "user",
            "message_id": "t1",
            "item_id": "",
            "content": "",
            "name": "",
            "chat_time": iso,
        }
    ]
    assert given == {
        "user_id": "user",
        "session_id": "s1",
        "status": "resolving",
        "memory_type": "UserMemory",
        "key": "Lisbon",
        "tags": ["trip"],
        "confidence": 0.5,
        "embedding": None,
        "created_at": iso,
        "updated_at": iso,
        "happened_at": iso,
        "valid_until": "",
        "usage": [iso],
        "use_count": 2,
        "background": "holiday",
        "info": {"project": "Atlas"},
        "visibility": "private",
        "version": 3,
        "history": [],
        "mem_cube_id": "cube",
        "participants": ["Ann"],
        "role": "user",
        "scenario": "travel",
        "position": 4,
        "links": ["lisbon"],
        "raw": False,
        "relativity": 0.7,
    }


def test_callers_may_change_what_they_get() -> None:
    """Lists and info are copies, so changing them touches neither the item nor another result."""
    item = MemoryItem(id="m1", cube_id="cube", user_id="user", memory="text", extra={"a": 1})
    shown = TextualMemoryItem.from_item(item)
    shown.metadata.tags.append("x")
    shown.metadata.info["a"] = 2
    assert TextualMemoryItem.from_item(item).metadata.tags == []
    assert item.extra == {"a": 1}


def test_unknown_metadata_is_kept() -> None:
    """What callers attach to metadata comes back through JSON."""
    metadata = TextualMemoryMetadata.model_validate({"user_id": "u", "colour": "red"})
    item = TextualMemoryItem(id="a", memory="b", metadata=metadata)
    assert (
        TextualMemoryItem.model_validate_json(item.model_dump_json()).metadata.model_dump()["colour"] == "red"
    )
