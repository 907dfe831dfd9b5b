"""The queue as a child uses it: what was claimed and settled is written down, and a kill may strike there.

`points` decides, at each of the exact places where a lost process is hardest to make good, whether this
process kills itself now: after a commit and before the finish, after the finish and before its answer is
seen, after a submit and before its answer is seen.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memos.chaos.ledger import Claimed, Killed, Ledger, Refused, Settled, Stood, names, now
from memos.errors import LeaseLost, QueueError, QueueUnavailable
from memos.mem_scheduler.queues.base import Batch, Finish, Outcome, PartedQueue, TaskQueue
from memos.mem_scheduler.queues.base import Settled as Answer

if TYPE_CHECKING:
    from memos.memory.store import Followup

COMMIT_FINISH = "commit->finish"
FINISH_REPLY = "finish->reply"
SUBMIT_CHAIN = "submit->chain"
SUBMIT_REPLY = "submit->reply"
IN_HANDLER = "in the handler"
POINTS = (COMMIT_FINISH, FINISH_REPLY, SUBMIT_CHAIN, SUBMIT_REPLY, IN_HANDLER)


class Points:
    """Where this process kills itself: with probability `chance` anywhere, and at the `nth` pass of `at`."""

    def __init__(
        self, ledger: Ledger, source: random.Random, *, chance: float, at: str = "", nth: int = 1
    ) -> None:
        self._ledger = ledger
        self._source = source
        self._chance = chance
        self._at = at
        self._left = nth

    def passed(self, point: str) -> None:
        """This process is at `point`; may not return."""
        if point == self._at:
            self._left -= 1
        if (point == self._at and self._left == 0) or self._source.random() < self._chance:
            self.die(point)

    def die(self, point: str) -> None:
        """SIGKILL, said beforehand."""
        self._ledger.write(Killed(now(), os.getpid(), point))
        os.kill(os.getpid(), signal.SIGKILL)


class WitnessedQueue:
    """A `TaskQueue` over another one; everything that is not watched passes through."""

    def __init__(self, queue: TaskQueue, ledger: Ledger, points: Points, *, stall_s: float) -> None:
        self._queue = queue
        self._ledger = ledger
        self._points = points
        self._stall_s = stall_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def _epoch(self, batch: Batch) -> int:
        """One that no batch of another part of the queue has."""
        if not isinstance(self._queue, PartedQueue):
            return batch.epoch
        return batch.epoch * self._queue.part_count + self._queue.part_number(batch)

    def claim(self, *args: Any, **kwargs: Any) -> list[Batch]:
        batches = self._queue.claim(*args, **kwargs)
        for batch in batches:
            self._ledger.write(Claimed(now(), os.getpid(), self._epoch(batch), _names(batch)))
        return batches

    def finish(
        self, batch: Batch, outcomes: Sequence[Outcome], *, followups: Sequence[Followup] = ()
    ) -> list[Answer]:
        self._points.passed(COMMIT_FINISH)
        try:
            settled = self._queue.finish(batch, outcomes, followups=followups)
        except QueueError:
            self._ledger.write(Refused(now(), os.getpid(), self._epoch(batch), _names(batch)))
            raise
        self._points.passed(FINISH_REPLY)
        states = tuple(str(one.state) for one in settled)
        self._ledger.write(Settled(now(), os.getpid(), self._epoch(batch), _names(batch), states))
        return settled

    def finish_all(self, finishes: Sequence[Finish]) -> Sequence[list[Answer] | LeaseLost | QueueUnavailable]:
        """As `finish`; where one is to die between the two, it dies with all of them unanswered."""
        for _ in finishes:
            self._points.passed(COMMIT_FINISH)
        try:
            answers = self._queue.finish_all(finishes)
        except QueueError:
            for one in finishes:
                self._ledger.write(Refused(now(), os.getpid(), self._epoch(one.batch), _names(one.batch)))
            raise
        for _ in finishes:
            self._points.passed(FINISH_REPLY)
        for one, answer in zip(finishes, answers, strict=True):
            names_of, epoch = _names(one.batch), self._epoch(one.batch)
            if isinstance(answer, LeaseLost | QueueUnavailable):
                self._ledger.write(Refused(now(), os.getpid(), epoch, names_of))
            else:
                states = tuple(str(said.state) for said in answer)
                self._ledger.write(Settled(now(), os.getpid(), epoch, names_of, states))
        return answers

    def submit(self, *args: Any, **kwargs: Any) -> list[str]:
        keys = self._queue.submit(*args, **kwargs)
        self._points.passed(SUBMIT_CHAIN if kwargs.get("inside_handler") else SUBMIT_REPLY)
        return keys

    def renew(self, batches: Sequence[Batch]) -> list[Batch]:
        """A heartbeat that took long is written down: its process could not hold its leases meanwhile."""
        begun = now()
        try:
            return self._queue.renew(batches)
        finally:
            if now() - begun > self._stall_s:
                self._ledger.write(Stood(begun - self._stall_s, now(), os.getpid(), "slow heartbeat"))


def _names(batch: Batch) -> tuple[str, ...]:
    return names([(one.message.label, one.message.item_id) for one in batch.deliveries])
