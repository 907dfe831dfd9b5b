"""The file in which a cube's open tasks travel beside the cube: versioned, complete or refused.

    {"type": "tasks", "format": "memos-tasks", "version": 1, "id": …, "cube_id": …, "dumped_at": …}
    {"type": "task", "message": {…}}         the wire form of each message that waited or ran, oldest first
    {"type": "end", "tasks": n, "blake2b": …}   digest of all bytes before this line

`id` names the export: submitting the same file twice queues its tasks once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from memos.errors import InvalidInput, SchemaTooNew, StoreCorrupt, StoreUnavailable
from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState

FILE_NAME = "tasks.jsonl"
FORMAT = "memos-tasks"
VERSION = 1
_OVER = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})


@dataclass(frozen=True, slots=True)
class OpenTasks:
    """The open tasks of a cube, oldest first. Dead letters do not travel."""

    id: str
    cube_id: str
    dumped_at: datetime
    messages: tuple[ScheduleMessageItem, ...]


def open_tasks_of(queue: TaskQueue, cube_id: str) -> list[ScheduleMessageItem]:
    """What waits or runs for a cube, oldest first. One that runs may have done its work already: handlers
    of ours recognise that in the cube."""
    users = {lane.lane.user_id for lane in queue.depth().lanes if lane.lane.mem_cube_id == cube_id}
    found = [
        one
        for user_id in sorted(users)
        for one in queue.statuses(user_id=user_id)
        if one.mem_cube_id == cube_id and one.state not in _OVER
    ]
    found.sort(key=lambda one: one.key)
    return [one.message for one in queue.get([status.key for status in found])]


def write_tasks(folder: Path, tasks: OpenTasks) -> Path:
    """Write the file, whole or not at all, readable by its owner only. Raises StoreUnavailable."""
    head = {
        "type": "tasks",
        "format": FORMAT,
        "version": VERSION,
        "id": tasks.id,
        "cube_id": tasks.cube_id,
        "dumped_at": tasks.dumped_at.isoformat(),
    }
    lines = [_line(head), *(_line({"type": "task", "message": one.to_dict()}) for one in tasks.messages)]
    digest = hashlib.blake2b(b"".join(lines), digest_size=32).hexdigest()
    lines.append(_line({"type": "end", "tasks": len(tasks.messages), "blake2b": digest}))
    path, partial = folder / FILE_NAME, folder / f".{FILE_NAME}.{os.getpid()}"
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreUnavailable(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def read_tasks(folder: Path) -> OpenTasks:
    """The tasks in `folder`. Raises InvalidInput (there are none), StoreCorrupt (not whole), SchemaTooNew."""
    path = folder / FILE_NAME
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError as error:
        raise InvalidInput(f"{folder} holds no {FILE_NAME}") from error
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        head, *rows, end = records
        if head["format"] != FORMAT or not isinstance(head["version"], int):
            raise StoreCorrupt(f"{path} is not a file of tasks: its first line does not say {FORMAT!r}")
        if head["version"] > VERSION:
            raise SchemaTooNew(f"{path} has version {head['version']}, this program reads up to {VERSION}")
        digest = hashlib.blake2b(b"".join(lines[:-1]), digest_size=32).hexdigest()
        if end.get("type") != "end" or end.get("blake2b") != digest or end.get("tasks") != len(rows):
            raise StoreCorrupt(f"{path} is cut off or was changed by hand: export again")
        messages = tuple(ScheduleMessageItem.from_dict(row["message"]) for row in rows)
        return OpenTasks(
            str(head["id"]), str(head["cube_id"]), datetime.fromisoformat(head["dumped_at"]), messages
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreCorrupt(f"{path} cannot be read as tasks: {error}") from error


def submit_tasks(queue: TaskQueue, tasks: OpenTasks, *, cube_id: str) -> int:
    """Queue them for `cube_id`, once however often it is called; returns how many there are."""
    moved: Sequence[ScheduleMessageItem] = [
        one.model_copy(update={"mem_cube_id": cube_id}) for one in tasks.messages
    ]
    if moved:
        queue.submit(moved, token=f"import/{tasks.id}/{cube_id}", inside_handler=True)
    return len(moved)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
