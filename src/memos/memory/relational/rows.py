"""Items as rows and as journal fields, both ways.

A row holds what is filtered and sorted by in columns and everything else as JSON in `body`. Times are
whole microseconds since the epoch, UTC, so that a datetime comes back exactly as it went in.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from memos.clock import to_utc
from memos.errors import InvalidInput
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, ReadState, Source
from memos.memory.store import Facet

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# The columns that `item_of` and `facet_of` read, in their order.
ITEM_COLUMNS = (
    "item.id, item.user_id, item.kind, item.status, item.version, item.raw, item.read, item.session_id, "
    "item.scenario, item.position, item.turn_id, item.created_at, item.updated_at, item.happened_at, "
    "item.valid_until, item.use_count, item.used_at, item.memory, item.body"
)
FACET_COLUMNS = (
    "item.no, item.seq, item.id, item.kind, item.session_id, item.scenario, item.position, item.turn_id, "
    "item.created_at, item.happened_at, item.content_hash, item.raw, item.use_count, item.body"
)

# Deeper than any sane value, and far from where JSON readers, ours or a client's, run out of stack.
JSON_DEPTH_MAX = 64

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """An item as it stands in the store, with what its indexes hold."""

    no: int
    item: MemoryItem
    terms: Mapping[str, int]
    has_vector: bool


def micros(moment: datetime | None) -> int | None:
    """`moment` as whole microseconds since the epoch. A naive datetime is local time."""
    return None if moment is None else (to_utc(moment) - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The aware UTC datetime of `micros`."""
    return _EPOCH + value * _MICROSECOND


def _moment(value: int | None) -> datetime | None:
    return None if value is None else moment(value)


def to_json(value: Any, what: str) -> str:
    """`value` as JSON; InvalidInput naming `what` when it cannot be written as such."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"{what} is not JSON: {error}; give strings, finite numbers, lists, objects"
        ) from error


def _shallow(value: dict[str, Any], what: str) -> dict[str, Any]:
    """`value` if it is nested at most JSON_DEPTH_MAX deep: what is stored must be readable by everybody."""
    level: list[Any] = [value]
    for _ in range(JSON_DEPTH_MAX):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list | tuple)
        ]
        if not level:
            return value
    raise InvalidInput(f"{what} is nested more than {JSON_DEPTH_MAX} deep in its info; make it flatter")


def fold(name: str) -> str:
    """How two spellings of one entity meet: NFKC, case and white space folded."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def item_row(no: int, cube_no: int, seq: int, stored: Stored) -> tuple[Any, ...]:
    """The values of the columns of `item`, in the order of the first layout; `no` first."""
    item = stored.item
    return (
        no,
        item.id,
        cube_no,
        item.user_id,
        item.kind.value,
        item.status.value,
        item.live,
        item.version,
        seq,
        item.raw,
        item.read.value,
        item.session_id,
        item.scenario,
        item.position,
        item.turn_id,
        item.content_hash if item.status is not ItemStatus.DELETED else "",
        micros(item.created_at),
        micros(item.updated_at),
        micros(item.happened_at),
        micros(item.valid_until),
        item.use_count,
        micros(item.used_at),
        stored.has_vector,
        sum(stored.terms.values()),
        item.memory,
        _body(item),
        to_json(dict(stored.terms), "terms"),
    )


def _body(item: MemoryItem) -> str:
    fields: dict[str, Any] = {
        "key": item.key,
        "background": item.background,
        "role": item.role,
        "participants": list(item.participants),
        "sources": [_source_fields(source) for source in item.sources],
        "tags": list(item.tags),
        "links": list(item.links),
        "extra": _shallow(dict(item.extra), f"item {item.id!r}"),
    }
    kept = {name: value for name, value in fields.items() if value}
    if item.confidence != 1.0:
        kept["confidence"] = item.confidence
    return to_json(kept, f"item {item.id!r}")


