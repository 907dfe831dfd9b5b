"""Messages in the queue, and some that are given up, without any handler."""

from __future__ import annotations

from memos.mem_scheduler.queues.base import Batch, Dead, Done
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import Runtime


def message(label: str, *, user: str = "u", cube: str = "", content: str = "x") -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id=user, mem_cube_id=cube or user, label=label, content=content)


def claimed(runtime: Runtime, label: str) -> Batch:
    [batch] = runtime.queue.claim([label], lanes_max=1, batch_max=1, timeout_s=1)
    return batch


def give_up(
    runtime: Runtime, *, user: str = "u", cube: str = "", content: str = "x", label: str = "bad"
) -> str:
    """A dead letter; its key."""
    [key] = runtime.queue.submit([message(label, user=user, cube=cube, content=content)])
    runtime.queue.finish(claimed(runtime, label), [Dead("ValueError: no total")])
    return key


def run_one(runtime: Runtime, label: str, *, user: str = "u") -> None:
    """A message that ran and is done."""
    runtime.queue.submit([message(label, user=user)])
    runtime.queue.finish(claimed(runtime, label), [Done()])
