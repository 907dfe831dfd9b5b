"""The contract of a task queue, and the values that pass through it.

One state machine, several backends (`local` in memory, `sqlite` in a file, `redis_streams` on a server),
one conformance suite (`tests/conformance/test_queue*.py`).

    submit ──► delayed ──► queued ──claim──► leased ──finish──► done
                  ▲           ▲                │
                  │           ├── Release ─────┤
                  └── Retry ──┴── lease lost ──┤
                                               └── Dead, budgets spent ──► dead
    queued ──► parked (no live worker serves the head) ──► queued;   cancel, clear ──► cancelled

Guarantees
* A message whose `submit` returned is in exactly one of: queued, delayed, parked, leased, coalesced,
  done, dead, cancelled.
* Inside an ordered lane strictly in order of submission; nothing is promised across lanes.
* At most one holder per (lane, slot); a holder proves itself by the batch's `epoch` (and `claim`), and a late
  `finish` of one who lost the lease changes nothing and raises LeaseLost.
* Fair between users: start-time fair queueing (Goyal, Vin & Cheng 1996) over users inside each class;
  classes by level, with one claim in 16 kept for the lower ones. A user who holds `user_batches_max`
  leases (over all lanes; 0: no cap) is set aside, and comes back with the lease that ends; how many a
  user holds is counted from the leases themselves.
* `submit` takes all messages of a call or none (QueueFull). A submit from inside a handler and the
  followups of `finish` neither block nor count against the bounds.
* Two budgets: `attempts` (a handler failed) and `recoveries` (a lease was lost). After a lost lease the
  lane is claimed one message at a time until that message is settled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from memos.errors import LeaseLost, QueueUnavailable
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState

if TYPE_CHECKING:
    from memos.memory.store import Followup


@dataclass(frozen=True, slots=True)
class Lane:
    """The work of one user in one cube and class: one order, one stream."""

    user_id: str
    mem_cube_id: str
    task_class: str

    def __str__(self) -> str:
        """Percent-encoded, so that any character is safe between the slashes."""
        from urllib.parse import quote

        return "/".join(quote(part, safe="") for part in (self.user_id, self.mem_cube_id, self.task_class))


class Delivery(NamedTuple):  # a third of the cost of a dataclass, and there is one a message
    """One leased message. `message.redis_message_id` is the key too, `message.stream_key` the lane."""

    key: str
    message: ScheduleMessageItem
    parent_key: str = ""
    attempts: int = 0  # failed runs before this one
    recoveries: int = 0  # lost leases before this one
    enqueued_at: float = 0.0  # wall time of the submit
    absorbed: tuple[ScheduleMessageItem, ...] = ()  # coalesced: those it runs for as well, oldest first


_label_of = attrgetter("message.label")


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one lane leased together, oldest first."""

    lane: Lane
    slot: int
    epoch: int
    deliveries: tuple[Delivery, ...]
    expires_at: float  # wall time of the queue's clock
    claim: str = ""  # proves the holder beside the epoch where a server may lose its count of epochs

    @property
    def labels(self) -> frozenset[str]:
        """The labels of its messages."""
        return frozenset(map(_label_of, self.deliveries))


@dataclass(frozen=True, slots=True)
class Done:
    """The message is finished."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Run it again after `delay_s` (None: the policy's backoff). `counts`: against max_attempts."""

    error: str
    delay_s: float | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Dead:
    """Put it to the dead letters now."""

    error: str


@dataclass(frozen=True, slots=True)
class Release:
    """Hand it back untouched: it was not run (graceful stop)."""


Outcome = Done | Retry | Dead | Release


class Settled(NamedTuple):  # as Delivery
    """What `finish` made of one message: `state` is COMPLETED, RETRYING, FAILED (dead), WAITING (released),
    or CANCELLED (to be run again, but it was cancelled meanwhile)."""

    key: str
    state: TaskState
    error: str = ""


