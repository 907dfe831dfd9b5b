"""Working memory over the questions of conversations: is the evidence there, and is recall left out rightly?

Every step is a `mem_update` task through a running scheduler, as the chat submits it. For each question:
from an empty working memory, one task (`evidence`), then the same question again (`repeated`); and in a
stream of groups of five, where working memory holds what the one to four questions before have left
(`natural`). Recall is skipped when the task leaves working memory as it was.
    positive   its own task has just run and all evidence has a place: recall may be skipped
    negative   every other case: skipping it would cost evidence
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from memos.evaluation import locomo
from memos.evaluation.locomo import Conversation, Question
from memos.evaluation.systems import USER_ID, PublicPath
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_UPDATE_TASK_LABEL
from memos.memory.store import ReplaceWorking
from memos.retrieval.keywords import analyse
from memos.retrieval.wording import asks_several
from memos.runtime import Runtime, build
from memos.settings import RecallSettings, SchedulerSettings, Settings
from memos.testing import run_until_idle

GROUP = 5


@dataclass(frozen=True, slots=True)
class Case:
    """One decision of the gate."""

    conversation: str
    repeated: bool
    positive: bool
    skipped: bool
    terms: int  # content words of the query
    complete: bool  # all evidence had a place before the decision
    several: bool  # it asks for several things
    lead: float  # of the first place over the middle one, before the decision


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

    @property
    def missed(self) -> float:
        """Of the natural questions, the share of which recall was skipped and evidence was missing."""
        natural = [case for case in self.cases if not case.repeated]
        return sum(case.skipped and not case.complete for case in natural) / max(1, len(natural))


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
            cases.append(_case(runtime, conversation, question, repeated=True, positive=share == 1.0))
        cases.extend(_stream(runtime, conversation))
        on_progress(conversation.name)
    return Turns(sum(shares) / len(shares), tuple(cases))


def cross_validated(conversations: Sequence[Conversation], *, on_progress: Callable[[str], None]) -> Turns:
    """Each conversation in a runtime of its own, with the weights and the gate fitted without it."""
    shares: list[float] = []
    cases: list[Case] = []
    for conversation in conversations:
        gate = locomo.fold_gate(conversation.name)
        scheduler = SchedulerSettings(**{f"gate_{name}": value for name, value in asdict(gate).items()})
        recall = RecallSettings(weights=asdict(locomo.fold_weights(conversation.name)))
        with tempfile.TemporaryDirectory(prefix="memos-turns-") as home:
            settings = Settings(home=Path(home), scheduler=scheduler, recall=recall)
            with build(settings, start=True) as runtime:
                system = PublicPath(runtime)
                for turns in conversation.sessions:
                    system.add(conversation.name, turns)
                own = measure(runtime, [conversation], on_progress=on_progress)
        shares += [own.evidence] * len(conversation.questions)
        cases += own.cases
    return Turns(sum(shares) / len(shares), tuple(cases))


def _stream(runtime: Runtime, conversation: Conversation) -> Iterator[Case]:
    for place, question in enumerate(conversation.questions):
        first = place % GROUP == 0
        if first:
            _empty(runtime, conversation.name)
        case = _case(runtime, conversation, question, repeated=False, positive=False)
        if not first:
            yield case


def _case(
    runtime: Runtime, conversation: Conversation, question: Question, *, repeated: bool, positive: bool
) -> Case:
    scores = [entry.score for entry in runtime.store.working(conversation.name).entries]
    lead = scores[0] - scores[(len(scores) - 1) // 2] if scores else 0.0
    complete = _share(runtime, conversation.name, question) == 1.0
    skipped = not _update(runtime, conversation.name, question)
    terms = len(analyse(question.text))
    several = asks_several(question.text)
    return Case(conversation.name, repeated, positive, skipped, terms, complete, several, lead)


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
