"""Activation memory in a whole runtime: chats, promotion, what is told of it, and what removes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.kept_in_memory import KeptInMemory

from memos import metrics
from memos.api import access
from memos.api.access import Principal, Role
from memos.api.app import create_app
from memos.api.handlers import handlers_of
from memos.api.product_models import APIADDRequest
from memos.clock import Clock
from memos.erasure import erase
from memos.errors import AccessDenied, ConfigError
from memos.mem_chat.chat import ChatQuery
from memos.mem_os.main import MOS
from memos.memory.activation.index import PrefixIndex
from memos.memory.item import ItemStatus, WorkingEntry
from memos.memory.store import ItemFilter, ReplaceWorking, SetStatus
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import ManualClock
from memos.testing_prefixes import PromptCache
from memos.testing_server import CutOff, Fault, Garbage, ModelServer, Say

FACTS = [f"Boat {n} lies in harbour {n} and was painted in colour {n}. " * 4 for n in range(12)]


@contextmanager
def running(home: Path, cache: PromptCache | None, **more: Any) -> Iterator[Runtime]:
    """A runtime whose chats go to a server that keeps prefixes; twelve memories, eight at work."""
    with served(home, cache, **more) as (_, runtime):
        yield runtime


@contextmanager
def served(
    home: Path,
    cache: PromptCache | None,
    *,
    backend: str = "auto",
    clock: Clock | None = None,
    **more: Any,
) -> Iterator[tuple[ModelServer, Runtime]]:
    """The same with the server."""
    with ModelServer(default=Say("It lies in harbour 3."), models=["m"], prefixes=cache) as server:
        chosen = Settings(
            home=home,
            models={"embedder": "none", "chat_model": "m", "chat_base_url": server.url},
            scheduler={"enable_activation_memory": True, "act_mem_update_interval": 0.0, "model_steps": ()},
            activation={"backend": backend, **more},
            api={"enable_chat": True},
        )
        with build(chosen, start=False, clock=clock) as runtime:
            if not runtime.store.cubes():
                messages = [{"role": "user", "content": text} for text in FACTS]
                handlers_of(runtime).add.handle_add_memories(
                    APIADDRequest(user_id="u", messages=messages, async_mode="sync")
                )
                items = runtime.store.find(ItemFilter(), limit=50).items[:8]
                entries = tuple(WorkingEntry(one.id) for one in items)
                runtime.store.apply([ReplaceWorking("u", entries, None, "test")])
            yield server, runtime


def ask(runtime: Runtime, query: str = "Where does boat 3 lie?", user_id: str = "u") -> Any:
    asked = ChatQuery(user_id, query, ("u",), (), add_message_on_answer=False)
    found = runtime.chat.answer(asked).reused
    assert found is not None
    return found


def promote(runtime: Runtime) -> None:
    runtime.scheduler.update_activation_memory(user_id="u", mem_cube_id="u")


def test_a_hosted_endpoint_reuses_what_stays(tmp_path: Path) -> None:
    """With nothing switched on: the second chat is predicted and told as reused; the route shows it."""
    with running(tmp_path, PromptCache("openai")) as runtime:
        first, second = ask(runtime), ask(runtime, "And boat 5?")
        assert (first.predicted, first.reused) == (0, 0) and first.reason in ("not_built", "too_short")
        assert second.predicted > 300
        state = handlers_of(runtime).activation.handle_activation("u").data
        assert state is not None and state["backend"] == "openai" and not state["builds"]
        [block] = state["blocks"]
        assert (block["chats"], block["memories"], block["prefix"]) == (2, 8, None)
        assert handlers_of(runtime).activation.handle_activation("nobody").data["blocks"] == []  # type: ignore[index]


@pytest.mark.parametrize("backend", ["vllm", "sglang", "llama_cpp"])
def test_a_promoted_prefix_is_reused_after_a_restart_of_the_server(tmp_path: Path, backend: str) -> None:
    """What the scheduler made ready is reused by the chat; where it cannot outlive the server, that is a miss."""
    cache = PromptCache(backend)  # type: ignore[arg-type]
    with running(tmp_path, cache, backend=backend) as runtime:
        ask(runtime)
        promote(runtime)
        reused = ask(runtime)
        assert reused.reused > 300 and reused.predicted > 300 and reused.reason == "none"
        cache.forget()
        after = ask(runtime)
        assert (after.reused or 0) > 300 if backend == "llama_cpp" else not after.reused
        log = next(one for _, one in runtime.store.web_logs() if one.to_memory_type == "ActivationMemory")
        assert log.status == "completed" and log.from_memory_type == "WorkingMemory"


@pytest.mark.parametrize("backend", ["vllm", "llama_cpp"])
def test_a_prefix_that_nobody_used_for_too_long_is_told_and_removed(tmp_path: Path, backend: str) -> None:
    """A chat after the time to live does without and says why, in the counts and in a web log; used ones live on;
    a round of the housekeeper removes those that nobody asks for."""
    clock = ManualClock()
    cache = PromptCache(backend)  # type: ignore[arg-type]
    with running(tmp_path, cache, backend=backend, clock=clock, ttl_s=100.0) as runtime:
        index = runtime.activation.blocks.index
        assert isinstance(index, PrefixIndex)
        ask(runtime)
        promote(runtime)
        for _ in range(3):
            clock.advance(90)
            assert ask(runtime).reused > 300
        runtime.scheduler.keep_house()
        assert len(index.prefixes()) == 1
        clock.advance(101)
        missed = metrics.ACTIVATION_LOOKUPS.value(outcome="miss", reason="expired")
        late = ask(runtime)
        if backend == "llama_cpp":  # the server of the other keeps what it likes: it is not ours to expire
            assert late.reason == "expired" and not late.reused
            assert metrics.ACTIVATION_LOOKUPS.value(outcome="miss", reason="expired") == missed + 1
            assert any("time to live" in one.log_content for _, one in runtime.store.web_logs())
        assert index.prefixes() == []
        promote(runtime)
        [fresh] = index.prefixes()
        assert ask(runtime).reused > 300
        clock.advance(101)
        runtime.scheduler.keep_house()
        assert index.prefixes() == index.prefixes(doomed=True) == []
        if backend == "llama_cpp":
            assert cache.files[fresh.id] == ()


def test_every_way_to_chat_goes_the_same_path(tmp_path: Path) -> None:
    """MOS.chat, the complete route and the streams send the same system message, and tell the reuse."""
    cache = PromptCache("sglang")
    with running(tmp_path, cache, backend="sglang") as runtime:
        ask(runtime)
        promote(runtime)
        client = TestClient(create_app(runtime))
        body = {"user_id": "u", "query": "Where does boat 3 lie?", "add_message_on_answer": False}
        told = client.post("/product/chat/complete", json=body).json()["data"]["activation"]
        assert told["reused_tokens"] > 300 and told["reason"] == "none" and told["prompt_tokens"] > 300
        text = client.post("/product/chat/stream/playground", json=body).text
        frames = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        [frame] = [one for one in frames if one["type"] == "activation"]
        assert frame["data"]["reused_tokens"] > 300
        mos = MOS(runtime=runtime)
        mos.create_user("u")
        mos.register_mem_cube("u", user_id="u")
        before = metrics.ACTIVATION_LOOKUPS.value(outcome="hit", reason="none")
        assert mos.chat("Where does boat 3 lie?", user_id="u") == "It lies in harbour 3."
        assert metrics.ACTIVATION_LOOKUPS.value(outcome="hit", reason="none") == before + 1
        route = client.get("/product/activation/u").json()["data"]
        assert route["builds"] and route["tokens"] > 300 and route["blocks"][0]["hit_rate"] > 0


def test_a_lost_slot_file_is_a_told_miss_and_made_anew(tmp_path: Path) -> None:
    """The chat answers; metric, web log and status name the reason; the next promotion makes the prefix again."""
    cache = PromptCache("llama_cpp")
    with running(tmp_path, cache, backend="llama_cpp") as runtime:
        ask(runtime)
        promote(runtime)
        cache.files.clear()
        missed = ask(runtime)
        assert missed.reason == "missing"
        log = next(one for _, one in runtime.store.web_logs() if one.status == "failed")
        assert log.to_memory_type == "ActivationMemory" and "missing" in log.log_content
        [block] = runtime.activation.blocks.index.blocks(cube_id="u")
        assert block.counts.last_miss == "missing"
        promote(runtime)
        assert ask(runtime).reused > 300


def test_a_slot_that_reads_everything_again_is_no_hit(tmp_path: Path) -> None:
    """The server says restored and reads the prompt whole: the chat is counted as not reused."""
    with running(tmp_path, PromptCache("llama_cpp", rereads=True), backend="llama_cpp") as runtime:
        ask(runtime)
        promote(runtime)
        found = ask(runtime)
        assert (found.reused, found.reason) == (0, "not_reused")


def test_a_dead_server_costs_no_chat(tmp_path: Path) -> None:
    """A promotion that fails is told; the chat answers from memory, as without activation memory."""
    with running(tmp_path, PromptCache("vllm"), backend="vllm") as runtime:
        ask(runtime)
        keeper = runtime.activation.keeper
        assert keeper is not None
        keeper.backend = KeptInMemory(before=_refuse)
        keeper.name = "in_memory"
        promote(runtime)
        log = next(one for _, one in runtime.store.web_logs() if one.status == "failed")
        assert "unreachable" in log.log_content
        assert runtime.chat.answer(ChatQuery("u", "Where?", ("u",), (), add_message_on_answer=False)).response


FAULTS = [
    Fault(500),
    Garbage(b"<html>the proxy is tired</html>"),
    Garbage(b""),
    Garbage(b"[]"),
    Garbage(b"[" * 100_000),
    Garbage(b'{"n_saved": "many", "n_restored": -4, "choices": 5, "usage": []}'),
]


@pytest.mark.parametrize("fault", FAULTS, ids=["500", "html", "nothing", "list", "deep", "wrong types"])
@pytest.mark.parametrize("backend", ["auto", "vllm", "sglang", "llama_cpp"])
def test_a_server_that_talks_nonsense_costs_no_answer(tmp_path: Path, backend: str, fault: Any) -> None:
    """While it is asked to prepare and while it is asked over a prefix: the chat answers from memory, nothing is on
    record that was not made, the failure is told, and when the server has recovered all is as ever."""
    with served(tmp_path, PromptCache(_kind(backend)), backend=backend) as (server, runtime):
        index = runtime.activation.blocks.index
        assert isinstance(index, PrefixIndex)
        ask(runtime)
        for kept in (False, True):
            server.fail(fault)
            if not kept:
                promote(runtime)
                assert index.prefixes() == []
            asked = ChatQuery("u", "Where does boat 3 lie?", ("u",), (), add_message_on_answer=False)
            assert "harbour 3" in runtime.chat.answer(asked).response
            server.fail(None)
            promote(runtime)
            assert ask(runtime).predicted > 300
        if backend != "auto":
            assert [one.is_sound for one in index.prefixes()] == [True]
            failed = [one for _, one in runtime.store.web_logs() if one.status == "failed"]
            assert failed and all(one.to_memory_type == "ActivationMemory" for one in failed)
        assert runtime.store.verify() == []


@pytest.mark.parametrize("backend", ["vllm", "sglang", "llama_cpp"])
def test_a_server_that_dies_while_it_prepares_is_asked_again(tmp_path: Path, backend: str) -> None:
    """The connection ends in the middle of the warm-up, or before it: nothing is on record, the reason is told, and
    the next promotion makes the prefix."""
    with served(tmp_path, PromptCache(_kind(backend)), backend=backend) as (server, runtime):
        index = runtime.activation.blocks.index
        assert isinstance(index, PrefixIndex)
        ask(runtime)
        for bytes_max in (0, 40):
            server.script(CutOff(Say("x"), bytes_max=bytes_max))
            promote(runtime)
            assert index.prefixes() == []
            log = next(one for _, one in runtime.store.web_logs() if one.status == "failed")
            assert "unreachable" in log.log_content
        promote(runtime)
        assert len(index.prefixes()) == 1
        assert ask(runtime).reused > 300


def _kind(backend: str) -> Any:
    return "openai" if backend == "auto" else backend


def _refuse(name: str) -> None:
    from memos.errors import ActivationMiss

    if name == "prepare":
        raise ActivationMiss("unreachable", "connection refused")


def test_deleted_text_is_in_no_prompt_and_no_file(tmp_path: Path) -> None:
    """After a deletion the next chat does not show the memory, reuses what stood before it, and the file goes."""
    cache = PromptCache("llama_cpp")
    with running(tmp_path, cache, backend="llama_cpp") as runtime:
        ask(runtime)
        promote(runtime)
        [prefix] = runtime.activation.blocks.index.prefixes()  # type: ignore[attr-defined]
        gone = prefix.item_ids[4]
        text = runtime.store.get([gone])[0].memory
        runtime.store.apply([SetStatus((gone,), ItemStatus.DELETED, "t")])
        found = ask(runtime)
        assert 0 < found.predicted < prefix.tokens
        held = " ".join("".join(tokens) for tokens in cache._slots.values())
        assert " ".join(text.split()) not in " ".join(held.split())
        assert runtime.activation.keeper is not None
        runtime.activation.keeper.sweep()
        assert all(not tokens for tokens in cache.files.values())


def test_erase_drops_prefixes_and_counts_them(tmp_path: Path) -> None:
    """The receipt says how many, how many bytes, and that none is left; another reader's go as far as they hold
    what was erased."""
    cache = PromptCache("llama_cpp")
    with running(tmp_path, cache, backend="llama_cpp") as runtime:
        ask(runtime)
        promote(runtime)
        assert any(cache.files.values())
        receipt = erase(runtime, "u")
        counts = receipt.counts
        assert counts["activation_prefixes"] == counts["activation_blocks"] == 1
        assert counts["activation_bytes"] > 0 and counts["activation_left"] == 0
        assert not any(cache.files.values()) and receipt.traces == 0
        assert runtime.activation.blocks.index.blocks() == []


def test_the_route_shows_what_the_key_is_for(tmp_path: Path) -> None:
    """Another cube is refused; of a shared cube only the readers in the scope are shown."""
    with running(tmp_path, PromptCache("openai")) as runtime:
        ask(runtime)
        ask(runtime, user_id="v")
        handler = handlers_of(runtime).activation
        token = access.become(Principal("k", Role.USER, frozenset({"v"}), frozenset({"u"})))
        try:
            data = handler.handle_activation("u").data
            assert data is not None and [one["user_id"] for one in data["blocks"]] == ["v"]
            with pytest.raises(AccessDenied):
                handler.handle_activation("w")
        finally:
            access.forget(token)


def test_a_backend_that_cannot_be_is_refused_at_start(tmp_path: Path) -> None:
    """An endpoint keeps no tensors: ConfigError names the setting."""
    with (
        pytest.raises(ConfigError, match="MEMOS_ACTIVATION__BACKEND"),
        running(tmp_path, None, backend="transformers"),
    ):
        pass
