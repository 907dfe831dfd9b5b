"""The models of a runtime: which adapter stands behind which port, by the models section of the settings.

A part of the composition root. What is not configured is None; what is configured and can never work (no
such folder, an endpoint that refuses key or model, a missing package) is a ConfigError. An endpoint that
cannot be reached now is none: chats fall back on memory and the embedder is left out, saying why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from memos import log
from memos.clock import Clock
from memos.errors import BadCompletion, ConfigError, InvalidInput, ModelRefused, ModelUnavailable, RateLimited

if TYPE_CHECKING:
    from memos.models.base import LLM, Embedder, Reranker
    from memos.models.hf.model import HFModel
    from memos.models.resting import RestingLLM
    from memos.settings import ModelSettings

OLLAMA_URL = "http://localhost:11434/v1"

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Models:
    """The models. `close` closes their connections."""

    embedder: Embedder | None = None
    embedder_missing: str = ""  # why there is no embedder; "" when there is one or none is wanted
    reranker: Reranker | None = None
    llm: LLM | None = None  # the one that answers chats
    chat_llms: Mapping[str, LLM] = field(default_factory=dict)  # what a chat may ask for by name
    reader_llm: RestingLLM | None = None  # for tasks: left alone while its endpoint fails
    scheduler_llm: RestingLLM | None = None
    vision_llm: RestingLLM | None = None  # for images; None unless a model is named for them
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a model is asked, and the key for there."""

    base_url: str
    api_key: str


def build_models(settings: ModelSettings, clock: Clock) -> Models:
    """Connect what is configured. Raises ConfigError; what was opened by then is closed again."""
    with ExitStack() as opened:
        local = _in_process(settings, clock)
        if local is not None:
            opened.callback(local.close)
        llm, chat_llms = _chat(settings, clock, opened, local)
        reader = _role(
            settings,
            settings.reader_model,
            _place(settings, settings.reader_base_url, settings.reader_api_key),
            timeout_s=settings.reader_timeout_s,
            tokens_max=settings.reader_tokens_max,
            clock=clock,
            opened=opened,
            local=local,
        )
        scheduler = _role(
            settings,
            settings.scheduler_model,
            _place(settings, settings.scheduler_base_url, settings.scheduler_api_key),
            timeout_s=settings.scheduler_timeout_s,
            tokens_max=settings.scheduler_tokens_max,
            clock=clock,
            opened=opened,
            local=local,
        )
        vision = None
        if settings.vision_model:
            vision = _role(
                settings,
                settings.vision_model,
                _place(settings, settings.vision_base_url, settings.vision_api_key),
                timeout_s=settings.vision_timeout_s,
                tokens_max=settings.vision_tokens_max,
                clock=clock,
                opened=opened,
            )
        embedder, missing = _embedder(settings, clock, opened)
        reranker = _reranker(settings, opened)
        return Models(
            embedder=embedder,
            embedder_missing=missing,
            reranker=reranker,
            llm=llm,
            chat_llms=chat_llms,
            reader_llm=_resting(reader or llm, clock),
            scheduler_llm=_resting(scheduler or llm, clock),
            vision_llm=_resting(vision, clock),
            close=opened.pop_all().close,
        )


def _in_process(settings: ModelSettings, clock: Clock) -> HFModel | None:
    """The chat model that runs here, if it does. ConfigError names what it lacks."""
    if settings.chat_backend != "hf":
        return None
    try:
        from memos.models.hf.model import HFModel
    except ImportError as error:
        raise ConfigError(
            f"chat_backend='hf' needs torch and transformers ({error}): pip install 'memscheduler[hf]'"
        ) from error
    try:
        return HFModel.load(
            Path(settings.chat_model or ""),
            device=settings.chat_device,
            dtype=settings.chat_dtype,
            threads=settings.chat_threads,
            clock=clock,
        )
    except ModelUnavailable as error:
        raise ConfigError(f"MEMOS_MODELS__CHAT_MODEL: {error}") from error


def _chat(
    settings: ModelSettings, clock: Clock, opened: ExitStack, local: HFModel | None
) -> tuple[LLM | None, dict[str, LLM]]:
    known: dict[str, LLM] = {}
    llm: LLM | None = None
    sampling = {"temperature": settings.chat_temperature, "top_p": settings.chat_top_p}
    if local is not None:
        from memos.models.hf.chat import HFChat

        llm = known[local.name] = HFChat(
            local,
            timeout_s=settings.chat_timeout_s,
            tokens_max=settings.chat_tokens_max,
            temperature=settings.chat_temperature,
            top_p=settings.chat_top_p,
        )
    elif settings.chat_model or settings.chat_base_url:
        place = _place(settings, None, None)
        llm = _model(
            settings.chat_model or "",
            place,
            timeout_s=settings.chat_timeout_s,
            tokens_max=settings.chat_tokens_max,
            clock=clock,
            opened=opened,
            **sampling,
        )
        if settings.chat_model:
            known[settings.chat_model] = llm
    for entry in settings.chat_models:
        place = _place(settings, entry.base_url, entry.api_key)
        for name in entry.names:
            if name not in known:
                known[name] = _model(
                    name,
                    place,
                    timeout_s=settings.chat_timeout_s,
                    tokens_max=settings.chat_tokens_max,
                    clock=clock,
                    opened=opened,
                    **sampling,
                )
    return llm or next(iter(known.values()), None), known


