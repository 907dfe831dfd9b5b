"""Requests: the documented defaults, and refusals that name the field, the value and the way out."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from memos.api.product_models import (
    APIADDRequest,
    APIChatCompleteRequest,
    APIFeedbackRequest,
    APISearchRequest,
    ChatBusinessRequest,
    ChatPlaygroundRequest,
    ChatRequest,
    DeleteMemoryRequest,
    MemoryResponse,
)


def test_the_documented_defaults_hold() -> None:
    """A request that gives only what is needed has the documented values everywhere else."""
    search = APISearchRequest(user_id="u", query="q")
    assert (search.top_k, search.relativity, search.dedup, search.mode) == (10, 0.45, "mmr", "fast")
    assert (search.pref_top_k, search.tool_mem_top_k, search.skill_mem_top_k) == (6, 6, 3)
    assert (search.search_memory_type, search.include_preference) == ("All", True)
    add = APIADDRequest(user_id="u", messages="x")
    assert (add.async_mode, add.mode, add.is_feedback, add.session_id) == ("async", None, False, None)
    chat = ChatPlaygroundRequest(user_id="u", query="q")
    assert (chat.top_k, chat.threshold, chat.add_message_on_answer) == (10, 0.5, True)
    assert chat.beginner_guide_step is None
    assert ChatBusinessRequest(user_id="u", query="q", business_key="k").need_search is True
    for kind in (ChatPlaygroundRequest, ChatBusinessRequest, APIChatCompleteRequest):
        assert issubclass(kind, ChatRequest)


def test_unknown_fields_are_ignored() -> None:
    """A client of a larger server is not turned away."""
    assert APISearchRequest(user_id="u", query="q", shiny_new_field=1).query == "q"  # type: ignore[call-arg]


def test_an_empty_list_of_cubes_is_no_list() -> None:
    """An empty list means the user's own cube, as leaving it out does; repeated ids count once."""
    assert APIADDRequest(user_id="u", messages="x", writable_cube_ids=[]).writable_cube_ids == []
    assert APISearchRequest(user_id="u", query="q", readable_cube_ids=["a", "a", "b"]).readable_cube_ids == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (APIADDRequest, {"messages": "x"}, "user_id"),
        (APIADDRequest, {"user_id": "", "messages": "x"}, "user_id is empty"),
        (APIADDRequest, {"user_id": "a\0", "messages": "x"}, "control"),
        (APIADDRequest, {"user_id": "u" * 513, "messages": "x"}, "at most 512"),
        (APIADDRequest, {"user_id": "u"}, "messages is missing"),
        (APIADDRequest, {"user_id": "u", "messages": []}, "empty list"),
        (APIADDRequest, {"user_id": "u", "messages": 7}, "string or a list"),
        (APIADDRequest, {"user_id": "u", "messages": [{"role": "king", "content": "x"}]}, "known roles"),
        (APIADDRequest, {"user_id": "u", "messages": "x", "memory_content": "y"}, "both given"),
        (APIADDRequest, {"user_id": "u", "messages": "x", "doc_path": "/etc/passwd"}, "doc_path is not read"),
        (APIADDRequest, {"user_id": "u", "messages": "x", "is_upload_skill": True}, "no skills"),
        (APIADDRequest, {"user_id": "u", "messages": "x", "async_mode": "later"}, "'async' or 'sync'"),
        (APIADDRequest, {"user_id": "u", "messages": "x", "custom_tags": [""]}, "tag is empty"),
        (APIADDRequest, {"user_id": "u", "messages": "x", "writable_cube_ids": ["c"] * 101}, "at most 100"),
        (APISearchRequest, {"user_id": "u", "query": " "}, "query is empty"),
        (APISearchRequest, {"user_id": "u", "query": "q", "top_k": 0}, "greater than or equal to 1"),
        (APISearchRequest, {"user_id": "u", "query": "q", "relativity": 1.5}, "less than or equal to 1"),
        (APISearchRequest, {"user_id": "u", "query": "q", "dedup": "all"}, "'no', 'sim' or 'mmr'"),
        (ChatRequest, {"user_id": "u", "query": "q", "history": [{"role": "x"}]}, r"history\[0\].role"),
        (
            ChatRequest,
            {"user_id": "u", "query": "q", "history": [{"role": "user", "content": 1}]},
            r"history\[0\].content",
        ),
        (APIFeedbackRequest, {"user_id": "u", "feedback_content": ""}, "feedback_content is empty"),
        (DeleteMemoryRequest, {}, "exactly one way"),
        (DeleteMemoryRequest, {"memory_ids": ["a"], "user_id": "u"}, "exactly one way"),
        (DeleteMemoryRequest, {"memory_ids": []}, "empty list"),
        (DeleteMemoryRequest, {"filter": {}}, "match everything"),
        (DeleteMemoryRequest, {"file_ids": []}, "empty list"),
        (DeleteMemoryRequest, {"file_ids": ["f"], "memory_ids": ["a"]}, "exactly one way"),
        (DeleteMemoryRequest, {"file_ids": ["f"], "user_id": "u"}, "exactly one way"),
    ],
)
def test_a_bad_field_is_refused_by_name(kind: type[BaseModel], fields: dict[str, object], says: str) -> None:
    """A value that cannot work is refused with a text that names it and what would be accepted."""
    with pytest.raises(ValidationError, match=says):
        kind(**fields)


def test_a_response_is_the_documented_envelope() -> None:
    """Success is code 200 with a message and data."""
    shown = MemoryResponse(data=[{"memory_id": "1"}]).model_dump()
    assert (shown["code"], shown["message"], shown["data"]) == (200, "success", [{"memory_id": "1"}])
