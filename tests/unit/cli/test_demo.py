"""`memos demo --llm`: the conversation with a model over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from memos.testing_server import Fault, ModelServer, Say, Scripted

from .test_items import memos  # noqa: F401  (a fixture)


def test_the_demo_is_answered_by_the_model(memos: Any) -> None:  # noqa: F811
    """Every question goes to the endpoint with what memory holds, and its words are the answers."""

    def answer(body: Mapping[str, Any]) -> Scripted:
        rules = body["messages"][0]["content"]
        if "trigger_retrieval" in rules:
            return {"queries": [{"index": 0, "keywords": [], "trigger_retrieval": True}]}
        if "new_order" in rules:
            return {"new_order": [1, 0], "reasoning": "the second says it"}
        if "preferences" in rules and "quote" in rules:
            return {"preferences": []}
        return Say("His name is Max, said the model.")

    with ModelServer(answer=answer, models=["boat-1"]) as server:
        ran = memos("demo", "--llm", server.url)
        assert ran.code == 0, ran.out + ran.err
        assert ran.out.count("\n  His name is Max, said the model.") == 5
        assert {request.body["model"] for request in server.chats()} == {"boat-1"}
        chats = [one.body["messages"] for one in server.chats() if one.body.get("stream")]
        assert len(chats) == 5
        assert any("golden retriever puppy named Max" in one["content"] for one in chats[0])
        asked = [one.body["messages"][0]["content"] for one in server.chats() if not one.body.get("stream")]
        assert sum("trigger_retrieval" in rules for rules in asked) == 4  # the repeated question costs none
        assert sum("new_order" in rules for rules in asked) == 4
    assert "ranked 1 by the model" in ran.out and "by rules" not in ran.out


def test_the_demo_outlives_its_endpoint(memos: Any) -> None:  # noqa: F811
    """When the model fails, memory answers and the reason is printed."""
    with ModelServer(default=Fault(500, "out of memory")) as server:
        ran = memos("demo", "--llm", server.url, "--model", "m")
    assert ran.code == 0, ran.out + ran.err
    assert "out of memory" in ran.out and "Max" in ran.out


def test_the_demo_keeps_the_key_from_other_places(
    memos: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key that is configured for one base URL does not go to the URL that is typed."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-private")
    with ModelServer(default="Max.") as server:
        assert memos("demo", "--llm", server.url, "--model", "m").code == 0
        assert all("sk-private" not in str(dict(r.headers)) for r in server.requests)
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        assert memos("demo", "--llm", server.url, "--model", "m").code == 0
        assert server.chats()[-1].headers["authorization"] == "Bearer sk-private"
