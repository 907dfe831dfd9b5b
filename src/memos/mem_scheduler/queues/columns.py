"""Messages, deliveries and outcomes made by the column. Pure.

Assigning one slot of all messages after the other costs a third of making each by itself, and a tuple made of a
row of columns less than that. These are most of what a claim and a finish do in this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from pydantic import BaseModel

from memos.mem_scheduler.queues.base import Delivery, Settled
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState

_ALL_SET = set(
    ScheduleMessageItem.model_fields
)  # shared: assigning a field adds a name that is there already
_MESSAGE_SLOTS = [
    BaseModel.__dict__[name].__set__
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
]
_delivery_of: Callable[[Iterable[Any]], Delivery] = partial(tuple.__new__, Delivery)
_settled_of: Callable[[Iterable[Any]], Settled] = partial(tuple.__new__, Settled)


def build_messages(fields: Sequence[dict[str, Any]]) -> list[ScheduleMessageItem]:
    """Messages of fields that were validated when they were first made, and become theirs."""
    messages = list(map(ScheduleMessageItem.__new__, repeat(ScheduleMessageItem, len(fields))))
    columns: tuple[Iterable[Any], ...] = (fields, repeat(_ALL_SET), repeat(None), repeat(None))
    for assign, column in zip(_MESSAGE_SLOTS, columns, strict=True):
        deque(map(assign, messages, column), maxlen=0)
    return messages


def build_message(fields: dict[str, Any]) -> ScheduleMessageItem:
    """One of them."""
    return build_messages((fields,))[0]


def build_deliveries(
    keys: Sequence[str],
    messages: Iterable[ScheduleMessageItem],
    parent_keys: Iterable[str],
    attempts: Iterable[int],
    recoveries: Iterable[int],
    enqueued_at: Iterable[float],
    absorbed: Iterable[tuple[ScheduleMessageItem, ...]],
) -> tuple[Delivery, ...]:
    """One of each column makes a delivery; a column may be endless."""
    columns = zip(keys, messages, parent_keys, attempts, recoveries, enqueued_at, absorbed)  # noqa: B905
    return tuple(map(_delivery_of, columns))


def build_settled(keys: Sequence[str], state: TaskState) -> list[Settled]:
    """Messages that all came to the same end, without an error."""
    return list(map(_settled_of, zip(keys, repeat(state), repeat(""))))
