"""Models over HTTP in a whole runtime: chats, embeddings, reranking, and what happens when they fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from memos.api.app import create_app
from memos.api.handlers import handlers_of
from memos.api.product_models import APIADDRequest, APIChatCompleteRequest
from memos.errors import ConfigError, EmbedderMismatch, ModelUnavailable
from memos.mem_scheduler.handlers.mem_read import UNREACHED_MAX_S
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.reembed import fill
from memos.memory.store import ItemFilter
from memos.models.base import ChatMessage
from memos.retrieval.hybrid import RecallRequest
from memos.runtime import Runtime, build
from memos.runtime_models import build_models
from memos.settings import Settings
from memos.testing import ManualClock
from memos.testing_server import CutOff, Fault, Garbage, ModelServer, Say, Slow, rate_limit

ASKED = [ChatMessage("user", "hello")]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(models=["boat-1"]) as running:
        yield running


def settings_in(home: Path, **models: Any) -> Settings:
    return Settings(home=home, models={"embedder": "none", **models}, api={"enable_chat": True})


def remember(runtime: Runtime, *texts: str) -> None:
    handlers_of(runtime).add.handle_add_memories(
        APIADDRequest(
            user_id="u", messages=[{"role": "user", "content": text} for text in texts], async_mode="sync"
        )
    )


def frames(body: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ")]


def joined(found: list[dict[str, Any]], kind: str) -> str:
    return "".join(frame["data"] for frame in found if frame["type"] == kind)


@pytest.fixture
def chatting(server: ModelServer, tmp_path: Path) -> Iterator[tuple[TestClient, Runtime]]:
    """A client of the API whose chats go to the server; one memory is stored."""
    settings = settings_in(tmp_path, chat_base_url=server.url)
    with build(settings, start=False) as runtime:
        remember(runtime, "My boat is called Petrel.")
        with TestClient(create_app(runtime)) as client:
            yield client, runtime


QUESTION = {"user_id": "u", "query": "What is my boat called?"}


@pytest.mark.parametrize("route", ["stream", "stream/playground"])
def test_a_chat_streams_the_models_words_and_reasoning(
    chatting: tuple[TestClient, Runtime], server: ModelServer, route: str
) -> None:
    """The model is given the memory, its reasoning comes as `reasoning` frames, its words as `text`."""
    client, runtime = chatting
    server.script(Say("It is called Petrel.", reasoning="The memory names it."))
    found = frames(client.post(f"/product/chat/{route}", json=QUESTION).text)
    assert joined(found, "text") == "It is called Petrel."
    assert "The memory names it." in joined(found, "reasoning")
    assert sum(frame["type"] == "text" for frame in found) > 1 and found[-1]["type"] == "end"
    prompt = server.chats()[0].body["messages"]
    assert "My boat is called Petrel." in prompt[-1]["content"]
    assert prompt[-1]["role"] == "user" and prompt[-1]["content"].endswith(f"\n{QUESTION['query']}")
    newest = runtime.store.find(ItemFilter(), limit=2).items
    assert {item.memory for item in newest} == {QUESTION["query"], "It is called Petrel."}
    assert [i.extra["answered_by"] for i in newest if i.role == "assistant"] == ["boat-1"]


def test_a_chat_in_one_piece_is_the_models(chatting: tuple[TestClient, Runtime], server: ModelServer) -> None:
    """`/chat/complete` answers with the model's words."""
    client, _ = chatting
    server.script(Say("Petrel.", reasoning="A boat."))
    answer = client.post("/product/chat/complete", json=QUESTION).json()["data"]
    assert answer["response"] == "Petrel." and "A boat." in answer["reasoning"]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Fault(500, "out of memory"), "out of memory"),
        (Fault(401, "no such key"), "401"),
        (rate_limit(30), "429"),
        (Garbage(b"<html>a proxy</html>", "text/html"), "not JSON"),
        (Garbage(b'data: {"choices": [{"del', "text/event-stream"), "not JSON"),
        (CutOff(Say("It is called Petrel, I think.")), "broke off"),
    ],
)
def test_a_failing_endpoint_costs_no_answer(
    chatting: tuple[TestClient, Runtime], server: ModelServer, reply: Any, said: str
) -> None:
    """Memory answers, the reasoning says what failed, no error frame comes and the turn is stored."""
    client, runtime = chatting
    server.script(reply)
    found = frames(client.post("/product/chat/stream/playground", json=QUESTION).text)
    assert "Petrel" in joined(found, "text") and said in joined(found, "reasoning")
    assert "error" not in {frame["type"] for frame in found} and found[-1]["type"] == "end"
    assert "Traceback" not in json.dumps(found)
    newest = runtime.store.find(ItemFilter(), limit=2).items
    assert {item.memory for item in newest} == {QUESTION["query"], joined(found, "text")}
    assert runtime.queue.depth(lanes=False).remaining >= 2


