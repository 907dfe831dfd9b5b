"""Several queue objects on one file take turns at random: the file's tables agree after every step."""

from __future__ import annotations

import contextlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conformance.queue_model import message

from memos.errors import LeaseLost, QueueError, QueueFull
from memos.mem_scheduler.orchestrator import BUILT_IN_CLASSES, TaskPolicy
from memos.mem_scheduler.queues.base import Batch, Dead, Done, Outcome, Release, Retry
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.store import Followup
from memos.testing import ManualClock

from .books import FailingConnection, check_books

_SHORT = {"max_attempts": 3, "max_recoveries": 2, "min_idle_ms": 10_000, "block_s_max": 15.0}
POLICIES = {
    "query": replace(BUILT_IN_CLASSES["turn"], **_SHORT),
    "answer": replace(BUILT_IN_CLASSES["turn"], **{**_SHORT, "min_idle_ms": 5_000}),
    "mem_update": replace(BUILT_IN_CLASSES["memory"], **_SHORT, coalesce=True),
    "pref_add": replace(BUILT_IN_CLASSES["memory"], **_SHORT),
    "free": TaskPolicy(concurrency=3, **_SHORT),
    "aside": TaskPolicy(ordered=True, concurrency=1, retry_order="aside", **_SHORT),
}
LABELS = sorted(POLICIES)
OUTCOMES: list[Outcome] = [
    Retry("again", 0.0),
    Retry("later", 3.0),
    Retry("not a failure", 2.0, counts=False),
    Dead("never"),
    Release(),
]
STEPS = {
    "submit": 20, "submit_many": 3, "claim": 45, "finish": 45, "renew": 4, "cancel": 8, "letters": 2,
    "time": 18, "policy": 2, "clear": 0.2, "reopen": 2, "abandon": 2, "read": 4,
}  # fmt: skip


