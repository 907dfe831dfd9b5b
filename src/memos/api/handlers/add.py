"""AddHandler: stores what a request brings; searchable when it returns.

Every mode stores the turns as they came, in one transaction over all cubes. `async` leaves the reading of
facts and preferences to a `mem_read` task, `sync` with mode `fine` does it in the same transaction, `sync`
with mode `fast` leaves it out; the two announce an `add` task for each cube. Nothing is dropped in
silence: what was skipped, quarantined, archived or not announced is in the response.
"""

from __future__ import annotations

from dataclasses import asdict

from memos.api import access
from memos.api.handlers.base_handler import BaseHandler, HandlerDependencies, cubes_of
from memos.api.product_models import APIADDRequest, MemoryResponse
from memos.api.without_effect import warnings_of
from memos.errors import InvalidInput
from memos.mem_chat.writer import ConversationWriter, ReadWhen, Written


class AddHandler(BaseHandler):
    """The documented entry: `handle_add_memories`."""

    def __init__(self, dependencies: HandlerDependencies) -> None:
        super().__init__(dependencies)
        self._validate_dependencies("mem_reader", "mem_scheduler", "memory_manager")

    def handle_add_memories(self, add_req: APIADDRequest) -> MemoryResponse:
        """Store the messages in each writable cube.

        Raises AccessDenied, InvalidInput, StoreError: nothing is stored.
        """
        cubes = cubes_of(add_req.writable_cube_ids, add_req.mem_cube_id, add_req.user_id)
        access.may_write(users=[add_req.user_id], cubes=cubes)
        writer: ConversationWriter = self.deps.memory_manager
        messages = add_req.messages if add_req.messages is not None else add_req.memory_content
        if messages is None:  # the model refuses it; this is for requests built without validation
            raise InvalidInput("messages is missing: give a text or a list of {role, content} messages")
        written = writer.write(
            messages,
            user_id=add_req.user_id,
            cube_ids=cubes,
            session_id=add_req.session_id or "",
            task_id=add_req.task_id,
            source_type="feedback" if add_req.is_feedback else "chat",
            info=add_req.info,
            tags=tuple(add_req.custom_tags or ()),
            read=_read_when(add_req),
        )
        response = memory_response(written)
        response.warnings = warnings_of(add_req)
        if add_req.async_mode == "async" and add_req.mode is not None:
            response.warnings.append("mode has no effect with async_mode 'async': a task reads the turns")
        return response


def _read_when(add_req: APIADDRequest) -> ReadWhen:
    if add_req.async_mode == "async":
        return "later"
    return "now" if add_req.mode == "fine" else "never"


def memory_response(written: Written) -> MemoryResponse:
    """What was written, in the documented shape."""
    return MemoryResponse(
        message=_message(written),
        data=[
            {
                "memory": item.memory,
                "memory_id": item.id,
                "memory_type": item.kind.value,
                "cube_id": item.cube_id,
            }
            for item in (*written.items, *written.derived)
        ],
        seqs=dict(written.seqs),
        skipped=[{"message": one.index, "reason": one.reason} for one in written.skipped],
        quarantined=[
            {
                "message": one.index,
                "reason": one.reason,
                "memory_id": one.item.id,
                "cube_id": one.item.cube_id,
            }
            for one in written.quarantined
        ],
        documents=[asdict(one) for one in written.documents],
    )


def _message(written: Written) -> str:
    parts = ["Memory added successfully" if written.items else "No memory was added that can be recalled"]
    if written.skipped:
        parts.append(f"{len(written.skipped)} part(s) were skipped: {written.skipped[0].reason}")
    if written.quarantined:
        parts.append(
            f"{len(written.quarantined)} part(s) are in quarantine and not recalled "
            f"({written.quarantined[0].reason}): `memos quarantine list` shows them"
        )
    if written.archived:
        parts.append(f"{len(written.archived)} memories were archived because a cube is full")
    if written.task_error:
        parts.append(f"the follow-up task is not queued: {written.task_error}")
    return "; ".join(parts)