def _source_fields(source: Source) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "type": source.type,
        "role": source.role,
        "message_id": source.message_id,
        "item_id": source.item_id,
        "content": source.content,
        "name": source.name,
    }
    kept = {name: value for name, value in fields.items() if value or name == "type"}
    if source.at is not None:
        kept["at"] = micros(source.at)
    return kept


def _source(fields: Mapping[str, Any]) -> Source:
    return Source(**{**fields, "at": _moment(fields.get("at"))})


def item_of(row: Row, cube_id: str) -> MemoryItem:
    """The item of a row of ITEM_COLUMNS."""
    body = json.loads(row[18])
    return MemoryItem(
        id=row[0],
        cube_id=cube_id,
        user_id=row[1],
        memory=row[17],
        kind=MemoryKind(row[2]),
        status=ItemStatus(row[3]),
        version=row[4],
        raw=bool(row[5]),
        read=ReadState(row[6]),
        key=body.get("key", ""),
        background=body.get("background", ""),
        participants=tuple(body.get("participants", ())),
        role=body.get("role", ""),
        session_id=row[7],
        scenario=row[8],
        position=row[9],
        turn_id=row[10],
        sources=tuple(_source(fields) for fields in body.get("sources", ())),
        tags=tuple(body.get("tags", ())),
        links=tuple(body.get("links", ())),
        confidence=body.get("confidence", 1.0),
        created_at=moment(row[11]),
        updated_at=moment(row[12]),
        happened_at=_moment(row[13]),
        valid_until=_moment(row[14]),
        use_count=row[15],
        used_at=_moment(row[16]),
        extra=body.get("extra", {}),
    )


def facet_of(row: Row) -> Facet:
    """The facet of a row of FACET_COLUMNS."""
    body = json.loads(row[13])
    return Facet(
        no=row[0],
        id=row[2],
        kind=MemoryKind(row[3]),
        session_id=row[4],
        scenario=row[5],
        position=row[6],
        participants=tuple(body.get("participants", ())),
        links=tuple(body.get("links", ())),
        happened_at=_moment(row[9]),
        created_at=moment(row[8]),
        content_hash=row[10],
        turn_id=row[7],
        raw=bool(row[11]),
        source_keys=tuple(
            fields.get("item_id") or fields.get("message_id") or fields.get("name", "")
            for fields in body.get("sources", ())
        ),
        use_count=row[12],
    )


def item_fields(item: MemoryItem) -> dict[str, Any]:
    """The item for the journal: plain JSON values, times in ISO form, empty fields left out."""
    fields: dict[str, Any] = {
        "user_id": item.user_id,
        "memory": item.memory,
        "kind": item.kind.value,
        "status": item.status.value,
        "version": item.version,
        "raw": item.raw,
        "read": item.read.value,
        "key": item.key,
        "background": item.background,
        "participants": list(item.participants),
        "role": item.role,
        "session_id": item.session_id,
        "scenario": item.scenario,
        "position": item.position,
        "turn_id": item.turn_id,
        "sources": [_source_fields(source) for source in item.sources],
        "tags": list(item.tags),
        "links": list(item.links),
        "confidence": item.confidence,
        "created_at": _iso(item.created_at),
        "happened_at": _iso(item.happened_at),
        "valid_until": _iso(item.valid_until),
        "use_count": item.use_count,
        "used_at": _iso(item.used_at),
        "extra": _shallow(dict(item.extra), f"item {item.id!r}"),
    }
    return {name: value for name, value in fields.items() if value not in ("", None, [], {})}


def _iso(value: datetime | None) -> str | None:
    return None if value is None else to_utc(value).isoformat()


def difference(old: MemoryItem, new: MemoryItem) -> tuple[dict[str, Any], dict[str, Any]]:
    """(before, after): the fields that differ, for a journal row. A field that is empty is absent."""
    before, after = item_fields(old), item_fields(new)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return (
        {name: before[name] for name in before if name in changed},
        {name: after[name] for name in after if name in changed},
    )
