"""What keeps prefixes for the chat models of a runtime, by the activation section of the settings.

A part of the composition root. The backend of the settings stands for the chat's own model; other models that
a chat may name go by their endpoint's own cache. Nothing here talks to a server: what is wrong with one shows
with the first prefix, and no chat fails by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memos.clock import Clock
from memos.errors import ConfigError

if TYPE_CHECKING:
    from memos.memory.activation.base import ActivationBackend
    from memos.memory.activation.block import MemoryBlocks
    from memos.memory.activation.keeper import PrefixKeeper
    from memos.memory.store import MemoryStore
    from memos.models.base import LLM
    from memos.runtime_models import Models
    from memos.settings import Settings


@dataclass(frozen=True, slots=True)
class Activation:
    """blocks: of every reader. keeper: of the chat's own model; None: there is no model, or nothing keeps
    prefixes for it. backend_of: what answers of a model go through."""

    blocks: MemoryBlocks
    keeper: PrefixKeeper | None
    backend_of: Callable[[LLM], ActivationBackend | None]


def build_activation(settings: Settings, models: Models, store: MemoryStore, clock: Clock) -> Activation:
    """Raises ConfigError for a backend that the chat's model cannot have."""
    from memos.mem_chat.prompt import BLOCK_SHARE
    from memos.memory.activation.block import MemoryBlocks
    from memos.memory.activation.keeper import PrefixKeeper
    from memos.memory.activation.promotion import PromotionRules
    from memos.memory.activation.volatile import index_of

    chosen = settings.activation
    blocks = MemoryBlocks(
        index_of(store, clock),
        store,
        tokens_max=int(settings.models.chat_prompt_tokens_max * BLOCK_SHARE),
        slack=chosen.slack,
    )
    backends: dict[int, ActivationBackend] = {}
    for llm in _all(models.llm, models.chat_llms):
        backend = _backend(settings, llm, clock, is_main=llm is models.llm)
        if backend is not None:
            backends[id(llm)] = backend
    main = backends.get(id(models.llm)) if models.llm is not None else None
    keeper = None
    if main is not None:
        rules = PromotionRules(
            chosen.prefix_tokens_min, chosen.queries_min, chosen.extend_reuse_min, chosen.ttl_s
        )
        keeper = PrefixKeeper(store, blocks, main, clock=clock, rules=rules)
    return Activation(blocks, keeper, lambda llm: backends.get(id(llm)))


def _all(llm: LLM | None, others: Mapping[str, LLM]) -> list[LLM]:
    found = {id(one): one for one in (llm, *others.values()) if one is not None}
    return list(found.values())


def _backend(settings: Settings, llm: LLM, clock: Clock, *, is_main: bool) -> ActivationBackend | None:
    from memos.models.openai.chat import OpenAIChat

    chosen = settings.activation
    if chosen.backend == "off":
        return None
    if not isinstance(llm, OpenAIChat):
        if is_main and settings.models.chat_backend == "hf" and chosen.backend in ("auto", "transformers"):
            return _tensors(settings, llm, clock)
        if is_main and chosen.backend in ("openai", "vllm", "sglang", "llama_cpp"):
            raise ConfigError(
                f"MEMOS_ACTIVATION__BACKEND={chosen.backend} needs a chat model behind an endpoint"
            )
        return None
    if is_main and chosen.backend == "transformers":
        raise ConfigError("MEMOS_ACTIVATION__BACKEND=transformers needs a local model, not an endpoint")
    if is_main and chosen.backend == "llama_cpp":
        from memos.models.openai.slots import SlotPrefixes

        return SlotPrefixes(llm, slot=chosen.llama_slot, folder=chosen.llama_slot_folder)
    from memos.models.openai.prefix import EndpointPrefixes, Server

    server: Server = "openai"
    if is_main and (chosen.backend == "vllm" or chosen.backend == "sglang"):
        server = chosen.backend
    return EndpointPrefixes(llm, server=server, hint=chosen.cache_hint)


def _tensors(settings: Settings, llm: LLM, clock: Clock) -> ActivationBackend | None:
    """Of a model in this process; the first prefix takes its fingerprint."""
    from memos.memory.activation.files import Room
    from memos.models.hf.chat import HFChat

    try:
        import blake3  # noqa: F401  (files are hashed with it; found missing here, not in a chat)

        from memos.memory.activation.hf import HFActivation
    except ImportError as error:
        raise ConfigError(
            f"prefixes of a model in this process cannot be kept ({error}): pip install 'memscheduler[hf]', "
            "or set MEMOS_ACTIVATION__BACKEND=off"
        ) from error

    if not isinstance(llm, HFChat):
        return None
    chosen = settings.activation
    return HFActivation(
        llm.model,
        settings.activation_path,
        kind=chosen.storage,
        room=Room(bytes_max=chosen.bytes_max, ttl_s=chosen.ttl_s),
        clock=clock,
        tokens_max=settings.models.chat_tokens_max,
        timeout_s=settings.models.chat_timeout_s,
        temperature=settings.models.chat_temperature,
        top_p=settings.models.chat_top_p,
    )
