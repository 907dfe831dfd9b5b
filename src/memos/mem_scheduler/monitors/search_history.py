"""What a user searched for in a cube lately, and what a fine recall found for it: the history window.

Bounded, in the store's state by cube and user, so it needs no Redis and survives a restart. Only ids are
kept of memories: what was deleted or archived meanwhile can never come back out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memos.errors import ConfigError
from memos.memory.store import MemoryStore, PutState

QUERY_CHARS_KEPT = 2_000
IDS_KEPT_MAX = 100  # of one search


@dataclass(frozen=True, slots=True)
class PastSearch:
    """One search: its words, and the ids that fine recall found, best first."""

    query: str
    session_id: str
    ids: tuple[str, ...]
    searched_at: float  # wall time


@dataclass(frozen=True, slots=True)
class SearchHistory:
    """The window, oldest first."""

    searches: tuple[PastSearch, ...] = ()

    def queries(self, session_id: str, limit: int) -> list[str]:
        """The last queries of a session, newest first; none for no session."""
        own = [one.query for one in reversed(self.searches) if session_id and one.session_id == session_id]
        return own[:limit]

    def ids(self) -> list[str]:
        """What was found, the newest search first."""
        return list(dict.fromkeys(found for one in reversed(self.searches) for found in one.ids))


class SearchHistoryMonitor:
    """Reads and extends the window of `window` searches. Holds no state of its own."""

    def __init__(self, *, window: int = 5, turns: int = 5) -> None:
        if window < 1 or turns < 0:
            raise ConfigError(
                f"search_window_size={window!r} must be at least 1 and search_history_turns={turns!r} not negative"
            )
        self._window = window
        self.turns = turns  # earlier queries of the session that a follow-up question is read with

    def read(self, store: MemoryStore, cube_id: str, user_id: str) -> SearchHistory:
        """The window as the store has it."""
        value: Mapping[str, Any] = store.state(cube_id, _name(user_id)) or {}
        return SearchHistory(
            tuple(
                PastSearch(one["query"], one["session_id"], tuple(one["ids"]), float(one["searched_at"]))
                for one in value.get("searches", ())
            )
        )

    def extended(
        self, before: SearchHistory, query: str, session_id: str, ids: Sequence[str], at: float
    ) -> SearchHistory:
        """The window after a search; a repeated query takes the place of its earlier self."""
        newest = PastSearch(query[:QUERY_CHARS_KEPT], session_id, tuple(ids[:IDS_KEPT_MAX]), at)
        others = [
            one for one in before.searches if (one.query, one.session_id) != (newest.query, newest.session_id)
        ]
        return SearchHistory((*others, newest)[-self._window :])

    def change(self, cube_id: str, user_id: str, history: SearchHistory) -> PutState:
        """The change that stores the window."""
        value = {
            "searches": [
                {
                    "query": one.query,
                    "session_id": one.session_id,
                    "ids": list(one.ids),
                    "searched_at": one.searched_at,
                }
                for one in history.searches
            ]
        }
        return PutState(cube_id, _name(user_id), value)


def _name(user_id: str) -> str:
    return f"searches/{user_id}"
