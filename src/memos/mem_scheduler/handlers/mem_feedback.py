"""`mem_feedback`: what a user says of an answer changes the memories behind it.

Content: the JSON of a feedback request (`history`, `feedback_content`, `retrieved_memory_ids`,
`feedback_time`, `corrected_answer`) or plain text. `memos.memory.feedback.interpret` says what it asks for:

* correct: what is right becomes a derived item; derived items that say otherwise are archived with the
  time until which they held; raw turns stay as they were said and are marked as corrected, by which
  recall puts the correction before them; places in working memory pass to the correction;
* supplement: a derived item more (or, when it is known, one use more);
* retract: the memories, what was read from them and the turns they were read from are archived;
* reinforce: a use more, and more confidence.

The memories are those that the request names; without ids they are searched for, and then what takes
something away needs the last answer to show that it is about them. Feedback on memories that were deleted
meanwhile changes nothing: it would bring them back. One transaction, with a
`knowledgeBaseUpdate` log that also says what was not done, and why.

Where rules are not certain what the comment asks for, a model is asked, if there is one; what it gives back is
checked and carried out in the same way, and where it fails the reading of the rules stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from memos import log, metrics
from memos.clock import utc
from memos.errors import Discard, InvalidInput, ItemGone, ItemNotFound, VersionConflict
from memos.mem_scheduler.change_logs import after, archived_log
from memos.mem_scheduler.handlers.answer import quoted
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.corrections import Draft
from memos.mem_scheduler.handlers.edits import present
from memos.mem_scheduler.model_steps.account import Account, patiently
from memos.mem_scheduler.model_steps.corrections import STEP, CorrectionsRead, is_certain, read_corrections
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, info_text
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import knowledge_base_log
from memos.memory.feedback import Correction, CorrectionKind, interpret
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.moments import parse_moment
from memos.models.ask import Answer
from memos.models.base import ChatMessage
from memos.retrieval.request import QUERY_CHARS_MAX, RecallRequest

logger = log.get_logger(__name__)

CONFLICT_TRIES = 3
IDS_MAX = 200
SEARCHED_MAX = 8
SEARCHED_RELATIVITY_MIN = 0.35


@dataclass(frozen=True, slots=True)
class Feedback:
    """What was said, about what."""

    text: str
    retrieved_ids: tuple[str, ...] = ()
    history: tuple[ChatMessage, ...] = ()
    at: datetime | None = None
    corrected_answer: str = ""

    @property
    def last_answer(self) -> str:
        return next((turn.content for turn in reversed(self.history) if turn.role == "assistant"), "")


@dataclass(frozen=True, slots=True)
class FeedbackOutcome:
    """What feedback did to one cube. `updated` holds (the correction, the text it corrects)."""

    cube_id: str
    added: tuple[MemoryItem, ...] = ()
    updated: tuple[tuple[MemoryItem, str], ...] = ()
    archived: tuple[tuple[MemoryItem, str], ...] = ()
    reinforced: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.added or self.updated or self.archived or self.reinforced)


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        process(ctx, message)


def process(ctx: HandlerContext, message: ScheduleMessageItem) -> FeedbackOutcome | None:
    """Carry out one message; None when it was carried out before. Raises Discard, StoreError."""
    with ctx.bound_to(message):
        if ctx.is_repeat(message):
            return None
        feedback = feedback_of(message)
        advice = _Advice()
        for left in reversed(range(CONFLICT_TRIES)):
            try:
                return _attempt(ctx, message, feedback, advice)
            except VersionConflict:
                if not left:
                    raise  # the queue tries again later
                logger.info("feedback.conflict", tries_left=left)
    raise AssertionError("unreachable: the last try returns or raises")


def feedback_of(message: ScheduleMessageItem) -> Feedback:
    """The feedback in a message. Discard for JSON that is no feedback request: no retry can mend it."""
    try:
        value = json.loads(message.content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        value = {"feedback_content": message.content}
    text = value.get("feedback_content")
    answer = value.get("corrected_answer")
    answer = answer if isinstance(answer, str) else ""
    if not isinstance(text, str) or not (text.strip() or answer.strip()):
        raise Discard(f"content of a {message.label!r} message has no feedback_content; give a text")
    ids = value.get("retrieved_memory_ids") or (message.info or {}).get("retrieved_memory_ids") or []
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise Discard(f"retrieved_memory_ids={ids!r:.80} must be a list of memory ids")
    return Feedback(
        text,
        tuple(dict.fromkeys(ids))[:IDS_MAX],
        _history(value.get("history") or message.chat_history or []),
        _moment(value.get("feedback_time") or info_text(message, "feedback_time")),
        answer,
    )


def _history(turns: object) -> tuple[ChatMessage, ...]:
    found = []
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, Mapping) and isinstance(turn.get("content"), str):
            role = turn.get("role")
            if role in ("user", "assistant", "system"):
                found.append(ChatMessage(role, turn["content"]))
    return tuple(found)


def _moment(text: Any) -> datetime | None:
    if not text:
        return None
    try:
        return parse_moment(str(text), field="feedback_time")
    except InvalidInput as error:
        raise Discard(str(error)) from error


@dataclass(slots=True)
class _Advice:
    """What a model said of the comment. It is asked once, however often everything is decided again."""

    account: Account = field(default_factory=Account)
    read: CorrectionsRead | None = None


def _attempt(
    ctx: HandlerContext, message: ScheduleMessageItem, feedback: Feedback, advice: _Advice
) -> FeedbackOutcome:
    now = utc(ctx.services.clock.now())
    items = _named(ctx, message, feedback) if feedback.retrieved_ids else _searched(ctx, message, feedback)
    if not items and _erased(ctx, feedback):
        outcome = FeedbackOutcome(
            message.mem_cube_id, remarks=("the memories that it is about were deleted",)
        )
        ctx.apply(message, logs=_logs(ctx, message, outcome))
        logger.info("feedback.too_late")
        return outcome
    corrections = interpret(
        feedback.text,
        items,
        feedback.history,
        corrected_answer=feedback.corrected_answer,
        when=feedback.at or now,
    )
    corrections = _consulted(ctx, message, feedback, items, corrections, advice)
    draft = Draft(ctx, message, feedback.text, at=feedback.at or now, now=now, items=items)
    remarks: list[str] = []
    for one in corrections:
        certain = one if feedback.retrieved_ids else _certain(one, items, feedback)
        _carry_out(draft, certain, remarks)
    if not corrections:
        remarks.append("it asks for no change")
    remarks += advice.account.remarks
    outcome = FeedbackOutcome(
        message.mem_cube_id,
        tuple(draft.added),
        tuple(draft.updated),
        tuple(draft.archived),
        tuple(draft.touched),
        tuple(dict.fromkeys([*remarks, *draft.remarks])),
    )
    logs = [*advice.account.logs(ctx, message), *_logs(ctx, message, outcome)]
    ctx.apply(message, draft.changes(), logs=logs)
    logger.info("feedback.done", corrections=len(corrections), changed=outcome.changed)
    return outcome


def _consulted(
    ctx: HandlerContext,
    message: ScheduleMessageItem,
    feedback: Feedback,
    items: Sequence[MemoryItem],
    by_rules: list[Correction],
    advice: _Advice,
) -> list[Correction]:
    """The corrections that rules found where they are certain, else those of the model, if it finds any."""
    llm = ctx.services.llm_for("feedback")
    text = feedback.text if feedback.text.strip() else feedback.corrected_answer
    if llm is None:
        return by_rules
    if is_certain(by_rules):
        metrics.MODEL_CALLS_SAVED.add(reason="rules_certain")
        return by_rules
    if advice.read is None:
        read = CorrectionsRead(Answer("", ""))

        def question() -> Answer:
            nonlocal read
            read = read_corrections(
                llm,
                text,
                items,
                last_answer=feedback.last_answer,
                today=feedback.at or utc(ctx.services.clock.now()),
            )
            return read.answer

        answer = patiently(ctx, message, STEP, question)
        advice.account.took(answer, dropped=read.dropped)
        advice.read = replace(read, answer=answer)
    here = {item.id for item in items}
    found = [one for one in advice.read.corrections if here.issuperset(one.target_ids)]
    return found or by_rules


def _carry_out(draft: Draft, one: Correction, remarks: list[str]) -> None:
    if one.kind is CorrectionKind.SUPPLEMENT:
        draft.add(one)
    elif not one.target_ids:
        remarks.append(one.reason)
    elif one.kind is CorrectionKind.CORRECT:
        draft.correct(one)
    elif one.kind is CorrectionKind.RETRACT:
        draft.retract(one)
    else:
        draft.reinforce(one)


# -- which memories it is about ------------------------------------------------------------------------


def _named(ctx: HandlerContext, message: ScheduleMessageItem, feedback: Feedback) -> list[MemoryItem]:
    """The live ones of the named memories that are in the message's cube."""
    found = present(ctx.services.store, feedback.retrieved_ids)
    return _without_origins([item for item in found if item.cube_id == message.mem_cube_id and item.live])


