"""`answer`: the assistant said something. Tells it as `addMessage`."""

from __future__ import annotations

from collections.abc import Sequence

from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.web_log import message_log


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        with ctx.bound_to(message):
            if ctx.is_repeat(message):
                continue
            ctx.apply(
                message, logs=[message_log(message, role="assistant", facts=ctx.facts(message.mem_cube_id))]
            )