def test_an_endpoint_that_is_gone_costs_no_answer(
    chatting: tuple[TestClient, Runtime], server: ModelServer
) -> None:
    """While nobody listens memory answers."""
    client, _ = chatting
    server.close()
    answer = client.post("/product/chat/complete", json=QUESTION).json()["data"]
    assert "Petrel" in answer["response"] and "cannot be reached" in answer["reasoning"]


def test_a_key_alone_switches_nothing_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_API_KEY in the environment is no wish for a paid model."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-program")
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    with build(Settings.load(), start=False) as runtime:
        assert runtime.llm is None and runtime.chat_llms == {}
        assert runtime.models.reader_llm is None and runtime.models.scheduler_llm is None


def test_chats_ask_for_models_by_name(server: ModelServer, tmp_path: Path) -> None:
    """Each entry of the list answers to its names, at its own place with its own key."""
    entry = {
        "model_name_or_path": "x",
        "api_base": server.url,
        "api_key": "k-list",
        "support_models": ["s", "m"],
    }
    settings = settings_in(
        tmp_path, chat_model="main", chat_base_url=server.url, chat_api_key="k-main", chat_models=[entry]
    )
    server.script("small", "main")
    with build(settings, start=False) as runtime, TestClient(create_app(runtime)) as client:
        assert sorted(runtime.chat_llms) == ["m", "main", "s"]
        for name, said in (("s", "small"), (None, "main")):
            asked = QUESTION | {"model_name_or_path": name}
            answer = client.post("/product/chat/complete", json=asked).json()["data"]
            assert answer["response"] == said
    assert [(r.body["model"], r.headers["authorization"]) for r in server.chats()] == [
        ("s", "Bearer k-list"),
        ("main", "Bearer k-main"),
    ]


def test_a_key_goes_to_its_own_place_only(server: ModelServer, tmp_path: Path) -> None:
    """A role with a base URL of its own is not given the chat's key; one without is."""
    with ModelServer(["r"]) as reader:
        settings = settings_in(
            tmp_path,
            chat_model="main",
            chat_base_url=server.url,
            chat_api_key="k-main",
            reader_model="r",
            reader_base_url=reader.url,
            scheduler_model="s",
        )
        server.script("s")
        with build(settings, start=False) as runtime:
            assert runtime.models.reader_llm is not None and runtime.models.scheduler_llm is not None
            runtime.models.reader_llm.complete(ASKED)
            runtime.models.scheduler_llm.complete(ASKED)
        assert "k-main" not in json.dumps(dict(reader.requests[0].headers))
    assert server.requests[0].headers["authorization"] == "Bearer k-main"
    assert server.requests[0].body["model"] == "s"


@pytest.mark.parametrize("role", ["reader", "scheduler"])
def test_the_chat_model_works_for_a_role_within_its_limits(
    server: ModelServer, tmp_path: Path, role: str
) -> None:
    """A reader or scheduler without a model of its own asks the chat's, and waits as long as it may itself."""
    limits = {f"{role}_timeout_s": 0.2, "chat_timeout_s": 100.0}
    settings = settings_in(tmp_path, chat_model="m", chat_base_url=server.url, **limits)
    models = build_models(settings.models, ManualClock())
    llm = {"reader": models.reader_llm, "scheduler": models.scheduler_llm}[role]
    server.script(Slow(Say("late"), 5.0))
    assert llm is not None
    with pytest.raises(ModelUnavailable):
        llm.complete(ASKED)
    models.close()


