"""One accepted message inside the in-memory queue, and where it is.

An entry keeps the message's fields as they were submitted; every delivery is a fresh message made from
them, so that neither the caller's nor a handler's later changes reach a second run. A settled entry
drops its fields and stays as a status row.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from enum import Enum
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from memos.mem_scheduler.queues.base import DeadLetter, Delivery, Lane, TaskStatus
from memos.mem_scheduler.queues.columns import build_deliveries, build_message, build_messages
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState, class_of

if TYPE_CHECKING:
    from memos.mem_scheduler.queues.lanes import LaneQueue


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

_NAMES = tuple(ScheduleMessageItem.model_fields)
_values_by_name = itemgetter(*_NAMES)
_LABEL = _NAMES.index("label")
_ITEM = _NAMES.index("item_id")
_TASK = _NAMES.index("task_id")
_CONTENT = _NAMES.index("content")
_NESTED = tuple(_NAMES.index(name) for name in ("info", "chat_history", "user_context"))

Values = tuple[Any, ...]
"""The fields of a message in the order of its class: a third of the memory of a dictionary."""


def values_of(message: ScheduleMessageItem) -> Values:
    """The message's fields, independent of the message."""
    return _independent(_values_by_name(message.__dict__))


def lane_id_of(message: ScheduleMessageItem) -> LaneId:
    return (message.user_id, message.mem_cube_id, class_of(message.label))


def message_of(values: Values, *, key: str, stream: str) -> ScheduleMessageItem:
    """A message of fields that were validated when it was first made: validating them again would cost
    more than all the rest of a claim."""
    return build_message(_fields(values, key, stream))


def deliveries_of(entries: Sequence[Entry], *, stream: str) -> tuple[Delivery, ...]:
    """Deliveries of messages of one lane."""
    keys = [entry.key for entry in entries]
    return build_deliveries(
        keys,
        build_messages([_fields(entry.values, entry.key, stream) for entry in entries]),
        [entry.parent_key for entry in entries],
        [entry.attempts for entry in entries],
        [entry.recoveries for entry in entries],
        [entry.enqueued_at for entry in entries],
        [entry.absorbed_messages() if entry.absorbed else () for entry in entries],
    )


def _fields(values: Values, key: str, stream: str) -> dict[str, Any]:
    fields = dict(zip(_NAMES, _independent(values)))  # noqa: B905 - strict costs a tenth of a claim
    fields["redis_message_id"] = key
    fields["stream_key"] = stream
    return fields


def _independent(values: Values) -> Values:
    info, history, user_context = _NESTED
    if values[info] is None and values[history] is None and values[user_context] is None:
        return values
    return tuple(copy.deepcopy(value) if index in _NESTED else value for index, value in enumerate(values))


class Entry:
    """A message with everything the queue knows of it.

    The class attributes are the values most entries keep for life: not assigning them again for each
    message halves the cost of making one.
    """

    place = Place.QUEUED
    parent_key = ""
    attempts = 0
    recoveries = 0
    retried = False  # it failed, or asked for later, since it was last fresh
    due_at = 0.0  # monotonic: not before
    blocked_since: float | None = None  # monotonic: the first strict retry in this place
    started_at: float | None = None  # wall
    finished_at: float | None = None  # wall
    error = ""
    cancel_requested = False
    into: Entry | None = None  # COALESCED: the message that runs for it
    absorbed: tuple[Entry, ...] = ()  # those this one runs for, newest first

    def __init__(
        self, key: str, line: LaneQueue, values: Values, *, enqueued_at: float, ready_at: float
    ) -> None:
        self.key = key
        self.home: LaneQueue | None = line  # the lane that holds it; None once it is settled or dead
        self.lane: Lane = line.lane
        self.values = values
        self.label: str = values[_LABEL]
        self.item_id: str = values[_ITEM]
        self.task_id: str = values[_TASK] or ""
        self.enqueued_at = enqueued_at  # wall
        self.ready_at = ready_at  # monotonic: since when it could have been claimed

    @property
    def line(self) -> LaneQueue:
        """The lane that holds it. Only for messages that wait or run."""
        if self.home is None:
            raise AssertionError(f"message {self.key} is {self.place.value}: no lane holds it")
        return self.home

    def absorb(self, others: tuple[Entry, ...]) -> None:
        """Run for these, newest first, as well."""
        self.absorbed = others
        for one in others:
            one.place = Place.COALESCED
            one.into = self
            one.absorbed = ()

    def hand_over(self) -> Entry:
        """It will not run: the newest message that it would have run for takes over the others."""
        heir, *rest = self.absorbed
        self.absorbed = ()
        heir.into = None
        heir.place = Place.QUEUED
        heir.absorb(tuple(rest))
        return heir

    def settle_with(self, runner: Entry, place: Place) -> None:
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
        self.retried = self.cancel_requested = False
        self.due_at, self.blocked_since = 0.0, None
        self.started_at = self.finished_at = None
        self.error = ""
        self.ready_at = now

    def leave(self) -> None:
        """No lane holds it any more, nor those it would have run for."""
        for one in (self, *self.absorbed):
            one.home = None

    def let_go(self) -> None:
        """Settled for good: keep the status row only."""
        self.values = ()
        self.home = None
        self.into = None
        self.absorbed = ()

    def edit(self, content: str) -> None:
        self.values = (*self.values[:_CONTENT], content, *self.values[_CONTENT + 1 :])

    def absorbed_messages(self) -> tuple[ScheduleMessageItem, ...]:
        """Fresh messages of those it runs for, oldest first."""
        return tuple([one.content_message() for one in reversed(self.absorbed)])

    def content_message(self) -> ScheduleMessageItem:
        """A fresh message of what was submitted."""
        return message_of(self.values, key=self.key, stream=str(self.lane))

    def dead_letter(self) -> DeadLetter:
        return DeadLetter(
            key=self.key,
            message=message_of(self.values, key=self.key, stream=str(self.lane)),
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

    def status(self) -> TaskStatus:
        runner = self.into if self.place is Place.COALESCED and self.into is not None else self
        return TaskStatus(
            key=self.key,
            item_id=self.item_id,
            task_id=self.task_id,
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
