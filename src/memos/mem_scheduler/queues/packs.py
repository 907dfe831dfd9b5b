"""Accepted messages inside the in-memory queue, by the pack, and where they are.

A pack holds messages of one lane and label that went through everything together: most wait, run and end in
the pack they came in. What goes a way of its own (a failure, a cancellation, a part that a claim takes) is
divided off. So the books are kept once a pack, and what is left a message is copying its fields.

A pack keeps the fields as they were submitted; every delivery is a fresh message made from a copy of them, so
that neither the caller's nor a handler's later changes reach a second run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from memos.mem_scheduler.queues.base import DeadLetter, Delivery, Lane, TaskStatus
from memos.mem_scheduler.queues.columns import build_deliveries, build_message, build_messages
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState, class_of

if TYPE_CHECKING:
    from memos.mem_scheduler.queues.lanes import LaneQueue

COUNT_MAX = 128  # messages of a pack: looking for one of them stays cheap

LaneId = tuple[str, str, str]  # user, cube, class


class Place(Enum):
    """Where a message is; it is in exactly one place."""

    QUEUED = "queued"
    DELAYED = "delayed"
    LEASED = "leased"
    COALESCED = "coalesced"  # a newer message of its label runs for it
    DEAD = "dead"
    GONE = "gone"  # a dead letter that was purged or pushed out
    DONE = "done"
    CANCELLED = "cancelled"


_STATES = {
    Place.QUEUED: TaskState.WAITING,
    Place.DELAYED: TaskState.WAITING,
    Place.LEASED: TaskState.IN_PROGRESS,
    Place.DEAD: TaskState.FAILED,
    Place.GONE: TaskState.FAILED,
    Place.DONE: TaskState.COMPLETED,
    Place.CANCELLED: TaskState.CANCELLED,
}

Fields = dict[str, Any]
"""The fields of a message by name. A copy of a dictionary costs a tenth of making one of names and values."""

_QUEUED = Place.QUEUED
_NOBODY: frozenset[str] = frozenset()

_NAMES = tuple(ScheduleMessageItem.model_fields)
_NESTED = ("info", "chat_history", "user_context")  # what a copy of the dictionary would share
_NOTHING_NESTED = (None, None, None)
_fields_of = attrgetter("__dict__")
_values_of = itemgetter(*_NAMES)
_nested_of = itemgetter(*_NESTED)
_place_of = itemgetter("user_id", "mem_cube_id", "label")
_key_of: Callable[[Fields], str] = itemgetter("redis_message_id")
_item_of = itemgetter("item_id")
_task_of = itemgetter("task_id")
_user_of = itemgetter("user_id")


def lane_id_of(message: ScheduleMessageItem) -> LaneId:
    return (message.user_id, message.mem_cube_id, class_of(message.label))


@dataclass(frozen=True, slots=True)
class Call:
    """The messages of one call: by the column in their order, and by the pack, of which each has a lane to join."""

    keys: list[str]
    items: list[str]
    tasks: list[str | None]
    users: list[str]
    owners: list[Pack]  # the pack of each
    packs: dict[Pack, LaneId]

    def by_lane(self) -> dict[LaneId, int]:
        """How many messages go to each lane."""
        numbers: dict[LaneId, int] = {}
        for pack, lane_id in self.packs.items():
            numbers[lane_id] = numbers.get(lane_id, 0) + pack.count
        return numbers


def gather(keys: list[str], messages: Sequence[ScheduleMessageItem]) -> Call:
    """The packs have the messages of each lane in their order."""
    copies, nested = _copies_of(list(map(_fields_of, messages)))
    packs: dict[Pack, LaneId] = {}
    owners: list[Pack] = []
    open_ones: dict[tuple[str, str, str], Pack] = {}  # by user, cube and label
    last_labels: dict[LaneId, str] = {}
    for key, fields, place in zip(keys, copies, map(_place_of, copies), strict=True):
        one = open_ones.get(place)
        if one is None or len(one.fields) >= COUNT_MAX:
            user_id, cube_id, label = place
            lane_id = (user_id, cube_id, class_of(label))
            before = last_labels.get(lane_id, label)
            if before != label:  # what follows of that label comes after this one
                del open_ones[user_id, cube_id, before]
            last_labels[lane_id] = label
            one = open_ones[place] = Pack(label, nested=nested)
            packs[one] = lane_id
        fields["redis_message_id"] = key
        one.fields.append(fields)
        owners.append(one)
    return Call(
        keys,
        list(map(_item_of, copies)),
        list(map(_task_of, copies)),
        list(map(_user_of, copies)),
        owners,
        packs,
    )


def _copies_of(fields: Sequence[Fields]) -> tuple[list[Fields], bool]:
    """Fields that are independent of these, and whether some of them hold containers."""
    if any(map(len(_NAMES).__ne__, map(len, fields))):  # of a class derived from ours
        fields = [dict(zip(_NAMES, _values_of(one), strict=True)) for one in fields]
    copies = list(map(dict.copy, fields))
    nested = any(map(_NOTHING_NESTED.__ne__, map(_nested_of, copies)))
    if nested:
        _part_from_others(copies)
    return copies, nested


def _part_from_others(copies: Iterable[Fields]) -> None:
    """The containers become those of these fields alone."""
    for fields in copies:
        for name in _NESTED:
            if fields[name] is not None:
                fields[name] = copy.deepcopy(fields[name])


class Pack:
    """Messages with everything the queue knows of them.

    A pack that failed, is dead, coalesced or runs for others has one message. It has slots and one list, because
    a backlog has many: each object that outlives its call brings the garbage collector's next full pass nearer.
    """

    __slots__ = (
        "absorbed",
        "asked",
        "attempts",
        "blocked_since",
        "due_at",
        "enqueued_at",
        "error",
        "fields",
        "finished_at",
        "home",
        "into",
        "label",
        "lane",
        "nested",
        "parent_key",
        "place",
        "ready_at",
        "recoveries",
        "retried",
        "started_at",
    )

    home: LaneQueue | None  # the lane that holds it; None once it is settled or dead
    lane: Lane
    enqueued_at: float  # wall
    ready_at: float  # monotonic: since when it could have been claimed

    def __init__(self, label: str, *, nested: bool) -> None:
        """Empty and on its way to a lane, which it is to `join`. `nested`: some fields may hold containers."""
        self.label = label
        self.nested = nested
        self.fields: list[Fields] = []  # of each message; its key is in them
        self.place = _QUEUED
        self.parent_key = ""
        self.attempts = self.recoveries = 0
        self.retried = False  # it failed, or asked for later, since it was last fresh
        self.due_at = 0.0  # monotonic: not before
        self.blocked_since: float | None = None  # monotonic: the first strict retry in this place
        self.started_at: float | None = None  # wall
        self.finished_at: float | None = None  # wall
        self.error = ""
        self.asked = _NOBODY  # keys of those that were asked to stop; more than the pack's perhaps
        self.into: Pack | None = None  # COALESCED: the message that runs for it
        self.absorbed: tuple[Pack, ...] = ()  # those this one runs for, newest first

    def join(self, line: LaneQueue, *, now: float, wall: float) -> None:
        """The messages were accepted."""
        self.home = line
        self.lane = line.lane
        self.enqueued_at = wall
        self.ready_at = now

    @property
    def count(self) -> int:
        """How many messages."""
        return len(self.fields)

    @property
    def key(self) -> str:
        """The key of the first message."""
        return _key_of(self.fields[0])

    @property
    def keys(self) -> list[str]:
        """The keys of all messages, in order."""
        return list(map(_key_of, self.fields))

    @property
    def line(self) -> LaneQueue:
        """The lane that holds it. Only for messages that wait or run."""
        if self.home is None:
            raise AssertionError(f"message {self.key} is {self.place.value}: no lane holds it")
        return self.home

    def part(self, start: int, stop: int) -> Pack:
        """The messages from `start` up to `stop` as a pack of their own. This one keeps them too."""
        part = copy.copy(self)
        part.fields = self.fields[start:stop]
        return part

    def only(self, key: str) -> Pack:
        """One of the messages as a pack of its own. This one keeps it too."""
        at = self.keys.index(key)
        return self.part(at, at + 1)

    def cut(self, start: int, stop: int) -> Pack:
        """Take those messages out."""
        part = self.part(start, stop)
        del self.fields[start:stop]
        return part

    def absorb(self, others: tuple[Pack, ...]) -> None:
        """Run for these, newest first, as well."""
        self.absorbed = others
        for one in others:
            one.place = Place.COALESCED
            one.into = self
            one.absorbed = ()

    def hand_over(self) -> Pack:
        """It will not run: the newest message that it would have run for takes over the others."""
        heir, *rest = self.absorbed
        self.absorbed = ()
        heir.into = None
        heir.place = Place.QUEUED
        heir.absorb(tuple(rest))
        return heir

    def settle_with(self, runner: Pack, place: Place) -> None:
        """The message that ran for this one came to its end."""
        self.place = place
        self.started_at = runner.started_at
        self.attempts = runner.attempts
        self.error = runner.error if place is not Place.DONE else ""

    def begin_again(self, line: LaneQueue, now: float) -> None:
        """Fresh budgets, in this lane."""
        self.place = Place.QUEUED
        for one in (self, *self.absorbed):
            one.home = line
        self.attempts = self.recoveries = 0
        self.retried = False
        self.asked = _NOBODY
        self.due_at, self.blocked_since = 0.0, None
        self.started_at = self.finished_at = None
        self.error = ""
        self.ready_at = now

    def leave(self) -> None:
        """No lane holds it any more, nor those it would have run for."""
        for one in (self, *self.absorbed):
            one.home = None

    def let_go(self) -> None:
        """Settled for good: others keep the status row only."""
        self.fields = []
        self.home = None
        self.into = None
        self.absorbed = ()

    def edit(self, content: str) -> None:
        self.fields = [fields | {"content": content} for fields in self.fields]

    def absorbed_messages(self) -> tuple[ScheduleMessageItem, ...]:
        """Fresh messages of those it runs for, oldest first."""
        return tuple([one.content_message() for one in reversed(self.absorbed)])

    def content_message(self) -> ScheduleMessageItem:
        """A fresh message of what was submitted, of a pack of one."""
        return build_message(_fresh((self,), stream=str(self.lane))[0])

    def dead_letter(self) -> DeadLetter:
        return DeadLetter(
            key=self.key,
            message=self.content_message(),
            parent_key=self.parent_key,
            error=self.error,
            attempts=self.attempts,
            recoveries=self.recoveries,
            first_at=self.enqueued_at,
            died_at=self.finished_at or self.enqueued_at,
        )

    def state(self) -> TaskState:
        if self.place is Place.COALESCED and self.into is not None:
            return self.into.state()
        if self.retried and self.place in (Place.QUEUED, Place.DELAYED):
            return TaskState.RETRYING
        return _STATES[self.place]

    def status(self, key: str) -> TaskStatus:
        """The status of one of the messages."""
        fields = self.fields[self.keys.index(key)]
        runner = self.into if self.place is Place.COALESCED and self.into is not None else self
        return TaskStatus(
            key=key,
            item_id=_item_of(fields),
            task_id=_task_of(fields) or "",
            user_id=self.lane.user_id,
            mem_cube_id=self.lane.mem_cube_id,
            label=self.label,
            state=self.state(),
            submitted_at=self.enqueued_at,
            started_at=runner.started_at,
            finished_at=runner.finished_at,
            attempts=runner.attempts,
            error=runner.error,
        )


def keys_of(packs: Iterable[Pack]) -> list[str]:
    """The keys of all their messages, in order."""
    return [_key_of(fields) for pack in packs for fields in pack.fields]


def items_and_tasks(packs: Iterable[Pack]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The item ids of all their messages, and the business tasks, "" where there is none; no tasks at all where
    none has one."""
    fields = [fields for pack in packs for fields in pack.fields]
    tasks = list(map(_task_of, fields))
    return tuple(map(_item_of, fields)), tuple([task or "" for task in tasks]) if any(tasks) else ()


