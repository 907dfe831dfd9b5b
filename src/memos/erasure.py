"""Erasing a user from a runtime: queue, statuses, dead letters, store, logs, state; with a receipt that was checked.

The queue goes first, so that nothing new is written while the store is erased, and once more afterwards.
What runs at that moment is marked as cancelled and may be waited for; whenever it ends, it finds the memories
gone, and the time of the erasure in the store: what it would store, chain or complain about is dropped. Then
every file of the installation, and every key of a queue on Redis, are searched for the longest texts that only
this user said, memories and tasks: the receipt tells what was looked for and what was found. What this cannot
reach is said there too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from memos.clock import utc
from memos.errors import ActivationError, InvalidInput, ModelError
from memos.mem_scheduler.queues.base import ForgettingQueue, TaskQueue, TaskStatus
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.memory.activation.volatile import VolatileBlocks
from memos.memory.store import ErasingStore
from memos.runtime import Runtime

LETTERS_MAX = 1_000_000
TASKS_READ_MAX = 1_000  # tasks whose texts are looked for
CANARY_CHARS_MIN = 12
LOOK_S = 0.1  # between looks at what still runs
NOT_SEARCHED = frozenset({"models"})  # folders of the installation without anything of users: weights
BLOCK_BYTES = 8 * 1024 * 1024
CANARIES_MAX = 200
STATES = ("activity/{}", "answers/{}", "searches/{}")
_OVER = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})
NOT_REACHED = (
    "copies outside of this store: backups, exports, and web logs that a broker already took",
    "the id of a cube that is named like the user, and the ids, kinds and times of what was erased: "
    "the journal's chain and the tombstones need them",
    "the users and cubes that keys of `memos keys` and weights of the settings name",
    "prefixes that a model's server keeps by itself: they are salted, and forgotten by age",
    "what a task that still ran (`tasks_running`) holds, until it ends; nothing of it is stored then",
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
    redis_keys: int  # where else: keys of the queue and the statuses on Redis
    traces: int  # texts that were found all the same
    log_emptied: bool  # False: another process still reads older pages; run it again later
    not_reached: tuple[str, ...] = NOT_REACHED


def erase(runtime: Runtime, user_id: str, *, wait_s: float = 0.0) -> Receipt:
    """Erase everything of the user. Raises InvalidInput (a store that cannot), StoreError, QueueError.

    `wait_s`: how long tasks that run may go on before what they leave is looked for. May be called again: the
    second receipt counts what came in between.
    """
    check_id("user_id", user_id)
    store, queue = runtime.store, runtime.queue
    if not isinstance(store, ErasingStore):
        raise InvalidInput(
            f"erasing is not built for this store ({type(store).__name__}); use the SQLite store"
        )
    canaries = list(
        dict.fromkeys([*store.texts_of(user_id, limit=CANARIES_MAX), *_texts_of_tasks(queue, user_id)])
    )
    counts = _out_of_queue(queue, user_id)
    namespaces = [one.namespace for one in runtime.activation.blocks.index.blocks(user_id=user_id)]
    counts |= store.erase(user_id, state_names=[name.format(user_id) for name in STATES])
    for name, count in _out_of_queue(queue, user_id).items():
        counts[name] += count
    counts["tasks_running"] = _wait(queue, user_id, wait_s)
    counts["dead_letters"] += _out_of_queue(queue, user_id)["dead_letters"]
    counts |= _prefixes(runtime, user_id, namespaces)
    counts["statuses"] = runtime.status_tracker.forget(user_id)
    emptied = store.checkpoint()
    if isinstance(queue, ForgettingQueue):
        emptied = queue.forget(user_id) and emptied
    files = _files(runtime)
    keys = queue.kept() if isinstance(queue, ForgettingQueue) else iter(())
    seen = _Counted(block for _, block in keys)
    return Receipt(
        id=str(uuid4()),
        store_id=store.store_id,
        user_id=user_id,
        at=utc(runtime.clock.now()),
        counts=counts,
        canaries=len(canaries),
        files=tuple(str(path) for path in files),
        redis_keys=seen.number,
        traces=len(_found(canaries, files, seen.blocks)),
        log_emptied=emptied,
    )


class _Counted:
    """Blocks of bytes that can be gone through, and how many there are."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self.blocks = list(blocks)
        self.number = len(self.blocks)


