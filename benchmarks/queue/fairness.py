"""How far any backlogged user gets from its fair share, seen on the trace of claims."""

from __future__ import annotations

from collections import Counter

from benchmarks.queue.workload import LABEL, SUBMIT_SIZE, messages
from memos.mem_scheduler.queues.base import Done, TaskQueue


def fair_lag(queue: TaskQueue, *, users: int = 10, backlog: int = 10_000) -> float:
    """The largest |service - fair share| in messages while every user has work. Leaves the queue empty."""
    for _ in range(backlog // SUBMIT_SIZE):
        for user in range(users):
            queue.submit(
                [one.model_copy(update={"user_id": f"user-{user}"}) for one in messages(SUBMIT_SIZE, 1)]
            )
    served: Counter[str] = Counter({f"user-{n}": 0 for n in range(users)})
    worst = 0.0
    while max(served.values()) < backlog:
        for batch in queue.claim((LABEL,), lanes_max=1, timeout_s=0):
            queue.finish(batch, [Done()] * len(batch.deliveries))
            served[batch.lane.user_id] += len(batch.deliveries)
        share = sum(served.values()) / users
        worst = max(worst, *(abs(count - share) for count in served.values()))
    queue.clear()
    return worst
