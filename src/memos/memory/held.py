"""What is held in quarantine: looked at, released or dropped by somebody who decides it.

Released items are recalled again and, where their reading was due, read at once; the gate does not hold
them a second time, but what is derived from them goes through it like everything else. Dropped items are
deleted. Both leave journal rows. Only items in quarantine are touched: any other id is refused whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memos.errors import InvalidInput, VersionConflict
from memos.memory.item import ItemStatus, MemoryItem, ReadState
from memos.memory.learning import Learned, Learner
from memos.memory.store import Cause, ItemFilter, MemoryStore, SetStatus

PAGE_SIZE = 500
JOURNAL_ROWS_MAX = 50
CONFLICT_TRIES = 3
PREFIX = "quarantined: "  # of the reason in the journal of an item that was held when it came


@dataclass(frozen=True, slots=True)
class HeldItem:
    """An item in quarantine and why it is there."""

    item: MemoryItem
    reason: str


class Quarantine:
    """The quarantine of a store."""

    def __init__(self, store: MemoryStore, learner: Learner) -> None:
        self._store = store
        self._learner = learner

    def held(self, *, cube_id: str = "", limit: int = 1_000) -> list[HeldItem]:
        """The newest `limit` items in quarantine, of one cube or of all."""
        wanted = ItemFilter(cube_ids=(cube_id,) if cube_id else (), statuses=(ItemStatus.QUARANTINED,))
        found: list[MemoryItem] = []
        cursor: str | None = None
        while len(found) < limit:
            page = self._store.find(wanted, limit=min(PAGE_SIZE, limit - len(found)), cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        return [HeldItem(item, self._reason(item.id)) for item in found]

    def release(self, item_ids: Sequence[str], *, cause: Cause | None = None) -> list[Learned]:
        """Let items be recalled again, and read those that are due; gives what they taught, cube by cube.

        Raises InvalidInput (an id that is not held), ItemNotFound, ItemGone; then nothing was done.
        """
        items = self._checked(item_ids)
        self._store.apply(
            [SetStatus(tuple(item.id for item in items), ItemStatus.ACTIVATED, "released from quarantine")],
            cause=cause,
        )
        due = [item for item in items if item.raw and item.read is ReadState.DUE]
        cubes = dict.fromkeys(item.cube_id for item in due)
        return [self._read(cube, [one for one in due if one.cube_id == cube], cause) for cube in cubes]

    def drop(self, item_ids: Sequence[str], *, cause: Cause | None = None) -> int:
        """Delete items that are held; returns how many. Raises what `release` does."""
        ids = tuple(item.id for item in self._checked(item_ids))
        self._store.apply([SetStatus(ids, ItemStatus.DELETED, "dropped from quarantine")], cause=cause)
        return len(ids)

    def _checked(self, item_ids: Iterable[str]) -> list[MemoryItem]:
        items = self._store.get(list(dict.fromkeys(item_ids)))
        for item in items:
            if item.status is not ItemStatus.QUARANTINED:
                raise InvalidInput(
                    f"item {item.id!r} is {item.status.value}, not in quarantine; nothing was changed"
                )
        return items

    def _read(self, cube_id: str, items: Sequence[MemoryItem], cause: Cause | None) -> Learned:
        for left in reversed(range(CONFLICT_TRIES)):
            raw = self._store.get([item.id for item in items])
            learned = self._learner.read(cube_id, raw)
            try:
                self._store.apply(learned.changes, cause=cause)
                break
            except VersionConflict:  # a fact changed since it was looked at
                if not left:
                    raise
        return learned

    def _reason(self, item_id: str) -> str:
        for row in self._store.journal(item_id=item_id, limit=JOURNAL_ROWS_MAX):
            if row.op == "quarantine" or row.reason.startswith(PREFIX):
                return row.reason.removeprefix(PREFIX)
        return ""
