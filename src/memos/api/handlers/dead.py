"""DeadHandler: the messages that were given up, and what is done about them.

A letter belongs to its user and cube: outside of the scope of who asks it is as if there were none. Letters
are named one by one; "all of them" is for `memos dead` on the machine itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memos import log
from memos.api import access
from memos.api.queue_models import DeadHandled, DeadHandledResponse, DeadResponse, DeadRow
from memos.errors import InvalidInput
from memos.mem_scheduler.queues.base import DeadLetter, TaskQueue
from memos.mem_scheduler.schemas.message_schemas import check_id

PAGE_MAX = 200
LOOKED_AT = 1_000  # letters that are held against a scope
CONTENT_CHARS_MAX = 4_000

logger = log.get_logger(__name__)


class DeadHandler:
    """Thread-safe."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue

    def handle_list(
        self, *, label: str | None, user_id: str | None, cube_id: str | None, limit: int
    ) -> DeadResponse:
        """The newest letters that meet all conditions. Raises AccessDenied, QueueUnavailable."""
        access.may_read(
            users=[check_id("user_id", user_id)] if user_id is not None else [],
            cubes=[check_id("mem_cube_id", cube_id)] if cube_id is not None else [],
        )
        who = access.current()
        narrowed = cube_id is not None or not who.is_admin
        letters = self._queue.dead.list(label=label, user_id=user_id, limit=LOOKED_AT if narrowed else limit)
        seen = [one for one in letters if _is_visible(one) and cube_id in (None, one.message.mem_cube_id)]
        total = self._queue.depth(lanes=False).dead if who.is_admin else None
        return DeadResponse(
            message="Dead letters retrieved successfully",
            data=[_row(one) for one in seen[:limit]],
            total=total,
        )

    def handle_retry(self, keys: Sequence[str]) -> DeadHandledResponse:
        """Queue them again with fresh budgets, at the end of their lanes. Raises AccessDenied."""
        return self._handle(keys, self._queue.dead.retry, "queued again", "dead.retried")

    def handle_purge(self, keys: Sequence[str]) -> DeadHandledResponse:
        """Drop them for good. Raises AccessDenied."""
        return self._handle(keys, self._queue.dead.purge, "dropped", "dead.purged")

    def _handle(
        self, keys: Sequence[str], act: Callable[[Sequence[str]], int], done: str, event: str
    ) -> DeadHandledResponse:
        access.may_write()
        there = [key for key in keys if self._is_there(key)]
        handled = act(there) if there else 0
        logger.info(event, letters=handled, by=access.current().name)
        return DeadHandledResponse(
            message=f"{handled} dead letters {done}",
            data=DeadHandled(handled=handled, unknown=[key for key in keys if key not in set(there)]),
        )

    def _is_there(self, key: str) -> bool:
        try:
            return _is_visible(self._queue.dead.show(key))
        except InvalidInput:
            return False


def _is_visible(letter: DeadLetter) -> bool:
    who = access.current()
    return who.has_user(letter.message.user_id) and who.has_cube(letter.message.mem_cube_id)


def _row(letter: DeadLetter) -> DeadRow:
    message = letter.message
    return DeadRow(
        key=letter.key,
        label=message.label,
        user_id=message.user_id,
        mem_cube_id=message.mem_cube_id,
        item_id=message.item_id,
        task_id=message.task_id or "",
        trace_id=message.trace_id,
        content=message.content[:CONTENT_CHARS_MAX],
        content_chars=len(message.content),
        error=letter.error,
        attempts=letter.attempts,
        recoveries=letter.recoveries,
        submitted_at=letter.first_at,
        died_at=letter.died_at,
    )
