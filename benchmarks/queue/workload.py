"""The messages that all rows send, and how they are sent: the same body for us, the floors and the peers."""

from __future__ import annotations

from memos.mem_scheduler.queues.base import Done, Finish, TaskQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.settler import MESSAGES_MAX

LABEL = "benchmark"
URGENT = "query"  # a label of level 1
USERS = 100
SUBMIT_SIZE = 500
LANES_MAX = 16
BODY = "x" * 100
BACKLOG = 10_000
_DONE = Done()


def messages(count: int, users: int) -> list[ScheduleMessageItem]:
    return [
        ScheduleMessageItem(user_id=f"user-{n % users}", mem_cube_id="cube", label=LABEL, content=BODY)
        for n in range(count)
    ]


def drain(queue: TaskQueue, labels: tuple[str, ...] = (LABEL,)) -> list[int]:
    """Claim and finish as done until nothing is ready, batch by batch; the sizes of the batches."""
    sizes = []
    while batches := queue.claim(labels, lanes_max=LANES_MAX, timeout_s=0):
        for batch in batches:
            queue.finish(batch, [_DONE] * len(batch.deliveries))
            sizes.append(len(batch.deliveries))
    return sizes


def drain_together(queue: TaskQueue) -> int:
    """As `drain`, but what a claim brought is settled as a scheduler settles batches that end at the same time:
    in calls of at most `MESSAGES_MAX` messages. Returns how many messages there were."""
    count = 0
    while batches := queue.claim((LABEL,), lanes_max=LANES_MAX, timeout_s=0):
        together: list[Finish] = []
        messages = 0
        for batch in batches:
            size = len(batch.deliveries)
            if together and messages + size > MESSAGES_MAX:
                _settle(queue, together)
                together, messages = [], 0
            together.append(Finish(batch, [_DONE] * size))
            messages += size
            count += size
        _settle(queue, together)
    return count


def _settle(queue: TaskQueue, together: list[Finish]) -> None:
    for answer in queue.finish_all(together):
        if isinstance(answer, Exception):
            raise answer
