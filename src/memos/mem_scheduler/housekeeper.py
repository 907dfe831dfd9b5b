"""The housekeeper: what has to be tidied now and then, on one thread, with bounded work per round.

* At start: followups that are committed but not queued (a crash between commit and finish, with the
  queue's memory gone) are queued, under their derived keys; so is the reading of raw items that is due. Where the
  queue or the store is away then, the rounds do it.
* Every round: the reading of raw items that is due and on no way: its server was killed before it was queued,
  or the queue was away, or has lost it. What is young is left to the call that stores it.
* From the first task on the store knows which queue serves it (`Service`), until that is empty and idle.
* Every round: marks whose message and parent are both settled are swept, held against the queue, never
  by age alone, and not as long as a server that fails might bring the message back. A dead letter counts as live, so that its retry still finds its mark. While another queue
  serves the store too nothing is swept.
* Every round: outbox rows whose message was cancelled, or ran inside another one (coalesced), are
  ticked, or the next start would bring them back; those that the queue has lost are queued again.
* Every round: what the scheduler added (memories to look over for forgetting).
* Every round: dead letters that the queue itself made of messages whose workers died are told of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from memos import log
from memos.clock import Clock, utc
from memos.errors import MemosError
from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_READ_TASK_LABEL, TaskState
from memos.mem_scheduler.service import Service
from memos.mem_scheduler.settlement import Settlement
from memos.mem_scheduler.unread import Unread, all_unread
from memos.memory.store import Followup, MemoryStore

logger = log.get_logger(__name__)

ROUND_S = 5.0
MARKS_MIN = 512
MARKS_MAX = 16_384
FOLLOWUPS_CHUNK = 500
LETTERS_MAX = 200
TELL_AFTER_S = 1.0
UNREAD_AFTER_S = 5.0  # an idle queue has read what is older
UNREAD_BUSY_AFTER_S = 60.0  # and a busy one most of it
UNREAD_OVERLAP = timedelta(seconds=300.0)
UNREAD_MAX = 200  # of a round: each asks the queue
_READ = frozenset({TaskState.COMPLETED})
SETTLED = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})


class Housekeeper:
    """Tidies store and queue of one scheduler."""

    def __init__(self, store: MemoryStore, queue: TaskQueue, settlement: Settlement, clock: Clock) -> None:
        self._store = store
        self._queue = queue
        self._settlement = settlement
        self._service = Service(store, queue, clock)
        self._since = clock.now()
        self._clock = clock
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._marks_limit = MARKS_MIN
        self._looked_until = utc(self._since)  # over what is due to be read
        self._settled_since: dict[str, float] = {}  # marks that were looked at, and since when they may go
        self._looked: set[Unread] = set()  # what is due and was looked at since a little before
        self._at_start: list[Callable[[], int]] = []  # what is still to be done of it
        self._duties: list[Callable[[], int]] = [
            self._service.renew,
            self.emit_late,
            self.tell_letters,
            self.tick_settled,
            self.sweep,
        ]

    def add_duty(self, duty: Callable[[], int]) -> None:
        """Do this too in every round; it bounds its own work and returns how much it did."""
        self._duties.append(duty)

    def start(self) -> None:
        with self._changed:
            self._stopping = False
        self.serve()
        self._thread = threading.Thread(target=self._work, name="memos-housekeeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        self._guarded(self._service.leave)

    def serve(self) -> None:
        """Tell the store which queue serves it, before the first task is claimed. Later calls do nothing."""
        if not self._service.told:
            self._guarded(self._service.tell)

    def emit_left_over(self) -> int:
        """Queue committed followups that nobody else will queue; returns how many."""
        waiting = self._orphans()
        for first in range(0, len(waiting), FOLLOWUPS_CHUNK):
            chunk = waiting[first : first + FOLLOWUPS_CHUNK]
            self._queue.submit([], followups=chunk, inside_handler=True)
        if waiting:
            logger.info("outbox.emitted_at_start", messages=len(waiting))
        return len(waiting)

    def emit_unread(self) -> int:
        """Queue the reading of raw items that is due and not on its way; returns how many messages.

        One that was given up or cancelled in this queue's memory is not brought back behind its back.
        """
        waiting = [one for one in all_unread(self._store) if self._states_of(one) <= _READ]
        self._queue_unread(waiting)
        if waiting:
            logger.info("unread.emitted_at_start", messages=len(waiting))
        return len(waiting)

    def emit_late(self) -> int:
        """Queue the reading of what was added a while ago and of which the queue has never heard; how many
        messages. What it has heard of, it has done or given up, whatever the items say."""
        depth = self._queue.depth(lanes=False)
        idle = not depth.remaining and not depth.running
        until = utc(self._clock.now() - (UNREAD_AFTER_S if idle else UNREAD_BUSY_AFTER_S))
        if until <= self._looked_until:
            return 0
        # What was begun long ago may have been committed just now.
        since = self._looked_until - UNREAD_OVERLAP
        due = [one for one in all_unread(self._store, since=since, until=until) if one not in self._looked]
        looked, rest = due[:UNREAD_MAX], due[UNREAD_MAX:]
        waiting = [one for one in looked if not self._states_of(one)]
        self._queue_unread(waiting)
        self._looked_until = rest[0].since if rest else until
        self._looked = {
            one for one in (*self._looked, *looked) if one.since > self._looked_until - UNREAD_OVERLAP
        }
        if waiting:
            logger.warning("unread.emitted", messages=len(waiting))
        return len(waiting)

    def _queue_unread(self, waiting: Sequence[Unread]) -> None:
        for first in range(0, len(waiting), FOLLOWUPS_CHUNK):
            chunk = [
                Followup(
                    one.key,
                    "",
                    ScheduleMessageItem(
                        item_id=one.item_id,
                        user_id=one.user_id,
                        mem_cube_id=one.cube_id,
                        session_id=one.session_id,
                        label=MEM_READ_TASK_LABEL,
                        content=one.content,
                    ),
                )
                for one in waiting[first : first + FOLLOWUPS_CHUNK]
            ]
            self._queue.submit([], followups=chunk, inside_handler=True)

    def _states_of(self, one: Unread) -> set[TaskState]:
        """What became of the messages that would read it, as far as the queue knows of any."""
        found = self._queue.statuses(user_id=one.user_id, item_id=one.item_id, limit=100)
        return {status.state for status in found}

    def sweep(self) -> int:
        """One round over the marks; returns how many went."""
        self.serve()
        if not self._service.alone:
            return 0
        marks = self._store.marks(limit=self._marks_limit)
        if not marks:
            return 0
        live = self._queue.live({key for pair in marks for key in pair if key})
        settled = [key for key, parent in marks if key not in live and parent not in live]
        settled = self._settled_for(self._queue.identity.forgets_s, settled)
        swept = self._store.sweep(settled, queue_id=self._service.queue_id) if settled else 0
        # Old marks of dead letters must not hide newer ones that could go: look further next time.
        full = len(marks) == self._marks_limit
        self._marks_limit = min(MARKS_MAX, self._marks_limit * 2) if full and swept == 0 else MARKS_MIN
        return swept

    def _settled_for(self, seconds: float, keys: list[str]) -> list[str]:
        """Those that looks since so long ago have found settled, and no look between as live."""
        now = self._clock.monotonic()
        self._settled_since = {key: self._settled_since.get(key, now) for key in keys}
        return [key for key in keys if now - self._settled_since[key] >= seconds]

    def tick_settled(self) -> int:
        """Take followups out of the outbox that are settled without having ticked, and queue those that the queue
        has lost; returns how many."""
        orphans = [(one, self._states_of_followup(one)) for one in self._orphans()]
        gone = [one.key for one, states in orphans if states & SETTLED]
        if gone:
            self._store.tick(gone)
        lost = [one for one, states in orphans if not states][:FOLLOWUPS_CHUNK]
        if lost:
            self._queue.submit([], followups=lost, inside_handler=True)
            logger.warning("outbox.emitted", messages=len(lost))
        return len(gone) + len(lost)

    def tell_letters(self) -> int:
        """Tell of new dead letters; returns how many."""
        # Those of the last moment may be about to be told of by the batch that they died in.
        until = self._clock.now() - TELL_AFTER_S
        letters = self._queue.dead.list(limit=LETTERS_MAX)
        return self._settlement.tell_letters([one for one in letters if self._since <= one.died_at <= until])

    def round(self) -> None:
        """All duties of a round, behind those of the start that could not be done yet."""
        self._at_start = [duty for duty in self._at_start if not self._guarded(duty)]
        for duty in tuple(self._duties):
            self._guarded(duty)

    def _states_of_followup(self, followup: Followup) -> set[TaskState]:
        statuses = self._queue.statuses(
            user_id=followup.message.user_id, item_id=followup.message.item_id, limit=100
        )
        return {one.state for one in statuses if one.key == followup.key}

    def _orphans(self) -> list[Followup]:
        """Unticked followups that neither are in the queue themselves nor have a parent there."""
        waiting = self._store.pending_followups()
        if not waiting:
            return []
        live = self._queue.live(_keys(waiting))
        orphans = [one for one in waiting if one.key not in live and one.parent_key not in live]
        if not orphans:
            return []
        # One that was queued and ran between the two looks is ticked by now: a second look leaves it out.
        still = {one.key for one in self._store.pending_followups()}
        return [one for one in orphans if one.key in still]

    def _work(self) -> None:
        starting: list[Callable[[], int]] = [self.emit_left_over, self.emit_unread]
        self._at_start = [duty for duty in starting if not self._guarded(duty)]
        while True:
            with self._changed:
                if not self._stopping:
                    self._clock.wait(self._changed, ROUND_S)
                if self._stopping:
                    return
            self.round()

    @staticmethod
    def _guarded(duty: Callable[[], object]) -> bool:
        """Whether it was done."""
        try:
            duty()
        except MemosError as error:
            logger.warning("housekeeping.failed", error=type(error).__name__)
        except Exception as error:  # the thread loop: one failed round must not end all rounds
            logger.error("housekeeping.died", error=type(error).__name__, exc_info=True)
        else:
            return True
        return False


def _keys(followups: Iterable[Followup]) -> set[str]:
    return {key for one in followups for key in (one.key, one.parent_key) if key}