@dataclass(frozen=True, slots=True)
class Finish:
    """A batch to be settled: `outcomes[i]` is for `batch.deliveries[i]`."""

    batch: Batch
    outcomes: Sequence[Outcome]
    followups: Sequence[Followup] = ()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up."""

    key: str
    message: ScheduleMessageItem
    parent_key: str
    error: str
    attempts: int
    recoveries: int
    first_at: float  # when it was submitted
    died_at: float


@dataclass(frozen=True, slots=True)
class LaneDepth:
    """What one lane holds, label by label."""

    lane: Lane
    queued: Mapping[str, int]
    delayed: Mapping[str, int]
    parked: Mapping[str, int]
    running: Mapping[str, int]
    oldest_s: Mapping[str, float] = field(default_factory=dict)
    """The lag by label: for how many seconds its first (or oldest: the backend's choice) queued or parked
    message has been ready to run, or has blocked the lane. Only the first LAG_LOOK_MAX messages of a lane
    need be looked at; a label with none of them may be missing."""


@dataclass(frozen=True, slots=True)
class LabelTimes:
    """Seconds over the last finished messages of a label; None before the first."""

    waiting_p50: float | None = None
    waiting_p95: float | None = None
    running_p50: float | None = None
    running_p95: float | None = None


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """One consistent picture of the queue. `remaining` = queued + delayed + parked; `running` = leased by
    any instance, expired leases included until they are queued again."""

    remaining: int
    running: int
    queued: int
    delayed: int
    parked: int
    dead: int
    lanes: tuple[LaneDepth, ...] = ()
    times: Mapping[str, LabelTimes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What became of one accepted message. Times are wall time; None: not yet."""

    key: str
    item_id: str
    task_id: str  # the business task, "" when there is none
    user_id: str
    mem_cube_id: str
    label: str
    state: TaskState
    submitted_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempts: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """A queue object that claims: one in each worker process, named anew at each start."""

    name: str
    host: str
    pid: int
    labels: frozenset[str]  # what its last claim asked for
    since: float  # wall time at which it began
    seen_at: float  # wall time of a claim or renewal; up to INSTANCE_REFRESH_S behind


@dataclass(frozen=True, slots=True)
class QueueIdentity:
    """`id` names the queue as long as it keeps its messages, whoever opens it; "": it is gone with the process.
    `place` is for people; `instance` is the queue object's own name. `forgets_s`: how far back a server that fails
    may take it (a failover to a replica that is behind, a file that is synced now and then)."""

    id: str
    place: str
    instance: str
    forgets_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A batch that somebody holds, for people to look at."""

    lane: Lane
    slot: int
    epoch: int
    instance: str  # the name of the one who claimed it
    labels: Mapping[str, int]  # messages by label
    held_s: float  # since the claim
    expires_in_s: float  # below 0: lost, until a claim comes by and queues its messages again


WhenFull = Literal["reject", "coalesce"]
LAG_LOOK_MAX = 256  # waiting messages of a lane that are looked at for its lag
INSTANCES_MAX = 256  # instances remembered; those that were not seen for longest leave first
INSTANCE_SEEN_S = 60.0  # for how long an instance that was not seen is listed
INSTANCE_REFRESH_S = 15.0  # how often it is noted at most that an instance was seen


class PolicyTable(Protocol):
    """Policies by label, shared by all processes of the queue. `version` rises with every write."""

    @property
    def version(self) -> int: ...

    def get(self, label: str) -> TaskPolicy: ...

    def put(self, label: str, policy: TaskPolicy) -> None:
        """Set a label's policy; held leases of the label are renewed by its new length at once.

        ConfigError when order, concurrency or level contradict a built-in class.
        """
        ...

    def labels(self) -> list[str]:
        """The labels for which a policy was written."""
        ...


class DeadLetters(Protocol):
    """The messages that were given up; bounded, the oldest leave first and are counted."""

    def list(
        self, *, label: str | None = None, user_id: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """Newest first."""
        ...

    def show(self, key: str) -> DeadLetter:
        """InvalidInput when there is no such letter."""
        ...

    def edit(self, key: str, content: str) -> DeadLetter:
        """Change the payload before a retry."""
        ...

    def retry(self, keys: Sequence[str] | None = None) -> int:
        """Queue them again (None: all) with fresh budgets, at the end of their lanes. Returns how many."""
        ...

    def purge(self, keys: Sequence[str] | None = None) -> int:
        """Drop them for good (None: all). Returns how many."""
        ...


@runtime_checkable
class ForgettingQueue(Protocol):
    """A queue that outlives its process, and can wipe what finished tasks left behind."""

    def forget(self, user_id: str) -> bool:
        """Wipe the states of a user's finished tasks, the errors of open ones and the idempotency keys, and
        older pages of a file; False: a reader still needs those."""
        ...

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Everything that the queue keeps outside of files, by name, to look for traces in."""
        ...


@runtime_checkable
class PartedQueue(Protocol):
    """A queue in parts, of which one may be away while the others answer."""

    @property
    def part_count(self) -> int: ...

    def part_number(self, batch: Batch) -> int:
        """Which part a batch is of, from 0."""
        ...


class TaskQueue(Protocol):
    """See the module docstring for what every backend guarantees. All methods are thread-safe."""

    @property
    def policies(self) -> PolicyTable: ...

    @property
    def dead(self) -> DeadLetters: ...

    @property
    def identity(self) -> QueueIdentity:
        """What the memory store knows the queue by. Raises QueueUnavailable."""
        ...

    @property
    def messages_max(self) -> int:
        """How many messages the whole queue may hold; the documented `maxsize`."""
        ...

    def submit(
        self,
        messages: Sequence[ScheduleMessageItem],
        *,
        delay_s: float = 0.0,
        token: str | None = None,
        idempotency_key: str | None = None,
        followups: Sequence[Followup] = (),
        inside_handler: bool = False,
        when_full: WhenFull = "reject",
    ) -> list[str]:
        """Queue `messages` (keys are minted) and `followups` (which bring their key), all or none.

        Returns the keys in order. A repeated `token`, and a followup whose key is still live, is
        recognised and queued once. Messages are copied: later changes by the caller do not count.

        `token` names one call, to repair a lost reply; the last 10,000 are remembered. An
        `idempotency_key` names what the caller means, within one user and cube: a call that repeats it
        within `idempotency_ttl_s` of the first is given the first one's keys, whatever became of the
        messages, by any process; it is never pushed out before its time. `clear` forgets both.

        `when_full="coalesce"`: a call that does not fit is taken all the same if each of its messages
        joins a waiting one of its lane and label (a coalescing label; ABSORBED_MAX to one).

        Raises QueueFull (also when idempotency_keys_max keys are remembered), QueueUnavailable,
        InvalidInput (an idempotency key that was used for other messages, or messages of several
        cubes under one).
        """
        ...

    def claim(
        self, labels: Collection[str], *, lanes_max: int, batch_max: int | None = None, timeout_s: float = 1.0
    ) -> list[Batch]:
        """Lease up to `lanes_max` batches whose messages all carry one of `labels`.

        Waits without polling until there is work, `timeout_s` has passed, or `wake` is called. The size
        of a batch is the queue's own (adaptive) unless `batch_max` is smaller. A lane whose head carries
        another label is parked and comes back, in order, to a claim that names that label.
        """
        ...

    def finish(
        self, batch: Batch, outcomes: Sequence[Outcome], *, followups: Sequence[Followup] = ()
    ) -> list[Settled]:
        """Settle a whole batch in one step: `outcomes[i]` is for `batch.deliveries[i]`.

        Followups are queued in the same step. Raises LeaseLost (nothing is changed, nothing queued).
        """
        ...

    def finish_all(
        self, finishes: Sequence[Finish]
    ) -> Sequence[list[Settled] | LeaseLost | QueueUnavailable]:
        """Settle several batches in one step, at the cost of little more than one: of each what `finish` would
        answer, or the LeaseLost that it would raise, which changes nothing for the others. QueueUnavailable is
        the answer for those of a part of the queue that is away, where others are not."""
        ...

    def renew(self, batches: Sequence[Batch]) -> list[Batch]:
        """Prolong the leases; returns the batches that are lost. Raises QueueUnavailable: ShardsUnavailable where that
        is so of some of them."""
        ...

    def cancel(self, keys: Sequence[str]) -> list[str]:
        """Take waiting messages out, surely; mark running ones (`is_cancelled`). Returns the keys taken out."""
        ...

    def is_cancelled(self, key: str) -> bool:
        """Whether a running message was asked to stop."""
        ...

    def depth(self, *, lanes: bool = True) -> QueueDepth:
        """Counts, taken in one step. `lanes=False`: without the lanes, cheap enough to ask often."""
        ...

    def instances(self) -> list[Instance]:
        """Who claims, of all processes: those seen within INSTANCE_SEEN_S, or that hold a lease. The
        first claim makes an instance known, `close` takes it out. By name."""
        ...

    def leases(self, *, limit: int = 100) -> list[HeldLease]:
        """The leases that are held, of all processes, the longest held first; at most `limit`."""
        ...

    def live(self, keys: Collection[str]) -> set[str]:
        """Those of `keys` that are queued, delayed, parked, coalesced, leased or dead."""
        ...

    def statuses(
        self,
        *,
        user_id: str | None = None,
        item_id: str | None = None,
        task_id: str | None = None,
        limit: int | None = None,
    ) -> list[TaskStatus]:
        """What became of messages, newest submit first; kept for 7 days or up to the settings' bound."""
        ...

    def get(self, keys: Sequence[str]) -> list[Delivery]:
        """The messages of keys that are still live; dead letters, and what those would run for, are left out, as
        are unknown keys."""
        ...

    def clear(self) -> int:
        """Drop all waiting messages, fence the running ones (their finish raises LeaseLost), mark all of
        them cancelled, and return how many there were. Dead letters stay."""
        ...

    def wake(self) -> None:
        """Let every waiting `claim` of this process return."""
        ...

    def close(self) -> None: ...


Listener = Callable[[TaskStatus], None]
