"""The durable task queue of one machine: a SQLite file that several processes share.

    with SqliteQueue(home / "queue.db", clock=SystemClock()) as queue: ...

It stands beside the memory file, never inside it: effects once are the store's own (`apply_once`), and a
queue that is busy does not hold up a store that is read.
"""

from memos.mem_scheduler.queues.sqlite.queue import SqliteQueue

__all__ = ["SqliteQueue"]