def _prefixes(runtime: Runtime, user_id: str, namespaces: Sequence[str]) -> dict[str, int]:
    """Remove the prefixes that the store has doomed, and what else there is in the user's namespaces. What a
    runtime could not remove now is left on record, and the housekeeper goes on with it."""
    index, keeper = runtime.activation.blocks.index, runtime.activation.keeper
    forgotten = {"activation_blocks": index.forget_user(user_id)} if isinstance(index, VolatileBlocks) else {}
    if keeper is None:
        return forgotten
    swept = keeper.sweep()
    freed, left = swept.bytes, swept.left
    for namespace in namespaces:
        try:
            freed += keeper.backend.drop_namespace(namespace)
        except (ActivationError, ModelError, OSError):
            left += 1
    return forgotten | {"activation_bytes": freed, "activation_left": left}


def _open_ones(queue: TaskQueue, user_id: str) -> list[TaskStatus]:
    return [one for one in queue.statuses(user_id=user_id) if one.state not in _OVER]


def _texts_of_tasks(queue: TaskQueue, user_id: str) -> list[str]:
    """What waiting, running and given up tasks of the user say."""
    keys = [one.key for one in _open_ones(queue, user_id)][:TASKS_READ_MAX]
    messages = [one.message for one in queue.get(keys)]
    letters = queue.dead.list(user_id=user_id, limit=TASKS_READ_MAX)
    texts = [message.content for message in messages]
    for letter in letters:
        texts += [letter.message.content, letter.error]
    # JSON is made of parts that may stand elsewhere for themselves, such as ids; a sentence is not.
    return [text for text in texts if len(text) >= CANARY_CHARS_MIN and " " in text]


def _out_of_queue(queue: TaskQueue, user_id: str) -> dict[str, int]:
    """Take out what waits, mark what runs, drop what was given up."""
    taken = queue.cancel([one.key for one in _open_ones(queue, user_id)])
    letters = [one.key for one in queue.dead.list(user_id=user_id, limit=LETTERS_MAX)]
    return {
        "tasks_cancelled": len(taken),
        "dead_letters": queue.dead.purge(letters) if letters else 0,
    }


def _wait(queue: TaskQueue, user_id: str, wait_s: float) -> int:
    """How many tasks of the user still run when the time is over."""
    until = time.monotonic() + wait_s
    while (running := len(_open_ones(queue, user_id))) and time.monotonic() < until:
        time.sleep(LOOK_S)
    return running


def _files(runtime: Runtime) -> list[Path]:
    """Every file of the installation but the weights, and the two databases where they stand elsewhere."""
    settings = runtime.settings
    home = settings.home
    found = {
        path.with_name(path.name + end)
        for path in (settings.store_path, settings.queue_path)
        for end in ("", "-wal", "-shm", "-journal")
    }
    if home.is_dir():
        found |= {path for path in home.rglob("*") if path.relative_to(home).parts[0] not in NOT_SEARCHED}
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _found(canaries: Sequence[str], files: Sequence[Path], blocks: Iterable[bytes]) -> set[str]:
    """Those of the texts that stand in a file or a block, plainly, as JSON writes them or percent-encoded."""
    forms = [(text, form) for text in canaries for form in _written(text)]
    overlap = max((len(form) for _, form in forms), default=0)
    found: set[str] = set()
    for block in chain(blocks, *(_blocks(path, overlap) for path in files)):
        found.update(text for text, form in forms if form in block)
    return found


def _written(text: str) -> set[bytes]:
    return {
        text.encode(errors="surrogatepass"),
        json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="surrogatepass"),
        json.dumps(text)[1:-1].encode(),
        quote(text, safe="", errors="surrogatepass").encode(),
    }


def _blocks(path: Path, overlap: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        kept = b""
        while block := file.read(BLOCK_BYTES):
            yield kept + block
            kept = (kept + block)[-overlap:] if overlap else b""
