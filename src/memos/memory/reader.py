"""MemReader: turns what people say into memories.

Fast mode, here: one raw item per turn, by rules, with its bare text; who spoke, when, in which session
and at which place of it are fields. A turn of too many characters or tokens becomes several items cut at
sentence borders, which share the turn's message id and stand in a row. Nothing is dropped in silence: what holds no text
is in `Reading.skipped`. The reader writes nothing and calls no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from memos.clock import Clock, SystemClock, utc
from memos.errors import ConfigError, InvalidInput
from memos.memory.hygiene import TOKENS_MAX
from memos.memory.item import MemoryItem, MemoryKind, Source
from memos.memory.token_count import count_tokens
from memos.memory.turns import Conversation, Skipped, Turn, parse_conversation

TEXT_CHARS_MAX = 2_000

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？；])[”’」』）]*|\n+")


def _new_id() -> str:
    return str(uuid4())


@dataclass(frozen=True, slots=True)
class Reading:
    """The items of a conversation in the order of its turns, and what did not become an item."""

    items: tuple[MemoryItem, ...]
    skipped: tuple[Skipped, ...] = ()
    indexes: tuple[int, ...] = ()  # of each item: the place of its turn in the caller's list


class MemReader:
    """Reads conversations into items. Thread-safe; keeps nothing between calls."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        new_id: Callable[[], str] = _new_id,
        text_chars_max: int = TEXT_CHARS_MAX,
        tokens_max: int = TOKENS_MAX,
    ) -> None:
        if text_chars_max < 1:
            raise ConfigError(f"text_chars_max must be at least 1, not {text_chars_max}")
        if tokens_max < 1:
            raise ConfigError(f"tokens_max must be at least 1, not {tokens_max}")
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._text_chars_max = text_chars_max
        self._tokens_max = tokens_max

    def read_messages(
        self,
        messages: str | Sequence[Mapping[str, Any]] | Conversation,
        *,
        user_id: str,
        cube_id: str,
        session_id: str = "",
        turn_id: str = "",
        user_name: str = "",
        first_position: int = 0,
        source_type: str = "chat",
        info: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
    ) -> Reading:
        """The items of `messages` for one cube; `info` and `tags` are kept with each.

        first_position: the place in the session that the first item takes. Raises InvalidInput.
        """
        conversation = messages if isinstance(messages, Conversation) else parse_conversation(messages)
        if not conversation.turns:
            reasons = "; ".join(f"message {s.index}: {s.reason}" for s in conversation.skipped)
            raise InvalidInput(f"there is nothing to remember in messages ({reasons})")
        now = utc(self._clock.now())
        items: list[MemoryItem] = []
        indexes: list[int] = []
        for turn in conversation.turns:
            message_id = turn.message_id or self._new_id()
            texts = list(split_text(turn.text, self._text_chars_max, tokens_max=self._tokens_max))
            for part, text in enumerate(texts, start=1):
                indexes.append(turn.index)
                extra = dict(info or {})
                if len(texts) > 1:
                    extra["part"], extra["parts"] = part, len(texts)
                items.append(
                    MemoryItem(
                        id=self._new_id(),
                        cube_id=cube_id,
                        user_id=user_id,
                        memory=text,
                        kind=MemoryKind.LONG_TERM,
                        role=turn.role,
                        participants=_participants(turn, user_name),
                        session_id=session_id,
                        position=first_position + len(items),
                        turn_id=turn_id,
                        sources=(
                            Source(
                                type=source_type,
                                role=turn.role,
                                message_id=message_id,
                                name=turn.name,
                                at=turn.at,
                            ),
                        ),
                        tags=tuple(tags),
                        created_at=now,
                        updated_at=now,
                        happened_at=turn.at,
                        extra=extra,
                    )
                )
        return Reading(tuple(items), conversation.skipped, tuple(indexes))


def _participants(turn: Turn, user_name: str) -> tuple[str, ...]:
    """Who spoke, by name. A bare role is no name: as one, it would match the word in any text."""
    name = turn.name or (user_name if turn.role == "user" else "")
    return (name,) if name else ()


def split_text(text: str, chars_max: int, *, tokens_max: int = TOKENS_MAX) -> Iterator[str]:
    """`text` in pieces of at most so many characters and tokens, cut at sentence borders where there are any.

    Only white space between pieces is left out. A sentence that is too long is cut at a space, and
    where there is none, anywhere.
    """
    for piece in _pieces(text.strip(), chars_max):
        tokens = count_tokens(piece)
        if tokens <= tokens_max or len(piece) == 1:
            yield piece
        else:  # smaller pieces in proportion; ends: each is shorter than the one it came from
            share = max(1, min(len(piece) - 1, len(piece) * tokens_max // tokens))
            yield from split_text(piece, share, tokens_max=tokens_max)


def _pieces(text: str, chars_max: int) -> Iterator[str]:
    if len(text) <= chars_max:
        yield text
        return
    start = 0
    while len(text) - start > chars_max:
        end = _cut(text, start, start + chars_max)
        piece = text[start:end].strip()
        if piece:
            yield piece
        start = end
    rest = text[start:].strip()
    if rest:
        yield rest


def _cut(text: str, start: int, limit: int) -> int:
    """Where the piece that begins at `start` ends: after the last sentence, else word, before `limit`."""
    ends = [found.end() for found in _SENTENCE_END.finditer(text, start, limit) if found.end() > start]
    if ends:
        return ends[-1]
    space = text.rfind(" ", start + 1, limit)
    return space + 1 if space > start else limit
