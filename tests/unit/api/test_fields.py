"""Every field of every request has an effect, or is named in the answer as one that has none."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from memos.api import cube_models as cubes
from memos.api import explain_models as explain
from memos.api import product_models as product
from memos.api.app import create_app
from memos.api.handlers import Handlers
from memos.api.without_effect import WITHOUT_EFFECT, fields_of, warnings_of
from memos.runtime import Runtime

SAID = [{"role": "user", "content": "My boat is called Petrel."}]
REFUSED = {"doc_path", "is_upload_skill", "cube_path"}  # anything but nothing is an error that says why
Case = tuple[type[BaseModel], Callable[[Handlers, Any], object], dict[str, Any]]


def drained(frames: Iterator[str]) -> str:
    return "".join(frames)


def business(handlers: Handlers, asked: product.ChatBusinessRequest) -> str:
    return drained(handlers.chat_service.handle_chat_stream_for_business_user(asked, keys=["k"]))


def cases() -> Iterator[Case]:
    """Requests that between them reach every branch in which a field is looked at."""
    ask = {"user_id": "u", "query": "boat"}
    yield product.APIADDRequest, lambda h, r: h.add.handle_add_memories(r), {"user_id": "u", "messages": SAID}
    old = {"user_id": "u", "memory_content": "I prefer tea.", "async_mode": "sync", "mode": "fine"}
    yield product.APIADDRequest, lambda h, r: h.add.handle_add_memories(r), old
    for more in ({"wait_ms": 5, "min_seq": 1}, {"mode": "mixture"}):
        yield product.APISearchRequest, lambda h, r: h.search.handle_search_memories(r), ask | more
    for more in ({"memory_id": "x"}, {"expected": "My boat is called Petrel."}):
        yield explain.ExplainRequest, lambda h, r: h.explain.handle_explain(r), ask | more
    yield product.ChatRequest, lambda h, r: drained(h.chat_service.handle_chat_stream(r)), ask
    yield (
        product.ChatPlaygroundRequest,
        lambda h, r: drained(h.chat_service.handle_chat_stream(r, kind="playground")),
        ask,
    )
    yield product.ChatBusinessRequest, business, {**ask, "business_key": "k", "need_search": False}
    yield product.APIChatCompleteRequest, lambda h, r: h.chat_service.handle_chat_complete(r), ask
    feedback = {"user_id": "u", "feedback_content": "No, it is called Kestrel.", "history": SAID}
    yield product.APIFeedbackRequest, lambda h, r: h.feedback.handle_feedback_memories(r), feedback
    yield product.GetMemoryRequest, lambda h, r: h.memory.handle_get_memories(r), {"mem_cube_id": "u"}
    yield (
        product.GetMemoryDashboardRequest,
        lambda h, r: h.memory.handle_get_memories_dashboard(r),
        {"mem_cube_id": "u"},
    )
    find = {"user_id": "u", "search_query": "boat"}
    yield product.GetMemoryPlaygroundRequest, lambda h, r: h.graph.handle_get_all(r), find
    # Its one field; the route takes it apart.
    yield (
        product.GetMemoryByIdsRequest,
        lambda h, r: h.memory.handle_get_memory_by_ids(r.memory_ids),
        {"memory_ids": ["x"]},
    )
    yield (
        product.DeleteMemoryRequest,
        lambda h, r: h.memory.handle_delete_memories(r),
        {"user_id": "nobody", "session_id": "s"},
    )
    made = {"cube_name": "c", "owner_id": "u"}
    yield cubes.CreateCubeRequest, lambda h, r: h.cube.handle_create_cube(r), made
    yield (
        cubes.RegisterCubeRequest,
        lambda h, r: h.cube.handle_register_cube(r),
        {"mem_cube_name_or_path": "c"},
    )
    yield cubes.ExistMemCubeIdRequest, lambda h, r: h.cube.handle_exist_cube(r), {"mem_cube_id": "c"}
    yield (
        cubes.GetUserNamesByMemoryIdsRequest,
        lambda h, r: h.cube.handle_user_names(r.memory_ids),
        {"memory_ids": ["x"]},
    )
    record = {"mem_cube_id": "c", "record_id": "r"}
    yield cubes.DeleteMemoryByRecordIdRequest, lambda h, r: h.records.handle_delete(r), record
    back = {"mem_cube_id": "c", "delete_record_id": "r"}
    yield cubes.RecoverMemoryByRecordIdRequest, lambda h, r: h.records.handle_recover(r), back
    tell = {"user_id": "u", "mem_cube_id": "u", "message": "boat"}
    yield cubes.SuggestionRequest, lambda h, r: h.suggest.handle_suggestions(r), tell


def looked_at(kind: type[BaseModel], fields: dict[str, Any], run: Callable[[Any], object]) -> set[str]:
    """The fields of a request that `run` reads."""
    seen: set[str] = set()

    class Watched(kind):  # type: ignore[valid-type,misc]
        def __getattribute__(self, name: str) -> Any:
            if name in kind.model_fields:
                seen.add(name)
            return super().__getattribute__(name)

        def model_dump(self, *, exclude: set[str], **how: Any) -> dict[str, Any]:
            seen.update(set(kind.model_fields) - exclude)  # an explanation asks the search itself
            return super().model_dump(exclude=exclude, **how)

    asked = Watched(**fields)
    seen.clear()  # what its own validation reads is no effect
    run(asked)
    return seen


def test_every_field_is_read_or_named(handlers: Handlers) -> None:
    """What a handler never looks at stands in the table of fields without effect, and nothing else does."""
    read: dict[type[BaseModel], set[str]] = defaultdict(set)
    for kind, run, fields in cases():
        read[kind] |= looked_at(kind, fields, lambda asked, run=run: run(handlers, asked))
    for kind, seen in read.items():
        unread = set(kind.model_fields) - seen - REFUSED
        if kind is product.DeleteMemoryRequest:
            assert {"memory_ids", "file_ids"} <= seen
        named = set(fields_of(kind))
        assert unread == named - seen, kind.__name__
        if kind is explain.ExplainRequest:
            continue
        assert named & seen <= {"internet_search"}  # a search looks at it to say so in `degraded` too


def test_every_request_of_the_server_is_checked(runtime: Runtime) -> None:
    """A route that takes a new kind of request, of more than one field, has to stand in the cases here."""
    schema = create_app(runtime).openapi()
    bodies = {
        one["$ref"].rpartition("/")[2]
        for path in schema["paths"].values()
        for operation in path.values()
        for one in _bodies(operation)
        if "$ref" in one
    }
    several = {name for name in bodies if len(schema["components"]["schemas"][name]["properties"]) > 1}
    assert several and several <= {kind.__name__ for kind, _, _ in cases()}


def _bodies(operation: dict[str, Any]) -> list[dict[str, Any]]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return [body, *body.get("anyOf", [])]


def test_the_description_says_so_too() -> None:
    """Each field of the table is there, and its description says that it has no effect."""
    for name, fields in WITHOUT_EFFECT.items():
        kind = getattr(product, name, None) or getattr(explain, name)
        for field in fields:
            if name != "ExplainRequest":  # what it inherits has one in a search
                assert "no effect" in (kind.model_fields[field].description or ""), (name, field)


def test_a_warning_names_what_was_asked_in_vain(handlers: Handlers) -> None:
    """Answers warn of what was set to ask for more; defaults, and what asks for just what is done, are quiet."""
    loud = product.APISearchRequest(user_id="u", query="q", rerank=True, internet_search=True, source="web")
    assert [one.partition(" ")[0] for one in warnings_of(loud)] == ["rerank", "internet_search", "source"]
    assert handlers.search.handle_search_memories(loud).warnings == warnings_of(loud)
    quiet = product.APISearchRequest(
        user_id="u", query="q", rerank=False, search_tool_memory=False, skill_mem_top_k=0, chat_history=[]
    )
    assert warnings_of(quiet) == []
    add = product.APIADDRequest(user_id="u", messages="A lamp.", mode="fine", chat_history=SAID)
    said = handlers.add.handle_add_memories(add).warnings
    assert [one.partition(" ")[0] for one in said] == ["chat_history", "mode"]
    chat = product.APIChatCompleteRequest(user_id="u", query="lamp?", threshold=0.1, mode="mixture")
    answered = handlers.chat_service.handle_chat_complete(chat)
    assert answered.data and "threshold has no effect" in answered.data["reasoning"]
    assert len(answered.warnings) == 2
    assert "mode has no effect" in drained(handlers.chat_service.handle_chat_stream(chat))


def test_the_modes_of_get_all_differ(handlers: Handlers) -> None:
    """By words alone what shares none is not found; by vectors, where there are none, the answer says so."""
    handlers.add.handle_add_memories(product.APIADDRequest(user_id="u", messages=SAID))
    shown = {}
    for how in get_args(product.GetMemoryPlaygroundRequest.model_fields["search_type"].annotation):
        asked = product.GetMemoryPlaygroundRequest(user_id="u", search_query="Petrel", search_type=how)
        shown[how] = handlers.graph.handle_get_all(asked)
    assert len((shown["fulltext"].data or [])[0]["memories"][0]["nodes"]) == 1
    assert shown["fulltext"].warnings == []
    assert "no embedder" in shown["embedding"].warnings[0]


def test_the_cases_run_what_the_routes_run() -> None:
    """Every handler that a route gives a request to is among those that the cases call."""
    import memos.api.routers.product as routes

    called = set(re.findall(r"\.(handle_\w+)[(,]\s*request\b", inspect.getsource(routes)))
    tried = set(_handler_calls(inspect.getsource(cases) + inspect.getsource(business)))
    assert len(called) > 15 and called <= tried


def _handler_calls(source: str) -> Iterator[str]:
    for part in source.split(".handle_")[1:]:
        yield "handle_" + part.split("(")[0].split(",")[0]


@pytest.mark.parametrize("fields", [{"doc_path": "/etc/passwd"}, {"is_upload_skill": True}])
def test_what_is_refused_says_why(fields: dict[str, Any]) -> None:
    """A field that cannot be honoured safely is an error, not a warning."""
    with pytest.raises(ValueError, match=next(iter(fields))):
        product.APIADDRequest(user_id="u", messages="x", **fields)
