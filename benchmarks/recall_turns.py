"""Working memory over the questions of conversations: is the evidence there, and is recall left out rightly?

Every step is a `mem_update` task through a running scheduler, as the chat submits it. For each question:
from an empty working memory, one task (`evidence`), then the same question again (`repeated`); and in a
stream of groups of five, where working memory holds what the one to four questions before have left
(`natural`). Recall is skipped when the task leaves working memory as it was.
    positive   its own task has just run and all evidence has a place: recall may be skipped
    negative   every other case: skipping it would cost evidence
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from memos.evaluation.locomo import Conversation, Question
from memos.evaluation.systems import USER_ID
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_UPDATE_TASK_LABEL
from memos.memory.store import ReplaceWorking
from memos.runtime import Runtime
from memos.testing import run_until_idle

GROUP = 5


@dataclass(frozen=True, slots=True)
class Case:
    """One decision of the gate."""

    repeated: bool
    positive: bool
    skipped: bool


@dataclass(frozen=True, slots=True)
class Turns:
    """What all questions gave."""

    evidence: float  # share of the wanted turns in working memory after one task, averaged
    cases: tuple[Case, ...]

    def skipped(self, *, positive: bool, repeated: bool | None = None) -> float | None:
        """The share skipped among the positive or negative cases; None when there are none."""
        chosen = [
            case.skipped
            for case in self.cases
            if case.positive is positive and (repeated is None or case.repeated is repeated)
        ]
        return sum(chosen) / len(chosen) if chosen else None


def measure(
    runtime: Runtime, conversations: Sequence[Conversation], *, on_progress: Callable[[str], None]
) -> Turns:
    """Ask everything. The runtime's store holds the conversations and its scheduler runs."""
    shares: list[float] = []
    cases: list[Case] = []
    for conversation in conversations:
        for question in conversation.questions:
            _empty(runtime, conversation.name)
            _update(runtime, conversation.name, question)
            share = _share(runtime, conversation.name, question)
            shares.append(share)
            skipped = not _update(runtime, conversation.name, question)
            cases.append(Case(repeated=True, positive=share == 1.0, skipped=skipped))
        cases.extend(_stream(runtime, conversation))
        on_progress(conversation.name)
    return Turns(sum(shares) / len(shares), tuple(cases))


def _stream(runtime: Runtime, conversation: Conversation) -> Iterator[Case]:
    for place, question in enumerate(conversation.questions):
        first = place % GROUP == 0
        if first:
            _empty(runtime, conversation.name)
        skipped = not _update(runtime, conversation.name, question)
        if not first:
            yield Case(repeated=False, positive=False, skipped=skipped)


def _empty(runtime: Runtime, cube_id: str) -> None:
    runtime.store.apply([ReplaceWorking(cube_id, (), None, reason="benchmark")])


def _update(runtime: Runtime, cube_id: str, question: Question) -> bool:
    """Run the task; whether it replaced working memory."""
    before = runtime.store.working(cube_id).version
    runtime.scheduler.submit_messages(
        [
            ScheduleMessageItem(
                user_id=USER_ID, mem_cube_id=cube_id, label=MEM_UPDATE_TASK_LABEL, content=question.text
            )
        ]
    )
    run_until_idle(runtime.scheduler)
    return runtime.store.working(cube_id).version != before


def _share(runtime: Runtime, cube_id: str, question: Question) -> float:
    items = runtime.store.working(cube_id).items
    there = {source.message_id for item in items for source in item.sources}
    return len(question.wanted & there) / len(question.wanted)
