"""What was said in each chat of this process, for the model's prompt: bounded in turns and in chats."""

from __future__ import annotations

import threading
from collections import OrderedDict

from memos.models.base import ChatMessage

CHATS_MAX = 1_000


class Histories:
    """The newest `turns_max` turns of each (user, session); the chat that was quiet longest leaves first."""

    def __init__(self, *, turns_max: int, chats_max: int = CHATS_MAX) -> None:
        self._messages_max = 2 * turns_max
        self._chats_max = chats_max
        self._lock = threading.Lock()
        self._chats: OrderedDict[tuple[str, str], tuple[ChatMessage, ...]] = OrderedDict()

    def of(self, user_id: str, session_id: str) -> tuple[ChatMessage, ...]:
        """The messages, oldest first."""
        with self._lock:
            return self._chats.get((user_id, session_id), ())

    def add(self, user_id: str, session_id: str, query: str, answer: str) -> None:
        """One turn: the question and its answer."""
        turn = (ChatMessage("user", query), ChatMessage("assistant", answer))
        with self._lock:
            before = self._chats.pop((user_id, session_id), ())
            self._chats[user_id, session_id] = (*before, *turn)[-self._messages_max :]
            while len(self._chats) > self._chats_max:
                self._chats.popitem(last=False)

    def clear(self, user_id: str) -> None:
        """Forget all chats of a user."""
        with self._lock:
            for key in [key for key in self._chats if key[0] == user_id]:
                del self._chats[key]