def test_a_base_url_that_cannot_work_stops_the_start(tmp_path: Path) -> None:
    """The error names the URL and shows a good one."""
    with pytest.raises(ConfigError, match=r"localhost:11434.*http://localhost:11434/v1"):
        build(settings_in(tmp_path, chat_base_url="localhost:11434"))


# -- embeddings ------------------------------------------------------------------------------------------


def embedding(server: ModelServer, model: str = "e-1") -> dict[str, Any]:
    return {"embedder": "openai", "embedder_model": model, "embedder_base_url": server.url}


def test_memories_are_recalled_by_the_endpoints_vectors(server: ModelServer, tmp_path: Path) -> None:
    """With an embedding endpoint every memory has a vector and recall lacks nothing."""
    with build(settings_in(tmp_path, **embedding(server)), start=False) as runtime:
        remember(runtime, "My boat is called Petrel.")
        assert runtime.store.without_vector(limit=10) == []
        asked = RecallRequest(query="boat called", cube_ids=("u",), user_id="u", top_k=3)
        recall = runtime.retriever.search(asked)
        assert "Petrel" in recall.hits[0].item.memory and not recall.degraded


def test_another_embedding_model_names_the_way_out(server: ModelServer, tmp_path: Path) -> None:
    """A store of one model refuses another, names `memos reembed`, and opens for that."""
    with build(settings_in(tmp_path, **embedding(server)), start=False) as runtime:
        remember(runtime, "My boat is called Petrel.")
    other = settings_in(tmp_path, **embedding(server, "e-2"))
    with pytest.raises(EmbedderMismatch, match="memos reembed"):
        build(other, start=False)
    with build(other, start=False, rebind=True) as runtime:
        assert runtime.embedder is not None and ":e-2:" in runtime.embedder.fingerprint


def test_an_embedding_endpoint_that_fails_costs_no_memory(server: ModelServer, tmp_path: Path) -> None:
    """What is added meanwhile is stored and found by its words, and filled in afterwards."""
    with build(settings_in(tmp_path, **embedding(server)), start=False) as runtime:
        server.fail(Fault(503))
        remember(runtime, "My boat is called Petrel.")
        asked = RecallRequest(query="boat", cube_ids=("u",), user_id="u", top_k=3)
        recall = runtime.retriever.search(asked)
        assert "Petrel" in recall.hits[0].item.memory and "the embedder failed" in recall.degraded[0]
        server.fail(None)
        missing = len(runtime.store.without_vector(limit=10))
        assert missing and fill(runtime.store, runtime.indexer) == missing
        assert not runtime.retriever.search(asked).degraded


def test_an_embedding_endpoint_that_is_down_does_not_stop_the_start(
    server: ModelServer, tmp_path: Path
) -> None:
    """The runtime opens without vectors and says why; the store of that model still opens later."""
    with build(settings_in(tmp_path, **embedding(server)), start=False) as runtime:
        remember(runtime, "My boat is called Petrel.")
    server.fail(Fault(503, "loading"))
    with build(settings_in(tmp_path, **embedding(server)), start=False) as runtime:
        assert runtime.embedder is None and "loading" in runtime.embedder_missing
        remember(runtime, "Petrel lies in Harwich.")
    server.fail(None)
    with build(settings_in(tmp_path, **embedding(server)), start=False) as runtime:
        assert len(runtime.store.without_vector(limit=10)) >= 1


@pytest.mark.parametrize("fault", [Fault(401, "bad key"), Fault(404, "model not found"), Garbage(b"{}")])
def test_an_embedding_endpoint_that_refuses_stops_the_start(
    server: ModelServer, tmp_path: Path, fault: Any
) -> None:
    """A wrong key, an unknown model or no embeddings at all are errors of the configuration."""
    server.fail(fault)
    with pytest.raises(ConfigError, match="embedder 'e-1'"):
        build(settings_in(tmp_path, **embedding(server)))