def deliveries_of(packs: Sequence[Pack], *, stream: str) -> tuple[Delivery, ...]:
    """Deliveries of messages of one lane."""
    keys = keys_of(packs)
    messages = build_messages(_fresh(packs, stream=stream))
    enqueued_at: list[float] = []
    for pack in packs:
        enqueued_at += [pack.enqueued_at] * len(pack.fields)
    if not any(pack.parent_key or pack.attempts or pack.recoveries or pack.absorbed for pack in packs):
        return build_deliveries(keys, messages, repeat(""), repeat(0), repeat(0), enqueued_at, repeat(()))
    parent_keys: list[str] = []
    attempts: list[int] = []
    recoveries: list[int] = []
    absorbed: list[tuple[ScheduleMessageItem, ...]] = []
    for pack in packs:
        count = len(pack.fields)
        parent_keys += [pack.parent_key] * count
        attempts += [pack.attempts] * count
        recoveries += [pack.recoveries] * count
        absorbed += [pack.absorbed_messages() if pack.absorbed else ()] * count
    return build_deliveries(keys, messages, parent_keys, attempts, recoveries, enqueued_at, absorbed)


def _fresh(packs: Iterable[Pack], *, stream: str) -> list[Fields]:
    """Copies of the fields, with the name of the lane."""
    copies: list[Fields] = []
    for pack in packs:
        own = list(map(dict.copy, pack.fields))
        if pack.nested:
            _part_from_others(own)
        copies += own
    for fields in copies:
        fields["stream_key"] = stream
    return copies
