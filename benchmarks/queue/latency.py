"""From submit to claim: alone, and past a backlog of work that is less urgent."""

from __future__ import annotations

import threading
import time

from benchmarks.queue.workload import LABEL, LANES_MAX, SUBMIT_SIZE, URGENT, USERS, messages
from memos.mem_scheduler.queues.base import Done, TaskQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

GAP_S = 0.004  # between two urgent messages


def wake_ms(queue: TaskQueue, samples: int) -> list[float]:
    """From just before the submit to the return of the claim that waits in another thread."""
    (one,) = messages(1, 1)
    took: list[float] = []
    sent = [0.0]
    ready = threading.Semaphore(0)

    def consume() -> None:
        for _ in range(samples):
            ready.release()
            batches = queue.claim((LABEL,), lanes_max=LANES_MAX, timeout_s=60.0)
            took.append((time.perf_counter() - sent[0]) * 1_000)
            for batch in batches:
                queue.finish(batch, [Done()] * len(batch.deliveries))

    consumer = threading.Thread(target=consume)
    consumer.start()
    for _ in range(samples):
        ready.acquire()
        time.sleep(0.005)  # let the claim begin to wait
        sent[0] = time.perf_counter()
        queue.submit([one])
    consumer.join()
    return took


def urgent_ms(queue: TaskQueue, *, backlog: int, samples: int) -> list[float]:
    """From the submit of a level-1 message to its claim, while one consumer works off a backlog.

    The consumer claims one batch at a time and finishes it at once. Only messages that were sent while
    more than half of the backlog stood count; it is filled up again until there are enough.
    """
    filler = messages(SUBMIT_SIZE, USERS)
    urgent = filler[0].model_copy(update={"user_id": "urgent", "label": URGENT})
    took: list[float] = []
    while len(took) < samples:
        for _ in range(backlog // SUBMIT_SIZE):
            queue.submit(filler)
        took += _past_backlog(queue, urgent, backlog=backlog)
    return took[:samples]


def _past_backlog(queue: TaskQueue, urgent: ScheduleMessageItem, *, backlog: int) -> list[float]:
    took: list[float] = []
    arrived = threading.Event()
    left = [backlog]
    sending = threading.Event()
    sending.set()

    def consume() -> None:
        while batches := queue.claim((LABEL, URGENT), lanes_max=1, timeout_s=0.05):
            for batch in batches:
                if batch.deliveries[0].message.label == URGENT:
                    took.append(time.perf_counter())
                    arrived.set()
                else:
                    left[0] -= len(batch.deliveries)
                queue.finish(batch, [Done()] * len(batch.deliveries))

    consumer = threading.Thread(target=consume)
    consumer.start()
    waits: list[float] = []
    while left[0] > backlog // 2:
        time.sleep(GAP_S)
        arrived.clear()
        sent = time.perf_counter()
        queue.submit([urgent])
        if not arrived.wait(60.0):
            raise TimeoutError("an urgent message did not arrive within 60 s")
        waits.append((took[-1] - sent) * 1_000)
    consumer.join()
    return waits
