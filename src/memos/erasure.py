"""Erasing a user from a runtime: queue, dead letters, store, logs, state; with a receipt that was checked.

The queue goes first, so that nothing new is written while the store is erased, and once more afterwards.
What runs at that moment is marked as cancelled, finds the memories gone and brings nothing back. Then the
files are searched, byte for byte, for the longest texts that only this user said: the receipt tells what
was looked for and what was found. What this cannot reach is said there too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from memos.clock import utc
from memos.errors import InvalidInput
from memos.mem_scheduler.queues.base import ForgettingQueue, TaskQueue
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.memory.store import ErasingStore
from memos.runtime import Runtime

LETTERS_MAX = 1_000_000
BLOCK_BYTES = 8 * 1024 * 1024
CANARIES_MAX = 200
STATES = ("activity/{}", "answers/{}", "searches/{}")
_OVER = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})
NOT_REACHED = (
    "copies outside of this store: backups, exports, and web logs that a broker already took",
    "the id of a cube that is named like the user, and the ids, kinds and times of what was erased: "
    "the journal's chain and the tombstones need them",
    "states of finished tasks, which the queue keeps for 7 days, without their contents; "
    "on Redis with the text of their errors",
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased, and what a search for traces found. `traces` 0: nothing."""

    id: str
    store_id: str
    user_id: str
    at: datetime
    counts: dict[str, int]
    canaries: int  # texts that were looked for
    files: tuple[str, ...]  # where
    traces: int  # texts that were found all the same
    log_emptied: bool  # False: another process still reads older pages; run it again later
    not_reached: tuple[str, ...] = NOT_REACHED


def erase(runtime: Runtime, user_id: str) -> Receipt:
    """Erase everything of the user. Raises InvalidInput (a store that cannot), StoreError, QueueError.

    May be called again: the second receipt counts what came in between.
    """
    check_id("user_id", user_id)
    store = runtime.store
    if not isinstance(store, ErasingStore):
        raise InvalidInput(
            f"erasing is not built for this store ({type(store).__name__}); use the SQLite store"
        )
    canaries = store.texts_of(user_id, limit=CANARIES_MAX)
    counts = _out_of_queue(runtime.queue, user_id)
    counts |= store.erase(user_id, state_names=[name.format(user_id) for name in STATES])
    for name, count in _out_of_queue(runtime.queue, user_id).items():
        counts[name] += count
    emptied = store.checkpoint()
    if isinstance(runtime.queue, ForgettingQueue):
        emptied = runtime.queue.forget(user_id) and emptied
    files = [path for path in _files(runtime) if path.is_file()]
    return Receipt(
        id=str(uuid4()),
        store_id=store.store_id,
        user_id=user_id,
        at=utc(runtime.clock.now()),
        counts=counts,
        canaries=len(canaries),
        files=tuple(str(path) for path in files),
        traces=len(_found(canaries, files)),
        log_emptied=emptied,
    )


def _out_of_queue(queue: TaskQueue, user_id: str) -> dict[str, int]:
    """Take out what waits, mark what runs, drop what was given up."""
    open_ones = [one for one in queue.statuses(user_id=user_id) if one.state not in _OVER]
    taken = queue.cancel([one.key for one in open_ones])
    letters = [one.key for one in queue.dead.list(user_id=user_id, limit=LETTERS_MAX)]
    return {
        "tasks_cancelled": len(taken),
        "tasks_running": len(open_ones) - len(taken),
        "dead_letters": queue.dead.purge(letters) if letters else 0,
    }


def _files(runtime: Runtime) -> list[Path]:
    settings = runtime.settings
    return [
        path.with_name(path.name + end)
        for path in (settings.store_path, settings.queue_path)
        for end in ("", "-wal")
    ]


def _found(canaries: Sequence[str], files: Sequence[Path]) -> set[str]:
    """Those of the texts that stand in one of the files, plainly or as JSON writes them."""
    forms = [(text, form) for text in canaries for form in _written(text)]
    overlap = max((len(form) for _, form in forms), default=0)
    found: set[str] = set()
    for path in files:
        for block in _blocks(path, overlap):
            found.update(text for text, form in forms if form in block)
    return found


def _written(text: str) -> set[bytes]:
    return {
        text.encode(),
        json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        json.dumps(text)[1:-1].encode(),
    }


def _blocks(path: Path, overlap: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        kept = b""
        while block := file.read(BLOCK_BYTES):
            yield kept + block
            kept = (kept + block)[-overlap:] if overlap else b""
