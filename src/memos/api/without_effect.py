"""Documented request fields that this server takes and cannot honour: which, and what is said about them.

`warnings_of(request)` names those that a caller set to something that asks for more than what is done; what
asks for just that (`search_tool_memory: false`) needs no word. Every other field of a request has an effect
(`tests/unit/api/test_fields.py` holds all models against this table). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

_NO_TOOLS = "tool calls are remembered as turns and stand in text_mem"
_NO_SKILLS = "this server stores no skills"

# Field -> what is said, by the name of the request; a request inherits what is said of its parents.
WITHOUT_EFFECT: Mapping[str, Mapping[str, str]] = {
    "APIADDRequest": {
        "chat_history": "messages are read by themselves; put what is to be remembered into messages",
        "source": "use info or custom_tags, which are kept and can be filtered by",
        "operation": "give feedback or delete memories by their own routes",
    },
    "APISearchRequest": {
        "rerank": "recall ranks by its own stages; a reranker takes part in working memory alone",
        "search_tool_memory": _NO_TOOLS,
        "tool_mem_top_k": _NO_TOOLS,
        "include_skill_memory": _NO_SKILLS,
        "skill_mem_top_k": _NO_SKILLS,
        "internet_search": "internet search is not part of this server",
        "chat_history": "put what the query refers to into the query",
        "source": "use filter",
        "neighbor_discovery": "neighbours of what fits always take part in the ranking",
    },
    "ExplainRequest": {
        "mode": "what is explained is the search in mode 'fast'",
        "min_seq": "what is explained is the cube as it is now",
        "wait_ms": "what is explained is the cube as it is now",
    },
    "ChatRequest": {
        "mode": "a chat always recalls as 'fast'",
        "internet_search": "internet search is not part of this server: only memory was searched",
        "threshold": "use relativity",
    },
    "ChatPlaygroundRequest": {"beginner_guide_step": "there is no guide"},
    "GetMemoryRequest": {
        "include_tool_memory": _NO_TOOLS,
        "include_skill_memory": _NO_SKILLS,
    },
}

_NOTHING_ASKED: tuple[Any, ...] = (None, False, "", 0, [], "fast")


def warnings_of(request: BaseModel) -> list[str]:
    """A sentence for each field that was set, asks for something, and has no effect."""
    said = []
    for field, why in fields_of(type(request)).items():
        if field in request.model_fields_set and getattr(request, field) not in _NOTHING_ASKED:
            said.append(f"{field} has no effect: {why}")
    return said


def fields_of(kind: type[BaseModel]) -> dict[str, str]:
    """The fields without effect of a kind of request."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        found.update(WITHOUT_EFFECT.get(one.__name__, {}))
    return found
