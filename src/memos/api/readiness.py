"""Whether a server lives, is ready for work, and how its memory is: answers that are true.

`health` says that the process answers and its store can be read. `ready` tries every part that a request
needs and names the one that fails; that no worker serves the queue it says too, and stays ready: a server that
stores and searches is of use without one, and a balancer that took all servers out would make it worse. `memory_health` looks through the memories themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from memos import __version__
from memos.api import access
from memos.clock import utc
from memos.errors import CubeNotFound, MemosError
from memos.memory import hygiene
from memos.memory.item import ItemStatus, MemoryItem, ReadState
from memos.memory.store import ItemFilter
from memos.runtime import Runtime

SERVICE = "memscheduler"
SCAN_SIZE = 500
IDS_SHOWN = 20
_KEPT = tuple(status for status in ItemStatus if status is not ItemStatus.DELETED)
_FINDINGS = ("duplicates", "near_duplicates", "echoes", "stale", "never_recalled", "dangerous")


def health(runtime: Runtime) -> dict[str, Any]:
    """That the process answers and its store can be read, and whether its scheduler runs. Raises StoreError."""
    told = runtime.store.describe()
    return {
        "status": "healthy",
        "store": f"{told['backend']}: {told['vectors'].lstrip('! ')}",
        "service": SERVICE,
        "version": __version__,
        "scheduler": "running" if runtime.scheduler._running else "stopped",
    }


def ready(runtime: Runtime) -> tuple[bool, dict[str, str]]:
    """Whether every part that requests need works, and what each says: "ok", or what is wrong.

    The scheduler and the embedder are said, and no reason to refuse work: tasks wait for whoever comes to serve
    the queue, and recall goes on without vectors.
    """
    checks: dict[str, str] = {}

    def tried(name: str, check: Callable[[], str]) -> None:
        try:
            checks[name] = check()
        except MemosError as error:
            checks[name] = f"{type(error).__name__}: {error}"

    tried("store", lambda: _store(runtime))
    tried("queue", lambda: _queue(runtime))
    is_ready = all(said == "ok" for said in checks.values())
    tried("scheduler", lambda: _scheduler(runtime))
    missing = runtime.embedder_missing
    checks["embedder"] = missing or ("ok" if runtime.embedder is not None else "none configured")
    return is_ready, checks


def _store(runtime: Runtime) -> str:
    runtime.store.tick(["readiness"])  # an empty write: nothing has that key
    return "ok"


def _queue(runtime: Runtime) -> str:
    depth = runtime.queue.depth(lanes=False)
    full = depth.remaining + depth.running >= runtime.queue.messages_max
    return "full: new work is refused until some is done" if full else "ok"


def _scheduler(runtime: Runtime) -> str:
    if runtime.scheduler._running or runtime.queue.instances():
        return "ok"
    return "no worker serves the queue, tasks wait: start the scheduler here, or a worker"


def memory_health(runtime: Runtime, cube_ids: Sequence[str]) -> dict[str, Any]:
    """Duplicates, stale and never recalled memories, fill, and what waits; of these cubes, or of all (none
    named, for admins). Reads every memory of them. Raises AccessDenied, CubeNotFound, StoreError."""
    store = runtime.store
    if cube_ids:
        access.may_read(cubes=cube_ids)
        known = set(store.cubes())
        for cube_id in cube_ids:
            if cube_id not in known:
                raise CubeNotFound(f"no cube {cube_id!r} holds or ever held memories")
    else:
        access.must_be_admin("a look over every cube")
    report = hygiene.audit(_everything(runtime, cube_ids), now=utc(runtime.clock.now()))
    found = {name: getattr(report, name) for name in _FINDINGS}
    unread = store.find(ItemFilter(cube_ids=tuple(cube_ids), read=(ReadState.DUE,)), limit=1).total
    return {
        "live": report.live,
        "quarantined": report.quarantined,
        "unread": unread,
        "findings": {
            name: {"count": len(ids), "rate": round(report.rates[name], 6), "ids": list(ids[:IDS_SHOWN])}
            for name, ids in found.items()
        },
        "fill": _fill(runtime, list(cube_ids) or store.cubes()),
    }


def _everything(runtime: Runtime, cube_ids: Sequence[str]) -> Iterator[MemoryItem]:
    cursor: str | None = None
    while True:
        page = runtime.store.find(
            ItemFilter(cube_ids=tuple(cube_ids), statuses=_KEPT), limit=SCAN_SIZE, cursor=cursor
        )
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _fill(runtime: Runtime, cube_ids: Sequence[str]) -> dict[str, float]:
    """How full the fullest of the cubes is, by area: 1 means that it archives."""
    may = runtime.store.capacities
    fill = {"long_term": 0.0, "user": 0.0, "preference": 0.0, "working": 0.0}
    for cube_id in cube_ids:
        sizes = runtime.store.sizes(cube_id)
        for area, held, capacity in (
            ("long_term", sizes.long_term, may.long_term),
            ("user", sizes.user, may.user),
            ("preference", sizes.preference, may.preference),
            ("working", sizes.working, may.working),
        ):
            fill[area] = max(fill[area], round(held / capacity, 6))
    return fill