def _erased(ctx: HandlerContext, feedback: Feedback) -> bool:
    """Whether one of the named memories was deleted: what was said of it must not bring it back."""
    for item_id in feedback.retrieved_ids:
        try:
            ctx.services.store.get([item_id])
        except ItemGone:
            return True
        except ItemNotFound:
            continue
    return False


def _searched(ctx: HandlerContext, message: ScheduleMessageItem, feedback: Feedback) -> list[MemoryItem]:
    """What the last answer and the feedback are about, as recall finds it."""
    found: dict[str, MemoryItem] = {}
    for text in (feedback.last_answer, feedback.corrected_answer or feedback.text):
        if not text.strip():
            continue
        recall = ctx.services.retriever.search(
            RecallRequest(
                query=text[:QUERY_CHARS_MAX],
                cube_ids=(message.mem_cube_id,),
                user_id=message.user_id,
                top_k=SEARCHED_MAX,
                relativity=SEARCHED_RELATIVITY_MIN,
                session_id=message.session_id,
                dedup="no",
                stages=("-lending",),
            )
        )
        found |= {hit.item.id: hit.item for hit in recall.hits}
    return _without_origins(list(found.values()))


def _without_origins(items: Sequence[MemoryItem]) -> list[MemoryItem]:
    """Without the turns that another of them was read from: both say the same, and one must be meant."""
    origins = {source.item_id for item in items if not item.raw for source in item.sources}
    return [item for item in items if item.id not in origins]


