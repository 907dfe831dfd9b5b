"""FeedbackHandler: what a user says about an answer, kept as a memory of that.

What it does today is store the words, marked as feedback and with the ids they are about, so that they
are recalled like anything else that was said. It does not yet correct the memories themselves, and says
so in its response.
"""

from __future__ import annotations

from memos.api.handlers.add import memory_response
from memos.api.handlers.base_handler import BaseHandler, HandlerDependencies, cubes_of
from memos.api.product_models import APIFeedbackRequest, MemoryResponse
from memos.mem_chat.writer import ConversationWriter


class FeedbackHandler(BaseHandler):
    """The documented entry: `handle_feedback_memories`."""

    def __init__(self, dependencies: HandlerDependencies) -> None:
        super().__init__(dependencies)
        self._validate_dependencies("mem_reader", "mem_scheduler", "memory_manager")

    def handle_feedback_memories(self, feedback_req: APIFeedbackRequest) -> MemoryResponse:
        """Store the feedback in each writable cube. Raises InvalidInput, StoreError."""
        writer: ConversationWriter = self.deps.memory_manager
        message = {"role": "user", "content": feedback_req.feedback_content}
        if feedback_req.feedback_time:
            message["chat_time"] = feedback_req.feedback_time
        about = {"retrieved_memory_ids": feedback_req.retrieved_memory_ids or []}
        written = writer.write(
            [message],
            user_id=feedback_req.user_id,
            cube_ids=cubes_of(feedback_req.writable_cube_ids, feedback_req.mem_cube_id, feedback_req.user_id),
            session_id=feedback_req.session_id or "",
            task_id=feedback_req.task_id,
            source_type="feedback",
            info=(feedback_req.info or {}) | about,
            reason="feedback",
        )
        response = memory_response(written)
        response.message = "Feedback stored as a memory; the memories it is about are unchanged"
        return response
