"""The dead letters in Redis: a hash of letters, and a sorted set of their order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from memos.errors import InvalidInput
from memos.mem_scheduler.queues.base import DeadLetter
from memos.mem_scheduler.queues.redis_streams.wire import decode, encode
from memos.mem_scheduler.schemas.message_schemas import check_text

_PAGE = 200
Letters: TypeAlias = list[DeadLetter]  # `list` is the name of a method below


class RedisDeadLetters:
    """Thread-safe."""

    def __init__(
        self,
        *,
        page: Callable[[int, int], Sequence[tuple[str, str]]],
        find: Callable[[str], str | None],
        change: Callable[..., int],
    ) -> None:
        """`page(first, last)`: keys and letters, newest first; `change(what, *arguments)`: how many."""
        self._page = page
        self._find = find
        self._change = change

    def list(self, *, label: str | None = None, user_id: str | None = None, limit: int = 100) -> Letters:
        found: list[DeadLetter] = []
        for letter in self._all():
            if len(found) >= limit:
                break
            if label in (None, letter.message.label) and user_id in (None, letter.message.user_id):
                found.append(letter)
        return found

    def show(self, key: str) -> DeadLetter:
        text = self._find(key)
        if text is None:
            raise InvalidInput(f"there is no dead letter {key!r}; `memos dead list` names them")
        return _letter(key, text)

    def edit(self, key: str, content: str) -> DeadLetter:
        check_text("content", content)
        message = self.show(key).message
        message.content = content
        self._change("edit", key, encode(message))
        return self.show(key)

    def retry(self, keys: Sequence[str] | None = None) -> int:
        return self._many("retry", keys)

    def purge(self, keys: Sequence[str] | None = None) -> int:
        return self._many("purge", keys)

    def _many(self, what: str, keys: Sequence[str] | None) -> int:
        if keys is None:
            return self._change(what)
        return self._change(what, *keys) if keys else 0

    def _all(self) -> Iterator[DeadLetter]:
        first = 0
        while rows := self._page(first, first + _PAGE - 1):
            for key, text in rows:
                yield _letter(key, text)
            first += _PAGE


def _letter(key: str, text: str) -> DeadLetter:
    fields: dict[str, Any] = json.loads(text)
    return DeadLetter(
        key=key,
        message=decode(fields["message"], key=key, stream=fields["lane"]),
        parent_key=fields["parent"],
        error=fields["error"],
        attempts=int(fields["attempts"]),
        recoveries=int(fields["recoveries"]),
        first_at=float(fields["first"]),
        died_at=float(fields["died"]),
    )
