"""`pref_add`: keep the preferences that somebody states: likes, dislikes, allergies, habits, instructions.

Content: a text (the user's), a JSON object `{"messages": …}`, a JSON list of messages, or a JSON list of
item ids. What is found becomes preference memory with its polarity, object and slot, unless the same is
stored already, of whatever kind: then that is confirmed. An opposite preference supersedes the earlier
one, which is kept as history. A text is read and not stored; what it says stands in the sources.

With a model also those that follow from what somebody chooses or complains about (`explicit` is then
False): they displace no preference that was stated. The model is asked once for a message; where it fails,
the rules read alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memos import log
from memos.clock import to_utc, utc
from memos.errors import Discard, InvalidInput
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import present
from memos.mem_scheduler.handlers.learned import commit, learner, with_retries
from memos.mem_scheduler.model_steps.account import Account, patiently
from memos.mem_scheduler.model_steps.preferences import (
    KNOWN_MAX,
    STEP,
    PreferencesRead,
    read_preferences,
    turns_to_read,
)
from memos.mem_scheduler.schemas.message_schemas import TURN_ID, ScheduleMessageItem, info_text
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.learning import Extractor
from memos.memory.reader import MemReader
from memos.memory.store import ItemFilter
from memos.models.ask import Answer

logger = log.get_logger(__name__)


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        with ctx.bound_to(message):
            if not ctx.is_repeat(message):
                _add(ctx, message)


def _add(ctx: HandlerContext, message: ScheduleMessageItem) -> None:
    cube_id = message.mem_cube_id
    given = _given(message.content)
    stored = isinstance(given, list) and all(isinstance(one, str) for one in given)
    if stored:
        raw = [item for item in present(ctx.services.store, given) if item.cube_id == cube_id and item.raw]
    else:
        raw = _turns(ctx, message, given)
    account = Account()
    extract = _read(ctx, message, raw, account)

    def attempt() -> None:
        learned = learner(ctx, extract).preferences(cube_id, raw, stored=stored)
        commit(ctx, message, learned, account=account)
        if not learned.added and not learned.confirmed:
            logger.info("pref_add.nothing_found", reasons=sorted(set(learned.reasons.values()))[:5])

    with_retries(attempt)


def _read(
    ctx: HandlerContext, message: ScheduleMessageItem, raw: Sequence[MemoryItem], account: Account
) -> Extractor | None:
    """The extractor that knows what the model read; None where the rules read alone."""
    llm = ctx.services.llm_for("preferences")
    turns = turns_to_read(raw)
    if llm is None or not turns:
        return None
    read: list[PreferencesRead] = []
    stored = ItemFilter(cube_ids=(message.mem_cube_id,), kinds=(MemoryKind.PREFERENCE,)).of_user(
        message.user_id
    )
    known = ctx.services.store.find(stored, limit=KNOWN_MAX).items

    def question() -> Answer:
        read.append(read_preferences(llm, turns, known=known))
        return read[-1].answer

    answer = patiently(ctx, message, STEP, question)
    account.took(answer, dropped=read[-1].dropped if read else 0)
    return read[-1].extract if read and answer.usable else None


def _given(content: str) -> Any:
    """The text, list of messages or list of ids in the content."""
    try:
        value = json.loads(content)
    except ValueError:
        return content
    if isinstance(value, dict):
        if "messages" not in value:
            raise Discard('a JSON object as content of a "pref_add" message must hold "messages"')
        messages = value["messages"]
        return messages if isinstance(messages, str) else _wrapped(messages)
    return value if isinstance(value, list | str) else content


def _wrapped(messages: Any) -> list[Any]:
    """Messages as objects: a bare text among them is a user's, never an id."""
    if not isinstance(messages, list):
        raise Discard('"messages" in the content of a "pref_add" message must be a text or a list')
    return [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages]


def _turns(ctx: HandlerContext, message: ScheduleMessageItem, given: Any) -> list[MemoryItem]:
    """The turns as items that are not stored. Discard for what is no conversation."""
    try:
        reading = MemReader(clock=ctx.services.clock).read_messages(
            given,
            user_id=message.user_id,
            cube_id=message.mem_cube_id,
            session_id=message.session_id,
            turn_id=info_text(message, TURN_ID),
            user_name="" if message.user_name == message.user_id else message.user_name,
        )
    except InvalidInput as error:
        raise Discard(f'content of a "pref_add" message: {error}') from error
    # The message comes from a clock of its own: what was said is not to come.
    said_at = min(to_utc(message.timestamp), utc(ctx.services.clock.now()))
    return [
        item if item.happened_at is not None else replace(item, happened_at=said_at) for item in reading.items
    ]
