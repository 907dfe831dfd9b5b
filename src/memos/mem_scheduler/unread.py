"""Raw items that still have to be read: the messages that ask for it, made at the add and after a crash.

What is due stands in the store, on the items; a message only says when. Both sides make the same groups,
item ids and keys of the same items, so that a scheduler that looks through the store queues nothing that is
queued already, and brings back what was stored while the queue was away, or was lost with its memory.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from memos.mem_scheduler.schemas.keys import work_key
from memos.mem_scheduler.schemas.task_schemas import MEM_READ_TASK_LABEL
from memos.memory.item import MemoryItem, ReadState
from memos.memory.store import ItemFilter, MemoryStore

ITEMS_OF_A_MESSAGE = 100
PAGE_SIZE = 500
DUE_MAX = 100_000  # of one look; the next start finds the rest


@dataclass(frozen=True, slots=True)
class Unread:
    """Items of one user and cube that one `mem_read` message reads, in their order."""

    user_id: str
    cube_id: str
    session_id: str
    ids: tuple[str, ...]
    since: datetime

    @property
    def content(self) -> str:
        """The content of the message."""
        return json.dumps(list(self.ids))

    @property
    def item_id(self) -> str:
        """The message's item id."""
        digest = hashlib.blake2b("\0".join((self.cube_id, *self.ids)).encode(), digest_size=16)
        return f"read-{digest.hexdigest()}"

    @property
    def key(self) -> str:
        """The message's key where it is made again."""
        return work_key(self.since.timestamp(), MEM_READ_TASK_LABEL, self.item_id)


def unread(items: Iterable[MemoryItem]) -> list[Unread]:
    """The due items among `items`, those of one add together."""
    groups: defaultdict[tuple[str, str, str, datetime], list[MemoryItem]] = defaultdict(list)
    for item in items:
        if item.raw and item.live and item.read is ReadState.DUE:
            groups[(item.user_id, item.cube_id, item.session_id, item.created_at)].append(item)
    return [
        Unread(user_id, cube_id, session_id, tuple(item.id for item in part), since)
        for (user_id, cube_id, session_id, since), group in groups.items()
        for part in _parts(sorted(group, key=lambda item: (item.position, item.id)))
    ]


def _parts(items: Sequence[MemoryItem]) -> Iterator[Sequence[MemoryItem]]:
    for first in range(0, len(items), ITEMS_OF_A_MESSAGE):
        yield items[first : first + ITEMS_OF_A_MESSAGE]


def all_unread(
    store: MemoryStore, *, since: datetime | None = None, until: datetime | None = None
) -> list[Unread]:
    """What is due in the whole store, the oldest first; of what was added in between where that is given."""
    found: list[MemoryItem] = []
    cursor: str | None = None
    wanted = ItemFilter(read=(ReadState.DUE,), raw=True, created_from=since, created_to=until)
    while len(found) < DUE_MAX:
        page = store.find(wanted, limit=PAGE_SIZE, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    return sorted(unread(found), key=lambda one: one.since)