def _role(
    settings: ModelSettings,
    model: str | None,
    place: _Place,
    *,
    timeout_s: float,
    tokens_max: int,
    clock: Clock,
    opened: ExitStack,
    local: HFModel | None = None,
) -> LLM | None:
    """A role's model, with its own limits: its own one, else the chat's; None where that is not named either."""
    if not model and place == _place(settings, None, None):
        if local is not None:
            from memos.models.hf.chat import HFChat

            return HFChat(local, timeout_s=timeout_s, tokens_max=tokens_max)
        if not (settings.chat_model or settings.chat_base_url):
            return None
        model = settings.chat_model
    return _model(model or "", place, timeout_s=timeout_s, tokens_max=tokens_max, clock=clock, opened=opened)


def _model(
    model: str,
    place: _Place,
    *,
    timeout_s: float,
    tokens_max: int,
    clock: Clock,
    opened: ExitStack,
    temperature: float | None = None,
    top_p: float | None = None,
) -> LLM:
    from memos.models.openai.chat import OpenAIChat

    try:
        llm = OpenAIChat(
            model,
            base_url=place.base_url,
            api_key=place.api_key,
            timeout_s=timeout_s,
            tokens_max=tokens_max,
            temperature=temperature,
            top_p=top_p,
            clock=clock,
        )
    except InvalidInput as error:
        raise ConfigError(f"the language model {model!r}: {error}") from error
    opened.callback(llm.close)
    return llm


def _resting(llm: LLM | None, clock: Clock) -> RestingLLM | None:
    """The model as tasks use it: left alone while it fails. A chat asks each time: somebody waits for it."""
    from memos.models.resting import RestingLLM

    return None if llm is None else RestingLLM(llm, clock)


def _place(settings: ModelSettings, base_url: str | None, api_key: SecretStr | None) -> _Place:
    """A role's place. One without a base URL of its own is the chat's, with the chat's key unless it has
    one of its own; one with a base URL is never given another role's key."""
    from memos.models.openai.endpoint import OPENAI_URL

    own = _plain(api_key)
    if base_url:
        return _Place(base_url, own)
    return _Place(settings.chat_base_url or OPENAI_URL, own or _plain(settings.chat_api_key))


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value().strip() if secret else ""


def _embedder(settings: ModelSettings, clock: Clock, opened: ExitStack) -> tuple[Embedder | None, str]:
    """The embedder, or why there is none."""
    from memos.models.cached import CachedEmbedder

    if settings.embedder == "none":
        return None, ""
    try:
        inner = _local(settings) if settings.embedder == "minilm" else _remote(settings, clock, opened)
    except (ModelUnavailable, RateLimited) as error:
        missing = f"no embedder: recall by text and links only. {error}"
        logger.warning("embedder.missing", backend=settings.embedder, error=str(error))
        return None, missing
    return CachedEmbedder(inner, entries_max=settings.embedding_cache_entries_max), ""


def _local(settings: ModelSettings) -> Embedder:
    from memos.models.joined import JoinedEmbedder
    from memos.models.minilm import MiniLMEmbedder

    try:
        model = MiniLMEmbedder.load(settings.embedder_folder, threads=settings.embedder_threads)
        return JoinedEmbedder(model, leaders_max=(os.cpu_count() or 1) // settings.embedder_threads)
    except ModelUnavailable as error:
        if settings.embedder_folder is None:
            raise
        raise ConfigError(f"MEMOS_MODELS__EMBEDDER_FOLDER: {error}") from error


def _remote(settings: ModelSettings, clock: Clock, opened: ExitStack) -> Embedder:
    from memos.models.openai.embedder import OpenAIEmbedder

    base_url = settings.embedder_base_url or (OLLAMA_URL if settings.embedder == "ollama" else None)
    place = _place(settings, base_url, settings.embedder_api_key)
    try:
        embedder = OpenAIEmbedder(
            settings.embedder_model or "",
            base_url=place.base_url,
            api_key=place.api_key,
            timeout_s=settings.embedder_timeout_s,
            batch_max=settings.embedder_batch_max,
            clock=clock,
        )
    except (InvalidInput, ModelRefused, BadCompletion) as error:
        raise ConfigError(f"the embedder {settings.embedder_model!r}: {error}") from error
    opened.callback(embedder.close)
    return embedder


def _reranker(settings: ModelSettings, opened: ExitStack) -> Reranker | None:
    if settings.reranker == "none":
        return None
    if settings.reranker == "cross_encoder":
        from memos.models.cross_encoder import CrossEncoder

        try:
            return CrossEncoder(settings.reranker_folder or Path(), threads=settings.embedder_threads)
        except ModelUnavailable as error:
            raise ConfigError(f"MEMOS_MODELS__RERANKER_FOLDER: {error}") from error
    from memos.models.rerank import HttpReranker

    try:
        reranker = HttpReranker(
            settings.reranker_url or "",
            model=settings.reranker_model or "",
            api_key=_plain(settings.reranker_api_key),
            timeout_s=settings.reranker_timeout_s,
        )
    except InvalidInput as error:
        raise ConfigError(f"MEMOS_MODELS__RERANKER_URL: {error}") from error
    opened.callback(reranker.close)
    return reranker