# -- reranking -------------------------------------------------------------------------------------------


def test_the_reranker_ranks_what_working_memory_is_filled_from(server: ModelServer, tmp_path: Path) -> None:
    """A question's task asks the endpoint; when it fails the task is done all the same."""
    settings = settings_in(tmp_path, reranker="http", reranker_url=f"{server.url}/rerank")
    with build(settings) as runtime:
        remember(runtime, "My boat is called Petrel.", "The vet is in Harbour Street.")
        client = handlers_of(runtime).chat_service
        client.answer(APIChatCompleteRequest(**QUESTION))
        assert runtime.drain(20)
        ranked = [request for request in server.requests if request.path.endswith("/rerank")]
        assert ranked and ranked[0].body["query"] == QUESTION["query"]
        server.fail(Fault(500))
        client.answer(APIChatCompleteRequest(**QUESTION | {"query": "Where is the vet?"}))
        assert runtime.drain(20)
        assert runtime.queue.depth(lanes=False).dead == 0
        assert runtime.store.working("u").entries


def test_tasks_are_done_while_every_endpoint_fails(server: ModelServer, tmp_path: Path) -> None:
    """With chat, embedder and reranker down, chats are answered and every task they leave is done."""
    models = embedding(server) | {
        "chat_base_url": server.url,
        "chat_model": "boat-1",
        "reranker": "http",
        "reranker_url": f"{server.url}/rerank",
    }
    with build(settings_in(tmp_path, **models)) as runtime:
        remember(runtime, "My boat is called Petrel.", "The vet is in Harbour Street.")
        assert runtime.drain(20)
        server.fail(Fault(503))
        chat = handlers_of(runtime).chat_service
        for question in ("What is my boat called?", "Where is the vet?", "What is my boat called?"):
            answer = chat.answer(APIChatCompleteRequest(user_id="u", query=question))
            assert answer.response and "503" in answer.reasoning
        assert runtime.drain(UNREACHED_MAX_S + 60)  # reading waits that long for its model, then rules read
        depth = runtime.queue.depth(lanes=False)
        assert (depth.remaining, depth.dead) == (0, 0)
        assert "Petrel" in " ".join(item.memory for item in runtime.store.working("u").items)


def test_an_endpoint_that_is_down_for_an_hour_loses_no_turn(server: ModelServer, tmp_path: Path) -> None:
    """Every turn is done by rules, the endpoint is asked about once a minute, and when it is back it is heard."""
    clock = ManualClock()
    settings = settings_in(tmp_path, chat_base_url=server.url, chat_model="m")
    server.fail(Fault(503, "down"))
    with build(settings, start=False, clock=clock) as runtime:
        remember(runtime, "My boat is called Petrel.", "The boat lies in Harwich.")

        def turn(number: int) -> None:
            text = f"What of boat {number} in harbour {number * 7}?"
            runtime.scheduler.submit_messages(
                [ScheduleMessageItem(user_id="u", mem_cube_id="u", label="mem_update", content=text)]
            )
            while runtime.scheduler.run_once(lanes_max=16):
                pass
            clock.advance(30.0)

        for number in range(120):
            turn(number)
        assert 60 <= len(server.chats()) <= 75
        assert len(runtime.store.working("u").items) == 2
        faults = runtime.store.web_logs(label="modelFault", limit=500)
        assert len(faults) >= 120  # each says why the rules did it
        server.fail(None)
        server.script(
            {"queries": [{"index": 0, "trigger_retrieval": True, "missing_evidence": []}]}, {"new_order": [1]}
        )
        clock.advance(60.0)
        turn(500)
        assert "ranked 1 by the model" in runtime.store.working("u").entries[0].reason
        depth = runtime.queue.depth(lanes=False)
        assert (depth.remaining, depth.running, depth.dead) == (0, 0, 0)
