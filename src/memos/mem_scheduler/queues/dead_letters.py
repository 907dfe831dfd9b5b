"""The dead letters of the in-memory queue: bounded, the oldest leave first and are counted.

A letter is a pack of one message."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeAlias

from memos.errors import InvalidInput
from memos.mem_scheduler.queues.base import DeadLetter
from memos.mem_scheduler.queues.packs import Pack
from memos.mem_scheduler.schemas.message_schemas import check_text

Packs: TypeAlias = list[Pack]  # `list` is the name of a method below


class MemoryDeadLetters:
    """Thread-safe under the queue's lock, except `put`, which wants it held."""

    def __init__(
        self,
        lock: threading.Lock,
        *,
        letters_max: int,
        requeue: Callable[[list[Pack]], None],
        forget: Callable[[Pack], None],
    ) -> None:
        """`requeue` and `forget` are called with the lock held."""
        self._lock = lock
        self._letters_max = letters_max
        self._requeue = requeue
        self._forget = forget
        self._letters: OrderedDict[str, Pack] = OrderedDict()
        self.dropped = 0  # letters that the bound pushed out

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, letter: Pack) -> None:
        self._letters[letter.key] = letter
        while len(self._letters) > self._letters_max:
            _, oldest = self._letters.popitem(last=False)
            self.dropped += 1
            self._forget(oldest)

    def list(
        self, *, label: str | None = None, user_id: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        with self._lock:
            for letter in reversed(self._letters.values()):
                if len(found) >= limit:
                    break
                if label in (None, letter.label) and user_id in (None, letter.lane.user_id):
                    found.append(letter.dead_letter())
        return found

    def show(self, key: str) -> DeadLetter:
        with self._lock:
            return self._find(key).dead_letter()

    def edit(self, key: str, content: str) -> DeadLetter:
        check_text("content", content)
        with self._lock:
            letter = self._find(key)
            letter.edit(content)
            return letter.dead_letter()

    def retry(self, keys: Sequence[str] | None = None) -> int:
        with self._lock:
            taken = self._take(keys)
            self._requeue(taken)
        return len(taken)

    def purge(self, keys: Sequence[str] | None = None) -> int:
        with self._lock:
            taken = self._take(keys)
            for letter in taken:
                self._forget(letter)
        return len(taken)

    def _find(self, key: str) -> Pack:
        letter = self._letters.get(key)
        if letter is None:
            raise InvalidInput(f"there is no dead letter {key!r}; `memos dead list` names them")
        return letter

    def _take(self, keys: Sequence[str] | None) -> Packs:
        if keys is None:
            taken = list(self._letters.values())
            self._letters.clear()
            return taken
        found = (self._letters.pop(key, None) for key in keys)
        return [letter for letter in found if letter is not None]