class Crowd:
    """Queue objects on one file, who holds what of them, and one source of chance."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.pick = random.Random(seed)
        self.cap = self.pick.choice([0, 0, 3])
        self.clock = ManualClock()
        self.queues: list[SqliteQueue] = []
        self.held: list[tuple[SqliteQueue, Batch]] = []  # also of objects that are closed
        self.sent: set[str] = set()
        self.children = 0
        self.faults = 0
        for _ in range(3):
            self.join()
        for label, policy in POLICIES.items():
            self.queues[0].policies.put(label, policy)

    def join(self) -> None:
        seed = self.pick.randrange(2**32)
        queue = SqliteQueue(
            self.path, clock=self.clock, random=random.Random(seed), messages_max=400, dead_letters_max=20,
            user_batches_max=self.cap,
        )  # fmt: skip
        self.queues.append(queue)

    def step(self) -> None:
        """One call of one object. Now and then a statement of it fails, before or after it is done."""
        what = self.pick.choices(list(STEPS), list(STEPS.values()))[0]
        queue = self.pick.choice(self.queues)
        if self.pick.random() >= 0.08:
            getattr(self, what)(queue)
            return
        failing = FailingConnection(
            queue._file._writer, at=self.pick.randrange(1, 25), done_first=self.pick.random() < 0.5
        )
        queue._file._writer = failing
        try:
            getattr(self, what)(queue)
        except QueueError:
            if not failing.failed:
                raise
            self.faults += 1
        finally:
            if queue._file._writer is not None:
                queue._file._writer = failing.connection

    def one(self) -> ScheduleMessageItem:
        pick = self.pick
        content = "x" * pick.choice([1, 10, 100, 30_000]) if pick.random() < 0.1 else "text\n,\n"
        return message(
            pick.choice(LABELS), user=f"u{pick.randrange(4)}", item=f"i{pick.randrange(50)}", content=content,
            task=pick.choice([None, "t"]),
        )  # fmt: skip

    def send(self, queue: SqliteQueue, ones: list[ScheduleMessageItem]) -> None:
        delay_s = self.pick.choice([0.0, 0.0, 0.0, 4.0])
        token = f"token-{self.pick.randrange(30)}" if self.pick.random() < 0.2 else None
        with contextlib.suppress(QueueFull):
            self.sent.update(queue.submit(ones, delay_s=delay_s, token=token))

    def submit(self, queue: SqliteQueue) -> None:
        self.send(queue, [self.one() for _ in range(self.pick.randrange(1, 9))])

    def submit_many(self, queue: SqliteQueue) -> None:
        label, user = self.pick.choice(LABELS), f"u{self.pick.randrange(4)}"
        self.send(queue, [message(label, user=user)] * self.pick.randrange(20, 180))

    def claim(self, queue: SqliteQueue) -> None:
        pick = self.pick
        wanted = LABELS if pick.random() < 0.8 else pick.sample(LABELS, 3)
        batch_max = pick.choice([None, None, None, 1, 3])
        batches = queue.claim(wanted, lanes_max=pick.randrange(1, 6), batch_max=batch_max, timeout_s=0)
        self.held += [(queue, batch) for batch in batches]

    def finish(self, _: SqliteQueue) -> None:
        if not self.held:
            return
        pick = self.pick
        queue, batch = self.held.pop(pick.randrange(len(self.held)))
        results: list[Outcome] = [Done()] * len(batch.deliveries)
        if pick.random() < 0.4:
            results = [pick.choice(OUTCOMES) if pick.random() < 0.3 else Done() for _ in results]
        followups = []
        for _ in range(pick.choice([0, 0, 0, 1, 2])):
            self.children += pick.random() < 0.8  # else a key that was used
            key = f"C{self.children:025d}"
            followups.append(Followup(key, batch.deliveries[0].key, self.one()))
        try:
            queue.finish(batch, results, followups=followups)
        except LeaseLost:
            return
        self.sent.update(one.key for one in followups)

    def renew(self, queue: SqliteQueue) -> None:
        queue.renew([batch for _, batch in self.held])

    def cancel(self, queue: SqliteQueue) -> None:
        if self.sent:
            queue.cancel(self.pick.sample(sorted(self.sent)[-200:], k=min(len(self.sent), 3)))

    def letters(self, queue: SqliteQueue) -> None:
        keys = [letter.key for letter in queue.dead.list()]
        if keys:
            chosen = self.pick.sample(keys, k=self.pick.randrange(1, len(keys) + 1))
            self.pick.choice([queue.dead.retry, queue.dead.purge])(chosen)

    def time(self, _: SqliteQueue) -> None:
        self.clock.advance(self.pick.choice([0.01, 0.06, 0.2, 1.0, 6.0]))

    def policy(self, queue: SqliteQueue) -> None:
        label = self.pick.choice(LABELS)
        bound = self.pick.choice([1, 2, 5, 64])
        queue.policies.put(label, replace(POLICIES[label], batch_size_max=bound))

    def clear(self, queue: SqliteQueue) -> None:
        queue.clear()

    def reopen(self, queue: SqliteQueue) -> None:
        """It is closed, its batches may be finished yet; another object comes in its place."""
        self.queues.remove(queue)
        queue.close()
        self.join()

    def abandon(self, queue: SqliteQueue) -> None:
        """Its handlers are never heard of again."""
        self.held = [(owner, batch) for owner, batch in self.held if owner is not queue]

    def read(self, queue: SqliteQueue) -> None:
        known = {row.key for row in queue.statuses()}
        assert self.sent <= known
        assert queue.live(known) <= known

    def drain(self) -> None:
        """All that is left runs; what was answered is known, and nothing waits."""
        queue = self.queues[0]
        for _ in range(200):
            self.clock.advance(40.0)
            while batches := queue.claim(LABELS, lanes_max=9, timeout_s=0):
                for batch in batches:
                    queue.finish(batch, [Done()] * len(batch.deliveries))
            check_books(queue)
            depth = queue.depth()
            if not depth.remaining and not depth.running:
                break
        assert (depth.remaining, depth.running, depth.lanes) == (0, 0, ())
        assert self.sent <= {row.key for row in queue.statuses()}
        assert queue.live(self.sent) == {one.key for one in queue.dead.list()} | self._absorbed_by_letters()

    def _absorbed_by_letters(self) -> set[str]:
        with self.queues[0]._file.read() as connection:
            rows = connection.execute("SELECT ids FROM pack WHERE place = 3").fetchall()
        return {json.loads(text)[3][0][0] for (text,) in rows}

    def close(self) -> None:
        for queue in self.queues:
            queue.close()


def interleave(path: Path, *, seed: int, steps: int) -> None:
    crowd = Crowd(path, seed)
    try:
        for _ in range(steps):
            crowd.step()
            check_books(crowd.queues[0])
        crowd.drain()
    finally:
        crowd.close()
    assert crowd.faults > steps // 100


@pytest.mark.parametrize("seed", range(3))
def test_objects_that_take_turns_agree(tmp_path: Path, seed: int) -> None:
    """Some hundred steps of submitting, claiming, finishing, cancelling, failing, closing and faults."""
    interleave(tmp_path / "queue.db", seed=seed, steps=400)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(100, 108))
def test_many_objects_that_take_turns_agree(tmp_path: Path, seed: int) -> None:
    """The same with many more files, each of which begins empty."""
    for n in range(12):
        interleave(tmp_path / f"{n}.db", seed=seed * 1_000 + n, steps=500)
