"""FeedbackHandler: what a user says about an answer changes the memories behind it.

`async` queues one `mem_feedback` task a writable cube and says so; `sync` carries it out before it answers
and says what it did to each cube: what was added, corrected, archived and confirmed, and what was not
done, with the reason. Nothing is claimed that did not happen.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from memos import context
from memos.api import access
from memos.api.handlers.base_handler import BaseHandler, HandlerDependencies, cubes_of
from memos.api.product_models import APIFeedbackRequest, MemoryResponse
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.handlers.mem_feedback import FeedbackOutcome
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_FEEDBACK_TASK_LABEL
from memos.memory.item import MemoryItem
from memos.memory.moments import parse_moment


class FeedbackHandler(BaseHandler):
    """The documented entry: `handle_feedback_memories`."""

    def __init__(self, dependencies: HandlerDependencies) -> None:
        super().__init__(dependencies)
        self._validate_dependencies("mem_scheduler")

    def handle_feedback_memories(self, feedback_req: APIFeedbackRequest) -> MemoryResponse:
        """Queue the feedback, or carry it out. Raises AccessDenied, InvalidInput, QueueError, StoreError."""
        cubes = cubes_of(feedback_req.writable_cube_ids, feedback_req.mem_cube_id, feedback_req.user_id)
        access.may_write(users=[feedback_req.user_id], cubes=cubes)
        if feedback_req.feedback_time:
            parse_moment(feedback_req.feedback_time, field="feedback_time")
        messages = [_message(feedback_req, cube_id) for cube_id in cubes]
        scheduler: GeneralScheduler = self.deps.mem_scheduler
        if feedback_req.async_mode == "async":
            scheduler.submit_messages(messages)
            return MemoryResponse(
                message="Feedback queued: the memories change when its task has run",
                data=[_row(one, "waiting") for one in messages],
            )
        rows = []
        for message in messages:
            outcome = scheduler.process_feedback(message)
            rows.append(_row(message, "completed", outcome))
        changed = sum(bool(row["changed"]) for row in rows)
        return MemoryResponse(
            message="Feedback carried out"
            if changed
            else "Feedback understood as no change: see remarks; the memories are unchanged",
            data=rows,
        )


def _message(asked: APIFeedbackRequest, cube_id: str) -> ScheduleMessageItem:
    content = {
        "feedback_content": asked.feedback_content,
        "history": asked.history or [],
        "retrieved_memory_ids": asked.retrieved_memory_ids or [],
        "feedback_time": asked.feedback_time,
        "corrected_answer": asked.corrected_answer,
    }
    return ScheduleMessageItem(
        item_id=str(uuid4()),
        user_id=asked.user_id,
        mem_cube_id=cube_id,
        session_id=asked.session_id or "",
        task_id=asked.task_id,
        label=MEM_FEEDBACK_TASK_LABEL,
        content=json.dumps(content, ensure_ascii=False),
        info=asked.info,
        api_path=context.api_path.get() or None,
        trace_id=context.current_trace_id(),
    )


def _row(message: ScheduleMessageItem, status: str, outcome: FeedbackOutcome | None = None) -> dict[str, Any]:
    """What became of the feedback in one cube; `record` as the documents name it."""
    done = outcome or FeedbackOutcome(message.mem_cube_id)
    return {
        "cube_id": message.mem_cube_id,
        "item_id": message.item_id,
        "task_id": message.task_id or message.item_id,
        "status": status,
        "changed": done.changed,
        "answer": " ".join(item.memory for item, _ in done.updated),
        "record": {
            "add": [_shape(item) for item in done.added],
            "update": [{**_shape(item), "original_content": before} for item, before in done.updated],
            "archive": [{**_shape(item), "reason": why} for item, why in done.archived],
            "reinforce": list(done.reinforced),
        },
        "remarks": list(done.remarks),
    }


def _shape(item: MemoryItem) -> dict[str, str]:
    return {"memory_id": item.id, "memory": item.memory, "memory_type": item.kind.value}
