"""Backends that keep prefixes, against a server that keeps and tells what the real ones do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memos.errors import ActivationMiss, ActivationUnsupported
from memos.memory.activation.base import Entry, Handle, Layout, MissReason, Reuse, Suffix
from memos.models.base import ChatMessage
from memos.models.openai.chat import OpenAIChat
from memos.models.openai.prefix import EndpointPrefixes
from memos.models.openai.slots import SlotPrefixes
from memos.testing_prefixes import PromptCache
from memos.testing_server import Fault, ModelServer, Refuses, Say


def layout(count: int = 30, namespace: str = "ann") -> Layout:
    entries = tuple(
        Entry(f"i{n}", 1, f"- m{n} memory {n} is about the harbour and its many old boats at night\n")
        for n in range(count)
    )
    return Layout(namespace, "Be kind. Answer briefly.\n", entries)


def chat(shown: Layout, question: str = "Which boats?") -> Suffix:
    return Suffix(shown, (ChatMessage("user", question),))


def served(cache: PromptCache) -> Iterator[tuple[ModelServer, OpenAIChat]]:
    with ModelServer(default=Say("the old ones"), prefixes=cache) as server:
        llm = OpenAIChat("m", base_url=server.url, api_key="k")
        yield server, llm
        llm.close()


def reuse(backend: EndpointPrefixes | SlotPrefixes, handle: Handle, suffix: Suffix) -> Reuse:
    generation = backend.generate(handle, suffix)
    assert "".join(generation) == "the old ones"
    return backend.reused_tokens(generation.response)


def bare(shown: Layout) -> Handle:
    return Handle(shown.namespace, "", shown, tokens=0)


# -- level 0 -------------------------------------------------------------------------------------------


def test_a_hosted_cache_reuses_a_stable_beginning_and_says_so() -> None:
    """The second chat over the same block is told as reused; what is too short, and what is new, is told why."""
    for server, llm in served(PromptCache("openai")):
        backend = EndpointPrefixes(llm)
        long = layout(120)
        assert reuse(backend, bare(long), chat(long)) == Reuse(0, MissReason.NOT_REUSED)
        assert reuse(backend, bare(long), chat(long, "And now?")).tokens >= 1_024
        short = layout(3)
        assert reuse(backend, bare(short), chat(short)) == Reuse(0, MissReason.TOO_SHORT)
        bodies = [one.body for one in server.chats()]
        assert {body["prompt_cache_key"] for body in bodies} == {"ann"}
        assert all(body["stream_options"] == {"include_usage": True} for body in bodies)


def test_cache_control_marks_the_system_message() -> None:
    """For a model whose endpoint wants it, the block's end is marked; the text is the same bytes."""
    with ModelServer(default=Say("the old ones")) as server:
        llm = OpenAIChat("anthropic/claude-x", base_url=server.url)
        shown = layout(3)
        reuse(EndpointPrefixes(llm), bare(shown), chat(shown))
        [system, _] = server.chats()[0].body["messages"]
        assert system["content"] == [
            {"type": "text", "text": shown.text, "cache_control": {"type": "ephemeral"}}
        ]
        llm.close()


def test_a_refused_hint_is_left_out_and_remembered() -> None:
    """An endpoint that refuses the field is asked without it, once and from then on."""
    with ModelServer(
        [Refuses("prompt_cache_key", Say("the old ones"), "Extra inputs are not permitted")],
        default=Say("the old ones"),
    ) as server:
        llm = OpenAIChat("m", base_url=server.url)
        backend, shown = EndpointPrefixes(llm), layout(3)
        reuse(backend, bare(shown), chat(shown))
        reuse(backend, bare(shown), chat(shown))
        assert ["prompt_cache_key" in one.body for one in server.chats()] == [True, False, False]
        llm.close()


def test_an_endpoint_that_refuses_counts_is_untold() -> None:
    """Without token counts nothing is claimed: neither reuse nor a miss."""
    with ModelServer(
        [Refuses("stream_options", Say("the old ones"), "unknown field stream_options")]
    ) as server:
        llm = OpenAIChat("m", base_url=server.url)
        shown = layout(3)
        assert reuse(EndpointPrefixes(llm, hint="none"), bare(shown), chat(shown)) == Reuse(
            0, MissReason.UNTOLD
        )
        llm.close()


# -- level 1 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_warmed_prefix_is_reused_by_the_first_chat(kind: str) -> None:
    """One request for one token reads the block ahead; the chat then finds it."""
    for server, llm in served(PromptCache(kind)):  # type: ignore[arg-type]
        backend, shown = EndpointPrefixes(llm, server=kind), layout()  # type: ignore[arg-type]
        handle = backend.prepare(shown)
        warm = server.chats()[0].body
        assert (warm["max_tokens"], warm["cache_salt"]) == (1, "ann") and not warm.get("stream")
        assert handle.tokens > 300
        assert reuse(backend, handle, chat(shown)).tokens > 300


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_no_reader_finds_what_another_one_warmed(kind: str) -> None:
    """The salt of the namespace keeps the caches apart, though the text is the same."""
    for _, llm in served(PromptCache(kind)):  # type: ignore[arg-type]
        backend = EndpointPrefixes(llm, server=kind)  # type: ignore[arg-type]
        backend.prepare(layout())
        theirs = layout(namespace="bob")
        assert reuse(backend, bare(theirs), chat(theirs)).tokens == 0


