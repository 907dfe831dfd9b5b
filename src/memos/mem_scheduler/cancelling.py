"""Cancelling messages: one, those of an item, of a business task, of a user.

A message that waits is taken out, surely, and never runs. One that runs cannot be stopped from outside: it
is asked to (`current.cancelled()` tells its handler), and what it submits meanwhile is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memos.errors import InvalidInput
from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.settlement import FINAL, Settlement

CHUNK = 500  # messages cancelled in one step


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What a cancel did, by message key."""

    taken_out: tuple[str, ...]  # they will not run
    asked: tuple[str, ...]  # they run, and were asked to stop


def cancel(
    queue: TaskQueue,
    settlement: Settlement,
    *,
    keys: Sequence[str] = (),
    item_id: str | None = None,
    task_id: str | None = None,
    user_id: str | None = None,
) -> Cancellation:
    """Cancel the named messages, or all that are open of an item, task or user (all that are given count).

    Raises InvalidInput when nothing is named.
    """
    if not keys and item_id is None and task_id is None and user_id is None:
        raise InvalidInput("say what to cancel: keys, item_id, task_id or user_id")
    wanted = list(dict.fromkeys(keys)) or [
        row.key
        for row in queue.statuses(user_id=user_id, item_id=item_id, task_id=task_id)
        if row.state not in FINAL
    ]
    taken_out: list[str] = []
    asked: list[str] = []
    for first in range(0, len(wanted), CHUNK):
        chunk = wanted[first : first + CHUNK]
        messages = {one.key: one.message for one in queue.get(chunk)}
        taken = queue.cancel(chunk)
        taken_out += taken
        left = queue.live(set(chunk) - set(taken))
        asked += [key for key in chunk if key in left and queue.is_cancelled(key)]
        settlement.cancelled([messages[key] for key in taken if key in messages])
    return Cancellation(tuple(taken_out), tuple(asked))