def _certain(one: Correction, items: Sequence[MemoryItem], feedback: Feedback) -> Correction:
    """Of a correction without words of its own ("that's wrong") only the targets that the answer repeats."""
    if one.about or one.new_text or not one.target_ids:
        return one
    meant = {item.id for item in quoted(feedback.last_answer, items)} if feedback.last_answer else set()
    targets = tuple(target for target in one.target_ids if target in meant)
    return replace(
        one, target_ids=targets, reason=one.reason if targets else f"{one.reason}: not certain of what"
    )


# -- what is told --------------------------------------------------------------------------------------


def _logs(
    ctx: HandlerContext, message: ScheduleMessageItem, outcome: FeedbackOutcome
) -> list[ScheduleLogForWebItem]:
    gone = [item for item, _ in outcome.archived]
    known = set(outcome.reinforced)
    new = [item for item in (*outcome.added, *(item for item, _ in outcome.updated)) if item.id not in known]
    facts = after(ctx.facts(message.mem_cube_id), gone=gone, come=new)
    told = knowledge_base_log(message, outcome.added, outcome.updated, trigger="Feedback", facts=facts)
    parts = [
        f"{len(outcome.added)} added",
        f"{len(outcome.updated)} corrected",
        f"{len(gone)} archived",
        f"{len(outcome.reinforced)} confirmed",
        *outcome.remarks,
    ]
    told = told.model_copy(
        update={
            "log_content": f"Feedback: {', '.join(parts)}",
            "memory_delta": len(new) - len(gone),
            "status": "completed" if outcome.changed else "unchanged",
        }
    )
    if not gone:
        return [told]
    archived = [(replace(item, status=ItemStatus.ARCHIVED), why) for item, why in outcome.archived]
    return [told, archived_log(message, archived, facts=facts)]
