"""The turns of a conversation, read from what callers send: the one place that knows message shapes.

Accepted: a string (one user turn); a list of `{role, content, name?, chat_time?, message_id?}`; content
as text or as a list of parts, of which the text counts; a bare part without a role (a user's). What can
never work is refused with `InvalidInput` naming the place and the value. What is legal but holds no text
(a picture, a tool call) is not an error and not silence: it is listed in `Conversation.skipped`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_id, check_text
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
    for index, message in enumerate(messages):
        turn = _turn(index, message, skipped)
        if turn is not None:
            turns.append(turn)
    return Conversation(tuple(turns), tuple(skipped))


def _turn(index: int, message: object, skipped: list[Skipped]) -> Turn | None:
    place = f"messages[{index}]"
    if isinstance(message, str):
        return Turn(index, "user", check_text(place, message))
    if not isinstance(message, Mapping):
        raise InvalidInput(f"{place} must be an object with role and content, not {type(message).__name__}")
    role = _role(place, message)
    text = _text(place, index, message, skipped)
    if text is None:
        return None
    name = message.get("name") or ""
    if name:
        check_id(f"{place}.name", name, chars_max=NAME_CHARS_MAX)
    message_id = message.get("message_id") or ""
    if message_id:
        check_id(f"{place}.message_id", message_id)
    when = message.get("chat_time")
    at = None if when is None or when == "" else parse_moment(when, field=f"{place}.chat_time")
    return Turn(index, role, text, str(name), str(message_id), at)


def _role(place: str, message: Mapping[str, Any]) -> str:
    if "role" not in message and "type" in message:
        return "user"  # a bare part: {"type": "text", "text": …}
    role = message.get("role")
    if role not in ROLES:
        raise InvalidInput(f"{place}.role is {role!r}; known roles are {', '.join(ROLES)}")
    return str(role)


def _text(place: str, index: int, message: Mapping[str, Any], skipped: list[Skipped]) -> str | None:
    """The text of a message; None when it legally has none (then `skipped` says why)."""
    content = message.get("content")
    if content is None and "role" not in message:
        content = [message]
    if isinstance(content, str) and content.strip():
        return check_text(f"{place}.content", content)
    if not content and message.get("tool_calls"):
        skipped.append(Skipped(index, "a tool call without text"))
        return None
    if isinstance(content, str) or content is None:
        raise InvalidInput(f"{place}.content is empty ({content!r}); give some text or leave the message out")
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise InvalidInput(f"{place}.content must be text or a list of parts, not {type(content).__name__}")
    texts = list(_parts(place, index, content, skipped))
    if not texts:
        skipped.append(Skipped(index, "no part of the message holds text"))
        return None
    return check_text(f"{place}.content", "\n".join(texts))


def _parts(place: str, index: int, parts: Sequence[object], skipped: list[Skipped]) -> Iterator[str]:
    for number, part in enumerate(parts):
        where = f"{place}.content[{number}]"
        if isinstance(part, str):
            text: object = part
        elif isinstance(part, Mapping):
            kind = part.get("type", "text")
            text = part.get("text")
            if kind not in ("text", "input_text", "output_text") or text is None:
                skipped.append(
                    Skipped(index, f"part {number} of type {str(kind)[:40]!r} holds no text to remember")
                )
                continue
        else:
            raise InvalidInput(f"{where} must be text or an object with a type, not {type(part).__name__}")
        if not isinstance(text, str):
            raise InvalidInput(f"{where}.text must be a string, not {type(text).__name__}")
        if not text.strip():
            skipped.append(Skipped(index, f"part {number} is empty"))
            continue
        yield check_text(where, text)
