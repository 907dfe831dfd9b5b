"""The documented `retriever.search(…)` over hybrid recall.

At most `top_k` memories in all, best first; an error is raised, never turned into an empty list. The cube
is named by `mem_cube_id`; `mem_cube` may be None or any object and is not looked at. All documented
methods run the same hybrid recall. Inside a handler the turn of the message that it runs is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from memos.context import turns_left_out
from memos.errors import InvalidInput
from memos.memory.item import MemoryKind
from memos.memory.moments import parse_moment
from memos.memory.textual import TextualMemoryItem
from memos.retrieval.filters import parse_filter
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.request import Dedup, Recall, RecallRequest

TREE_TEXT_MEMORY_SEARCH = "tree_text_memory_search"
TREE_TEXT_MEMORY_FINE_SEARCH = "tree_text_memory_fine_search"
TEXT_MEMORY_SEARCH = "text_memory_search"
METHODS = (TREE_TEXT_MEMORY_SEARCH, TREE_TEXT_MEMORY_FINE_SEARCH, TEXT_MEMORY_SEARCH)

# Documented, and without effect on hybrid recall: accepted, so that documented programs run.
_WITHOUT_EFFECT = frozenset(
    {
        "source",
        "user_name",
        "info",
        "chat_history",
        "internet_search",
        "search_tool_memory",
        "tool_mem_top_k",
        "playground_search_goal_parser",
        "mode",
    }
)
_HONOURED = frozenset(
    {
        "session_id",
        "scenario",
        "filter",
        "memory_type",
        "relativity",
        "dedup",
        "reference_time",
        "valid_at",
        "known_at",
        "stages",
        "exclude_turn_id",
        "exclude_ids",
    }
)


class Searcher:
    """The documented retriever. Thread-safe."""

    def __init__(self, retriever: HybridRetriever) -> None:
        self._retriever = retriever

    def search(
        self,
        query: str,
        user_id: str,
        mem_cube_id: str,
        mem_cube: object = None,
        top_k: int = 10,
        method: str = TREE_TEXT_MEMORY_SEARCH,
        search_args: Mapping[str, Any] | None = None,
    ) -> list[TextualMemoryItem]:
        """The best `top_k` memories of the cube, each with its `relativity` and dates in the metadata.

        search_args: session_id, scenario (favour these), filter (see `filters`), memory_type, relativity
        (leave out what fits less; default 0), dedup ("no", "sim", "mmr"), reference_time, valid_at,
        known_at (what held or was known then), stages (see `stage_table.switched`), exclude_turn_id
        (beside the running message's own turn), exclude_ids; other documented names are accepted and change nothing. Raises InvalidInput for an
        unknown method, argument or value, and StoreError when the store cannot be read.
        """
        if method not in METHODS:
            raise InvalidInput(f"method={method!r} is unknown; methods are {', '.join(METHODS)}")
        recall = self.recall(query, user_id, mem_cube_id, top_k=top_k, search_args=search_args)
        return [TextualMemoryItem.from_item(hit.item, relativity=hit.relativity) for hit in recall.hits]

    def recall(
        self,
        query: str,
        user_id: str,
        mem_cube_id: str,
        *,
        top_k: int = 10,
        search_args: Mapping[str, Any] | None = None,
    ) -> Recall:
        """The same search with scores, their parts, and what had to be done without."""
        return self._retriever.search(request_of(query, user_id, mem_cube_id, top_k, search_args or {}))


def request_of(
    query: str, user_id: str, mem_cube_id: str, top_k: int, search_args: Mapping[str, Any]
) -> RecallRequest:
    """The request that the documented arguments mean. Raises InvalidInput."""
    for name in search_args:
        if name not in _HONOURED and name not in _WITHOUT_EFFECT:
            known = ", ".join(sorted(_HONOURED | _WITHOUT_EFFECT))
            raise InvalidInput(f"search_args names {name!r}; known are {known}")
    if not isinstance(query, str) or not isinstance(mem_cube_id, str) or not mem_cube_id:
        raise InvalidInput(
            f"query={query!r:.80} and mem_cube_id={mem_cube_id!r:.80} must be texts, not empty"
        )
    if isinstance(top_k, bool) or not isinstance(top_k, int):
        raise InvalidInput(f"top_k={top_k!r} must be a whole number")
    given = {name: value for name, value in search_args.items() if value is not None and value != ""}
    parsed = parse_filter(given.get("filter"))
    request = RecallRequest(
        query=query,
        cube_ids=(mem_cube_id,),
        user_id=user_id,
        top_k=top_k,
        session_id=_text(given, "session_id"),
        scenario=_text(given, "scenario"),
        kinds=_kinds(given.get("memory_type")),
        filter=parsed.wanted,
        predicate=parsed.predicate,
        exclude_turn_ids=turns_left_out(query) | {_text(given, "exclude_turn_id")},
        exclude_ids=_ids(given.get("exclude_ids")),
        relativity=_share(given.get("relativity", 0.0)),
        dedup=_dedup(given.get("dedup", "mmr")),
    )
    moments: dict[str, datetime] = {
        name: parse_moment(given[name], field=f"search_args[{name!r}]")
        for name in ("reference_time", "valid_at", "known_at")
        if name in given
    }
    return replace(
        request,
        stages=_stages(given.get("stages", ())),
        reference_time=moments.get("reference_time"),
        valid_at=moments.get("valid_at"),
        known_at=moments.get("known_at"),
    )


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise InvalidInput(f"search_args[{name!r}] must be a text, not {value!r:.80}")
    return value


def _kinds(value: object) -> tuple[MemoryKind, ...]:
    names = [] if value is None or value == "All" else [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or any(name not in set(MemoryKind) for name in names):
        raise InvalidInput(
            f"search_args['memory_type']={value!r:.80} must be 'All' or among {', '.join(MemoryKind)}"
        )
    return tuple(MemoryKind(name) for name in names)


def _ids(value: object) -> frozenset[str]:
    if value is None:
        return frozenset()
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(one, str) for one in value
    ):
        raise InvalidInput(f"search_args['exclude_ids'] must be a list of ids, not {value!r:.80}")
    return frozenset(value)


def _stages(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(one, str) for one in value
    ):
        raise InvalidInput(f"search_args['stages'] must be a list of names of stages, not {value!r:.80}")
    return tuple(value)


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"search_args['relativity']={value!r:.80} must be a number between 0 and 1")
    return float(value)


def _dedup(value: object) -> Dedup:
    if value == "no" or value == "sim" or value == "mmr":
        return value
    raise InvalidInput(f"search_args['dedup']={value!r:.80} is unknown; give 'no', 'sim' or 'mmr'")
