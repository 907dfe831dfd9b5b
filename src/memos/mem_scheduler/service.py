"""Which queue serves the store, as the store is told: before the first task, and until the queue holds nothing.

Two queues may hold the same message (the second finds a followup of the first in the outbox), and each would
sweep the mark that the other needs. So the store keeps marks while more than one queue is noted. A queue is
struck out when its last process stops and it holds no message and no dead letter: whoever lets the old queue
run empty and then starts with another one notices nothing. A queue in memory ends with its process and is not
noted.
"""

from __future__ import annotations

import secrets

from memos import log
from memos.clock import Clock
from memos.mem_scheduler.queues.base import TaskQueue
from memos.memory.store import MemoryStore, ServingQueue

logger = log.get_logger(__name__)


class Service:
    """One scheduler's word to its store. All methods raise StoreError and QueueError."""

    def __init__(self, store: MemoryStore, queue: TaskQueue, clock: Clock) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._token = secrets.token_hex(8)
        self.queue_id = ""  # known once it was told; "" of a queue in memory
        self.told = False
        self.alone = False  # whether no other queue is noted, as far as the last look went
        self._said = False

    def tell(self) -> None:
        """Note the queue, whether or not it is noted already: the last to come is the one that strikes out."""
        own = self._queue.identity
        self.queue_id = own.id
        if own.id:
            self._store.serve(ServingQueue(own.id, own.place, self._token, self._clock.now()))
        self.told = True
        self._look(self._store.queues())

    def renew(self) -> int:
        """Note the queue again where somebody struck it out."""
        if not self.told:
            self.tell()
            return 1
        noted = self._store.queues()
        self._look(noted)
        if self.queue_id and all(one.id != self.queue_id for one in noted):
            self.tell()
            return 1
        return 0

    def leave(self) -> None:
        """Strike the queue out if it is empty, nobody else claims from it and nobody came after this one."""
        if not self.told or not self.queue_id:
            return
        depth = self._queue.depth(lanes=False)
        own = self._queue.identity.instance
        if depth.remaining or depth.running or depth.dead:
            return
        if any(one.name != own for one in self._queue.instances()):
            return
        self.told = not self._store.retire(self.queue_id, token=self._token)

    def _look(self, noted: list[ServingQueue]) -> None:
        others = [one for one in noted if one.id != self.queue_id]
        if others and (self.alone or not self._said):
            self._said = True
            logger.warning(
                "store.other_queues",
                queues=[f"{one.place} ({one.id})" for one in others],
                hint="marks of done tasks are kept; let it run empty, or see `memos queue retire`",
            )
        self.alone = not others
