"""The messages that all rows send, and how they are sent: the same body for us, the floors and the peers."""

from __future__ import annotations

from memos.mem_scheduler.queues.base import Done, TaskQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

LABEL = "benchmark"
URGENT = "query"  # a label of level 1
USERS = 100
SUBMIT_SIZE = 500
LANES_MAX = 16
BODY = "x" * 100
BACKLOG = 10_000


def messages(count: int, users: int) -> list[ScheduleMessageItem]:
    return [
        ScheduleMessageItem(user_id=f"user-{n % users}", mem_cube_id="cube", label=LABEL, content=BODY)
        for n in range(count)
    ]


def drain(queue: TaskQueue, labels: tuple[str, ...] = (LABEL,)) -> list[int]:
    """Claim and finish as done until nothing is ready; the sizes of the batches."""
    sizes = []
    while batches := queue.claim(labels, lanes_max=LANES_MAX, timeout_s=0):
        for batch in batches:
            queue.finish(batch, [Done()] * len(batch.deliveries))
            sizes.append(len(batch.deliveries))
    return sizes
