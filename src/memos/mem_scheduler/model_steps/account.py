"""`Account`: what the questions of one piece of work came to, for its web logs and the metrics.

A question without a usable answer is told as a `modelFault` log, with the reply as it came, in the same
transaction as the work that the rules then did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memos import log, metrics
from memos.errors import RateLimited, RetryLater
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import model_fault_log
from memos.models.ask import Answer

if TYPE_CHECKING:
    from memos.mem_scheduler.handlers.context import HandlerContext

# Waiting for an endpoint blocks the lane of one user and cube: only so long after the submit.
WAIT_MAX_S = 45.0

logger = log.get_logger(__name__)


@dataclass(slots=True)
class Account:
    """The answers of one piece of work, in the order in which they were asked for."""

    answers: list[Answer] = field(default_factory=list)

    def took(self, answer: Answer, *, dropped: int = 0) -> None:
        """One more answer, and how much of it had to be dropped."""
        self.answers.append(answer)
        if dropped:
            metrics.MODEL_OUTPUT_DROPPED.add(dropped, step=answer.step)
            logger.info("model.output_dropped", step=answer.step, dropped=dropped)
        if not answer.usable:
            metrics.MODEL_FALLBACKS.add(step=answer.step)
            logger.info("model.fallback", step=answer.step, fault=answer.fault.partition(":")[0])

    @property
    def remarks(self) -> list[str]:
        """What the rules had to do, and why, in words."""
        return [f"{one.step} by rules ({one.fault})" for one in self.answers if not one.usable]

    def logs(self, ctx: HandlerContext, message: ScheduleMessageItem) -> list[ScheduleLogForWebItem]:
        """A log for each question without a usable answer."""
        failed = [one for one in self.answers if not one.usable]
        if not failed:
            return []
        facts = ctx.facts(message.mem_cube_id)
        return [model_fault_log(message, one, facts=facts) for one in failed]


def patiently(
    ctx: HandlerContext, message: ScheduleMessageItem, step: str, call: Callable[[], Answer]
) -> Answer:
    """`call()`. Where the endpoint asks to wait, RetryLater: the message comes again when that is over,
    and no attempt is counted; what would take too long is an answer with a fault."""
    try:
        return call()
    except RateLimited as limited:
        waited = ctx.waited_s(message)
        if waited is not None and waited + limited.retry_after_s <= WAIT_MAX_S:
            raise RetryLater(limited.retry_after_s, f"the model asks to wait: {limited}") from limited
        return Answer(step, "", fault=f"RateLimited: {limited}"[:400])
