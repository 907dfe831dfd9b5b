"""The turns of a conversation, read from what callers send: the one place that knows message shapes.

Accepted: a string (one user turn); a list of `{role, content, name?, chat_time?, message_id?}`; content
as text or as a list of parts; a bare part without a role (a user's). Texts become turns, tool calls too
("called search(city="Lyon")"); files and images whose bytes are sent along become `attachments`. What can
never work is refused with `InvalidInput` naming the place and the value. What is legal but brings nothing to
remember (an address that nobody here fetches, a sound) is no error and no silence: `Conversation.skipped`
lists it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from memos.documents.json_text import tool_call_lines
from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_id, check_text
from memos.memory.attachments import Attachment, attachment_of
from memos.memory.moments import parse_moment

ROLES = ("user", "assistant", "system", "tool")
MESSAGES_MAX = 10_000
NAME_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Turn:
    """What one message says. `index` is its place in the caller's list."""

    index: int
    role: str
    text: str
    name: str = ""
    message_id: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A message, or a part of one, that was not stored, and why."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns in the order given, and everything that is not among them."""

    turns: tuple[Turn, ...]
    skipped: tuple[Skipped, ...] = ()
    attachments: tuple[Attachment, ...] = ()


def parse_conversation(messages: object) -> Conversation:
    """The conversation in `messages`. InvalidInput when it is malformed, empty or over a bound."""
    if isinstance(messages, str):
        return Conversation((Turn(0, "user", check_text("messages", messages)),))
    if isinstance(messages, Mapping):
        raise InvalidInput(
            "messages must be a string or a list of messages, not a single object: put it in a list"
        )
    if not isinstance(messages, Sequence) or isinstance(messages, bytes | bytearray):
        raise InvalidInput(f"messages must be a string or a list of messages, not {type(messages).__name__}")
    if not messages:
        raise InvalidInput("messages is an empty list; give at least one message")
    if len(messages) > MESSAGES_MAX:
        raise InvalidInput(
            f"messages has {len(messages)} entries; at most {MESSAGES_MAX} are taken in one call"
        )
    turns: list[Turn] = []
    skipped: list[Skipped] = []
    attachments: list[Attachment] = []
    for index, message in enumerate(messages):
        turn = _turn(index, message, skipped, attachments)
        if turn is not None:
            turns.append(turn)
    return Conversation(tuple(turns), tuple(skipped), tuple(attachments))


def _turn(index: int, message: object, skipped: list[Skipped], attachments: list[Attachment]) -> Turn | None:
    place = f"messages[{index}]"
    if isinstance(message, str):
        return Turn(index, "user", check_text(place, message))
    if not isinstance(message, Mapping):
        raise InvalidInput(f"{place} must be an object with role and content, not {type(message).__name__}")
    role = _role(place, message)
    files: list[Attachment] = []
    text = _text(place, index, message, skipped, files)
    name = message.get("name") or ""
    if name:
        check_id(f"{place}.name", name, chars_max=NAME_CHARS_MAX)
    message_id = message.get("message_id") or ""
    if message_id:
        check_id(f"{place}.message_id", message_id)
    when = message.get("chat_time")
    at = None if when is None or when == "" else parse_moment(when, field=f"{place}.chat_time")
    attachments.extend(replace(one, role=role, speaker=str(name), at=at) for one in files)
    return None if text is None else Turn(index, role, text, str(name), str(message_id), at)


def _role(place: str, message: Mapping[str, Any]) -> str:
    if "role" not in message and "type" in message:
        return "user"  # a bare part: {"type": "text", "text": …}
    role = message.get("role")
    if role not in ROLES:
        raise InvalidInput(f"{place}.role is {role!r}; known roles are {', '.join(ROLES)}")
    return str(role)


def _text(
    place: str, index: int, message: Mapping[str, Any], skipped: list[Skipped], files: list[Attachment]
) -> str | None:
    """The text of a message; None when it legally has none (then `skipped` or `files` says why)."""
    calls = "\n".join(tool_call_lines(message.get("tool_calls")))
    content = message.get("content")
    if content is None and "role" not in message:
        content = [message]
    if isinstance(content, str) and content.strip():
        return check_text(f"{place}.content", "\n".join(filter(None, (content, calls))))
    if not content and message.get("tool_calls"):
        if calls:
            return check_text(f"{place}.tool_calls", calls)
        skipped.append(Skipped(index, "a tool call without text"))
        return None
    if isinstance(content, str) or content is None:
        raise InvalidInput(f"{place}.content is empty ({content!r}); give some text or leave the message out")
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise InvalidInput(f"{place}.content must be text or a list of parts, not {type(content).__name__}")
    texts = list(_parts(place, index, content, skipped, files))
    if calls:
        texts.append(calls)
    if not texts:
        if not files:
            skipped.append(Skipped(index, "no part of the message holds text"))
        return None
    return check_text(f"{place}.content", "\n".join(texts))


def _parts(
    place: str, index: int, parts: Sequence[object], skipped: list[Skipped], files: list[Attachment]
) -> Iterator[str]:
    for number, part in enumerate(parts):
        where = f"{place}.content[{number}]"
        text: object = part
        if isinstance(part, Mapping):
            found = attachment_of(part, where, index=index, number=number)
            if isinstance(found, Attachment):
                files.append(found)
                continue
            text = _part_text(part)
            if text is None:
                kind = str(part.get("type", "text"))[:40]
                reason = found or f"part {number} of type {kind!r} holds no text to remember"
                skipped.append(Skipped(index, reason))
                continue
        elif not isinstance(part, str):
            raise InvalidInput(f"{where} must be text or an object with a type, not {type(part).__name__}")
        if not isinstance(text, str):
            raise InvalidInput(f"{where}.text must be a string, not {type(text).__name__}")
        if not text.strip():
            skipped.append(Skipped(index, f"part {number} is empty"))
            continue
        yield check_text(where, text)


def _part_text(part: Mapping[str, Any]) -> object:
    """What a part says: its text, the tool that it calls, or what the tool gave back; None for nothing."""
    kind = part.get("type", "text")
    if kind in ("text", "input_text", "output_text"):
        return part.get("text")
    if kind in ("tool_use", "function_call"):
        return "\n".join(tool_call_lines([part])) or None
    if kind in ("tool_result", "function_call_output"):
        given = part.get("content", part.get("output"))
        if isinstance(given, Sequence) and not isinstance(given, str | bytes):
            texts = [one.get("text") for one in given if isinstance(one, Mapping)]
            given = "\n".join(one for one in texts if isinstance(one, str))
        return given if isinstance(given, str) and given.strip() else None
    return None