def test_vllm_leaves_out_what_it_does_not_tell() -> None:
    """Nothing told is no reuse claimed: a server without the switch, and one that has nothing to tell."""
    for _, llm in served(PromptCache("vllm", tells=False)):
        backend, shown = EndpointPrefixes(llm, server="vllm"), layout()
        handle = backend.prepare(shown)
        assert reuse(backend, handle, chat(shown)) == Reuse(0, MissReason.UNTOLD)


def test_a_restarted_server_is_a_miss() -> None:
    """SGLang tells 0 after a restart: the backend says that nothing was reused."""
    cache = PromptCache("sglang")
    for _, llm in served(cache):
        backend, shown = EndpointPrefixes(llm, server="sglang"), layout()
        handle = backend.prepare(shown)
        cache.forget()
        assert reuse(backend, handle, chat(shown)) == Reuse(0, MissReason.NOT_REUSED)


# -- level 2 -------------------------------------------------------------------------------------------


def kept(handle: Handle) -> Handle:
    """The handle as the store gives it back, with an end to hold the reuse against."""
    return Handle(
        handle.id, handle.fingerprint, handle.layout, handle.tokens, handle.bytes, (handle.tokens,), {}
    )


def test_a_slot_is_saved_restored_and_checked() -> None:
    """The prefix outlives a restart of the server; the reuse is the server's own count."""
    cache = PromptCache("llama_cpp")
    for server, llm in served(cache):
        backend, shown = SlotPrefixes(llm, slot=2), layout()
        handle = backend.prepare(shown)
        assert list(cache.files) == [handle.id] and handle.bytes > 0
        cache.forget()
        found = reuse(backend, kept(handle), chat(shown))
        assert found.reason is MissReason.NONE and found.tokens > 300
        bodies = [one.body for one in server.chats()]
        assert all(body["id_slot"] == 2 and body["cache_prompt"] is True for body in bodies)


def test_a_restore_that_reads_everything_again_is_a_miss() -> None:
    """The server reports success and re-reads: the answer is given, and counted as not reused."""
    for _, llm in served(PromptCache("llama_cpp", rereads=True)):
        backend, shown = SlotPrefixes(llm), layout()
        handle = backend.prepare(shown)
        assert reuse(backend, kept(handle), chat(shown)) == Reuse(0, MissReason.NOT_REUSED)


def test_a_slot_file_that_is_gone_is_a_miss_before_the_first_word() -> None:
    """What the server cannot restore is told as missing, and nothing was answered yet."""
    cache = PromptCache("llama_cpp")
    for _, llm in served(cache):
        backend, shown = SlotPrefixes(llm), layout()
        handle = backend.prepare(shown)
        cache.files.clear()
        with pytest.raises(ActivationMiss) as caught:
            next(iter(backend.generate(handle, chat(shown))))
        assert caught.value.reason == MissReason.MISSING
        assert reuse(backend, backend.prepare(shown), chat(shown)).tokens > 0, "the slot is free again"


def test_another_model_on_the_same_port_is_refused() -> None:
    """The fingerprint is of what the server tells of its model; another one's file is never restored."""
    cache = PromptCache("llama_cpp")
    for _, llm in served(cache):
        shown = layout()
        handle = SlotPrefixes(llm).prepare(shown)
        cache.model = "model-2.gguf"
        with pytest.raises(ActivationMiss) as caught:
            SlotPrefixes(llm).generate(handle, chat(shown))
        assert caught.value.reason == MissReason.FINGERPRINT


def test_an_extended_slot_reads_the_newcomers_alone() -> None:
    """Extending restores the old prefix first: the warm-up reads what is new."""
    cache = PromptCache("llama_cpp")
    for _, llm in served(cache):
        backend = SlotPrefixes(llm)
        old = backend.prepare(layout(30))
        cache.forget()
        new = backend.extend(old, 0, (), layout=layout(32))
        assert new.id != old.id and set(cache.files) == {old.id, new.id}
        cache.forget()
        assert reuse(backend, kept(new), chat(layout(32))).tokens > len(layout(30).text.split())


@pytest.mark.parametrize("reachable", [True, False])
def test_a_dropped_slot_file_holds_nothing_any_more(tmp_path: Path, reachable: bool) -> None:
    """With the folder the file goes; without, an empty slot is saved over it."""
    cache = PromptCache("llama_cpp")
    for _, llm in served(cache):
        backend = SlotPrefixes(llm, folder=tmp_path if reachable else None)
        handle = backend.prepare(layout())
        (tmp_path / handle.id).write_bytes(b"kv")
        assert backend.drop(handle) == handle.bytes
        assert not (tmp_path / handle.id).exists() if reachable else cache.files[handle.id] == ()


def test_a_server_without_slot_files_says_how_to_start_it() -> None:
    """ActivationUnsupported names the option; a server that is no llama.cpp is told as such."""
    for _, llm in served(PromptCache("llama_cpp", saves=False)):
        with pytest.raises(ActivationUnsupported, match="--slot-save-path"):
            SlotPrefixes(llm).prepare(layout())
    with ModelServer(default=Say("x")) as server:
        llm = OpenAIChat("m", base_url=server.url)
        with pytest.raises(ActivationUnsupported, match=r"no llama\.cpp"):
            SlotPrefixes(llm).prepare(layout())
        server.fail(Fault(503, "loading model"))
        with pytest.raises(ActivationMiss) as caught:
            SlotPrefixes(llm).prepare(layout())
        assert caught.value.reason == MissReason.UNREACHABLE
        llm.close()
