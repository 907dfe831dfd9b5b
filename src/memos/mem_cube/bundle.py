"""The file in which a cube travels: one JSON object a line, versioned, complete or refused.

    {"type": "cube", "format": "memos-cube", "version": 1, "cube_id": …, "items": n, "seq": …, "dumped_at": …}
    {"type": "item", "item": {…}}            every live, archived and quarantined memory, oldest first
    {"type": "aliases", "aliases": {…}}      ids that were given out -> the memory they stand for since a merge
    {"type": "working", "entries": […]}      the places of working memory, best first
    {"type": "end", "items": n, "blake2b": …}   digest of all bytes before this line

Writing is atomic: the file is whole or as it was. Reading checks form, digest and count before anything
is handed out. Nothing in it is executed, and no path in it is followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from memos.errors import InvalidInput, SchemaTooNew, StoreCorrupt, StoreUnavailable
from memos.memory.item import ItemStatus, MemoryItem, WorkingEntry

FILE_NAME = "cube.jsonl"
FORMAT = "memos-cube"
VERSION = 1
BUNDLE_BYTES_MAX = 1024**3


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a cube holds: `items` oldest first, `entries` of its working memory best first."""

    cube_id: str
    seq: int
    dumped_at: datetime
    items: tuple[MemoryItem, ...]
    entries: tuple[WorkingEntry, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)


@cache
def _item_form() -> TypeAdapter[MemoryItem]:
    return TypeAdapter(MemoryItem)


@cache
def _entries_form() -> TypeAdapter[tuple[WorkingEntry, ...]]:
    return TypeAdapter(tuple[WorkingEntry, ...])


def write_bundle(folder: Path, bundle: Bundle) -> Path:
    """Write the file in `folder` (made when missing), readable by its owner only. Raises StoreUnavailable."""
    path = folder / FILE_NAME
    partial = folder / f".{FILE_NAME}.{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.blake2b(digest_size=32)
        with os.fdopen(_private(partial), "wb") as file:
            for line in _lines(bundle):
                digest.update(line)
                file.write(line)
            end = {"type": "end", "items": len(bundle.items), "blake2b": digest.hexdigest()}
            file.write(_line(end))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StoreUnavailable(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`. Raises InvalidInput (there is none), StoreCorrupt (not whole), SchemaTooNew."""
    path = folder / FILE_NAME
    try:
        size = path.stat().st_size
        if size > BUNDLE_BYTES_MAX:
            raise InvalidInput(f"{path} has {size} bytes; a cube's file has at most {BUNDLE_BYTES_MAX}")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{folder} holds no {FILE_NAME}; give a folder that GeneralMemCube.dump wrote"
        ) from error
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    return _parsed(path, content)


def holds_bundle(folder: Path) -> bool:
    """Whether there is a cube's file in `folder`."""
    return (folder / FILE_NAME).is_file()


def _parsed(path: Path, content: bytes) -> Bundle:
    lines = content.splitlines(keepends=True)
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1)]
    head = records[0] if records else {}
    if head.get("format") != FORMAT:
        raise StoreCorrupt(f"{path} is not a cube's file: its first line does not say {FORMAT!r}")
    if not isinstance(head.get("version"), int) or head["version"] > VERSION:
        raise SchemaTooNew(
            f"{path} has version {head.get('version')!r}, this program reads up to {VERSION}; "
            "install a newer memscheduler"
        )
    end = records[-1]
    digest = hashlib.blake2b(b"".join(lines[:-1]), digest_size=32).hexdigest()
    if end.get("type") != "end" or end.get("blake2b") != digest:
        raise StoreCorrupt(f"{path} is cut off or was changed by hand: dump the cube again")
    try:
        items = [_item_form().validate_python(one["item"]) for one in records[1:-1] if one["type"] == "item"]
        entries = [
            entry
            for one in records[1:-1]
            if one["type"] == "working"
            for entry in _entries_form().validate_python(one["entries"])
        ]
        aliases = {
            str(alias): str(item_id)
            for one in records[1:-1]
            if one["type"] == "aliases"
            for alias, item_id in one["aliases"].items()
        }
        bundle = Bundle(
            cube_id=str(head["cube_id"]),
            seq=int(head["seq"]),
            dumped_at=datetime.fromisoformat(head["dumped_at"]),
            items=tuple(items),
            entries=tuple(entries),
            aliases=aliases,
        )
    except (KeyError, AttributeError, ValueError, ValidationError) as error:
        raise StoreCorrupt(f"{path} holds a line that is no memory: {error}") from error
    _check(path, bundle, counted=end.get("items"))
    return bundle


def _check(path: Path, bundle: Bundle, *, counted: object) -> None:
    if counted != len(bundle.items):
        raise StoreCorrupt(f"{path} holds {len(bundle.items)} memories and says {counted!r}")
    for item in bundle.items:
        if item.cube_id != bundle.cube_id or item.status is ItemStatus.DELETED:
            raise StoreCorrupt(f"{path}: memory {item.id!r} cannot be part of cube {bundle.cube_id!r}")
        if any(moment.tzinfo is None for moment in _moments(item)):
            raise StoreCorrupt(f"{path}: a time of memory {item.id!r} has no zone")


def _moments(item: MemoryItem) -> Sequence[datetime]:
    all_of_them = (item.created_at, item.updated_at, item.happened_at, item.valid_until, item.used_at)
    return [moment for moment in all_of_them if moment is not None]


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise StoreCorrupt(f"{path}, line {number}: not JSON; dump the cube again") from error
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise StoreCorrupt(f"{path}, line {number}: no record of a cube; dump the cube again")
    return record


def _lines(bundle: Bundle) -> Iterator[bytes]:
    yield _line(
        {
            "type": "cube",
            "format": FORMAT,
            "version": VERSION,
            "cube_id": bundle.cube_id,
            "items": len(bundle.items),
            "seq": bundle.seq,
            "dumped_at": bundle.dumped_at.isoformat(),
        }
    )
    for item in bundle.items:
        yield _line({"type": "item", "item": _item_form().dump_python(item, mode="json")})
    yield _line({"type": "aliases", "aliases": dict(bundle.aliases)})
    yield _line({"type": "working", "entries": _entries_form().dump_python(bundle.entries, mode="json")})


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
