"""The settings: one frozen tree, the only reader of the environment and of the YAML configuration.

Canonical names are `MEMOS_<SECTION>__<FIELD>` (for example `MEMOS_QUEUE__BACKEND`), and `MEMOS_HOME`.
The names that the documents print are aliases (`ALIASES`). Two names that say different things about
one setting are an error that names both; an unknown `MEMOS_*` name is an error that names the nearest
known one. Order: environment, then the YAML file that `MEMOS_CONFIG` names, then the defaults below.
Nothing but `runtime`, `api.app` and `cli` imports this module: everybody else is given values.
"""

from __future__ import annotations

import difflib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import platformdirs
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from memos.errors import ConfigError

PREFIX = "MEMOS_"


class Section(BaseModel):
    """A branch of the tree: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class QueueSettings(Section):
    """The task queue. Every bound refuses with `QueueFull` and is visible as a metric."""

    backend: Literal["local", "sqlite", "redis"] | None = Field(
        None,
        description="sqlite (the default): durable, in a file; local: in memory, lost with the process; "
        "redis: Redis Streams, for many machines",
    )
    use_redis: bool | None = Field(None, description="the documented switch: true asks for the Redis queue")
    redis_url: SecretStr | None = Field(None, description="the Redis server; takes the place of host to tls")
    redis_host: str = Field("localhost", min_length=1, description="host of the Redis server")
    redis_port: int = Field(6379, ge=1, le=65_535, description="its port")
    redis_db: int = Field(0, ge=0, description="its database")
    redis_username: str | None = Field(None, description="an ACL user")
    redis_password: SecretStr | None = None
    redis_tls: bool = Field(False, description="connect with TLS")
    redis_ca_certs: Path | None = Field(None, description="certificates that the server is checked against")
    redis_prefix: str = Field(
        "scheduler:messages:stream:v2.0",
        min_length=1,
        pattern=r"^[^\s{}]+$",
        description="how the queue's keys begin: one queue for each",
    )
    shards: int = Field(
        1,
        ge=1,
        le=64,
        description="into how many parts a queue on Redis is cut, each with users of its own; fixed while it holds work",
    )
    redis_connect_timeout_s: float = Field(2.0, gt=0, description="how long a connection may take")
    redis_timeout_s: float = Field(5.0, gt=0, description="how long an answer may take")
    redis_reconnect_s: float = Field(
        10.0, ge=0, description="how long a call waits for a server that is away"
    )
    redis_wait_replicas: int = Field(
        0, ge=0, description="replicas that have to hold what is submitted before a submit returns; 0: none"
    )
    redis_wait_replicas_s: float = Field(1.0, gt=0, description="how long a submit waits for them")
    messages_max: int = Field(200_000, ge=1, description="messages in the whole queue")
    lane_messages_max: int = Field(20_000, ge=1, description="messages in one lane")
    payload_bytes_max: int = Field(4 * 1024 * 1024, ge=1, description="bytes of one message's content")
    dead_letters_max: int = Field(10_000, ge=1, description="dead letters kept; the oldest leave first")
    status_entries_max: int = Field(200_000, ge=1, description="settled messages whose status is kept")
    idempotency_ttl_s: float = Field(
        86_400.0, gt=0, description="for how long an idempotency key is remembered"
    )
    idempotency_keys_max: int = Field(
        100_000, ge=1, description="idempotency keys remembered; more are refused until some have expired"
    )
    user_batches_max: int = Field(
        0, ge=0, description="batches of one user that run at a time, over all lanes; 0: no cap"
    )
    user_weights: dict[str, float] = Field(
        {}, description="share of a user against others' under contention; 1 for everybody else"
    )

    @model_validator(mode="after")
    def _agree(self) -> QueueSettings:
        if self.use_redis is not None and self.backend is not None:
            wanted = self.backend == "redis"
            if self.use_redis is not wanted:
                raise ValueError(
                    f"backend={self.backend!r} and use_redis={self.use_redis} (MOS_SCHEDULER_USE_REDIS_QUEUE) "
                    "disagree; unset one of them"
                )
        if self.redis_wait_replicas and self.redis_wait_replicas_s >= self.redis_timeout_s:
            raise ValueError(
                f"redis_wait_replicas_s={self.redis_wait_replicas_s:g} has to be under redis_timeout_s="
                f"{self.redis_timeout_s:g}, which ends any answer"
            )
        if self.redis_url is not None:
            named = sorted(
                name
                for name in (
                    "redis_host",
                    "redis_port",
                    "redis_db",
                    "redis_username",
                    "redis_password",
                    "redis_tls",
                )
                if name in self.model_fields_set
            )
            if named:
                raise ValueError(f"redis_url and {', '.join(named)} are both given; put all of it in the URL")
        return self

    @property
    def effective_backend(self) -> str:
        """The backend that is built."""
        return self.backend or ("redis" if self.use_redis else "sqlite")


class StoreSettings(Section):
    """The memory store."""

    path: Path | None = Field(None, description="the SQLite file; default <home>/memory.db")
    url: SecretStr | None = Field(
        None,
        description="a PostgreSQL database, postgresql://user:password@host:5432/name, instead of the file",
    )
    schema_name: str = Field("memos", min_length=1, description="the store's schema in that database")
    role: str = Field(
        "memos_app", min_length=1, description="what its transactions run as; not the owner of the tables"
    )
    partitions: int = Field(8, ge=1, le=256, description="of each large table, when the store is made")
    auto_migrate: bool = Field(
        True, description="make and upgrade the tables at start; false: `memos migrate`"
    )
    pool_max: int = Field(16, ge=2, description="connections for writing, and as many again for open views")
    pool_timeout_s: float = Field(10.0, gt=0, description="how long a call waits for a connection")
    connect_timeout_s: float = Field(4.0, gt=0, description="how long a connection may take to be made")
    statement_timeout_s: float = Field(60.0, gt=0, description="how long a statement may run")
    lock_timeout_s: float = Field(10.0, gt=0, description="how long a write waits for a cube that is written")
    idle_timeout_s: float = Field(300.0, gt=0, description="how long a transaction may stand idle")
    durability: Literal["on", "remote_apply", "remote_write", "local", "off"] = Field(
        "on", description="synchronous_commit of every transaction"
    )
    exact_vectors_max: int = Field(
        20_000, ge=0, description="memories of a cube, over which pgvector's index is asked"
    )
    busy_timeout_s: float = Field(10.0, gt=0, description="how long a write waits for another process")
    vector_cache_bytes_max: int = Field(
        512 * 1024 * 1024, ge=0, description="bytes of cached vectors, all cubes"
    )
    web_logs_max: int = Field(100_000, ge=1, description="web logs kept in the store; the oldest leave first")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("give an address, postgresql://user:password@host:5432/database")
        return url


class ChatModel(BaseModel):
    """One entry of `chat_models`: a model that a chat may ask for by name."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    model: str = Field(alias="model_name_or_path", min_length=1)
    base_url: str | None = Field(None, alias="api_base")
    api_key: SecretStr | None = None
    support_models: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The models this entry brings."""
        return self.support_models or (self.model,)


class ModelSettings(Section):
    """The models. Without any, everything works by rules, full text and links.

    A role that names no base URL of its own is asked where the chat model is, with its key; a key never
    goes to another role's base URL.
    """

    chat_backend: Literal["openai", "hf"] = Field(
        "openai", description="hf: the chat model runs in this process, by transformers (extra hf)"
    )
    chat_model: str | None = Field(
        None, description="the model that answers chats, as the endpoint calls it; for hf: its folder"
    )
    chat_device: str = Field("auto", description="for hf: auto (the first GPU, else the CPU) or torch's name")
    chat_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="for hf: auto is the checkpoint's"
    )
    chat_threads: int | None = Field(None, ge=1, le=256, description="for hf: of torch, in the whole process")
    chat_base_url: str | None = Field(None, description="an OpenAI-compatible endpoint, /v1 included")
    chat_api_key: SecretStr | None = Field(None, description="its key; alone it switches nothing on")
    chat_temperature: float | None = Field(None, ge=0, le=2, description="unset: the endpoint's")
    chat_top_p: float | None = Field(None, gt=0, le=1, description="unset: the endpoint's")
    chat_tokens_max: int = Field(4_096, ge=1, description="tokens of one answer at most")
    chat_prompt_tokens_max: int = Field(
        6_000, ge=500, description="estimated tokens of memories, preferences, history and question at most"
    )
    chat_timeout_s: float = Field(120.0, gt=0, description="seconds for one answer at most")
    chat_models: tuple[ChatModel, ...] = Field((), description="further models that a chat may ask for")
    reader_model: str | None = Field(None, description="the model for reading; unset: the chat model")
    reader_base_url: str | None = Field(None, description="unset: that of the chat model")
    reader_api_key: SecretStr | None = None
    reader_tokens_max: int = Field(8_000, ge=1, description="tokens of one reply at most")
    reader_timeout_s: float = Field(120.0, gt=0, description="seconds for one reply at most")
    scheduler_model: str | None = Field(None, description="the scheduler's model; unset: the chat model")
    scheduler_base_url: str | None = Field(None, description="unset: that of the chat model")
    scheduler_api_key: SecretStr | None = None
    scheduler_tokens_max: int = Field(2_048, ge=1, description="tokens of one reply at most")
    scheduler_timeout_s: float = Field(60.0, gt=0, description="seconds for one reply at most")
    vision_model: str | None = Field(None, description="the model that looks at images; unset: none does")
    vision_base_url: str | None = Field(None, description="unset: that of the chat model")
    vision_api_key: SecretStr | None = None
    vision_tokens_max: int = Field(2_048, ge=1, description="tokens of one reply at most")
    vision_timeout_s: float = Field(60.0, gt=0, description="seconds for one image at most")
    embedder: Literal["minilm", "openai", "ollama", "none"] = Field(
        "minilm", description="none: recall by text and links only"
    )
    embedder_model: str | None = Field(None, description="for openai and ollama: the model's name")
    embedder_base_url: str | None = Field(
        None, description="unset: http://localhost:11434/v1 for ollama, else that of the chat model"
    )
    embedder_api_key: SecretStr | None = None
    embedder_timeout_s: float = Field(30.0, gt=0, description="seconds for one batch at most")
    embedder_batch_max: int = Field(64, ge=1, le=512, description="texts of one request at most")
    reranker: Literal["none", "http", "cross_encoder"] = Field(
        "none", description="http: the endpoint at reranker_url; cross_encoder: the model in reranker_folder"
    )
    reranker_url: str | None = Field(None, description="the whole address, /rerank included")
    reranker_model: str | None = Field(None, description="the model's name, where the endpoint wants one")
    reranker_api_key: SecretStr | None = None
    reranker_timeout_s: float = Field(10.0, gt=0, description="seconds for one reranking at most")
    reranker_folder: Path | None = Field(None, description="a folder with model.onnx and vocab.txt")
    embedder_folder: Path | None = Field(None, description="a folder with model.safetensors and vocab.txt")
    embedder_threads: int = Field(1, ge=1, le=64, description="threads of one encoding")
    embedding_cache_entries_max: int = Field(4_096, ge=0, description="sentence vectors kept by content hash")

    @model_validator(mode="after")
    def _complete(self) -> ModelSettings:
        if self.chat_backend == "hf" and not self.chat_model:
            raise ValueError("the chat backend 'hf' needs a model's folder: set MEMOS_MODELS__CHAT_MODEL")
        if self.chat_backend == "hf" and self.chat_base_url:
            raise ValueError("chat_backend='hf' runs the model in this process: unset chat_base_url")
        if self.embedder in ("openai", "ollama") and not self.embedder_model:
            raise ValueError(
                f"the embedder {self.embedder!r} needs the model's name: set MEMOS_MODELS__EMBEDDER_MODEL"
            )
        if self.reranker == "http" and not self.reranker_url:
            raise ValueError("the reranker 'http' needs its address: set MEMOS_MODELS__RERANKER_URL")
        if self.reranker == "cross_encoder" and self.reranker_folder is None:
            raise ValueError(
                "the reranker 'cross_encoder' needs its model: set MEMOS_MODELS__RERANKER_FOLDER"
            )
        return self


class SchedulerSettings(Section):
    """The scheduler and what its handlers do."""

    enabled: bool = Field(True, description="start the scheduler with the runtime")
    kind: Literal["general", "optimized"] = Field("optimized", description="the scheduler class")
    top_k: int = Field(10, ge=1, le=1_000, description="memories recalled for a gap")
    workers: int = Field(16, ge=1, le=10_000, description="threads that run handlers")
    startup_mode: Literal["thread", "process"] = Field(
        "thread", description="where handlers run: in this process, or in a worker process beside it"
    )
    labels: tuple[str, ...] = Field((), description="labels this process serves; none: all with a handler")
    name: str = Field("", description="begins the name under which this process claims; unset: the host's")
    act_mem_update_interval: float = Field(300.0, ge=0, description="seconds between activation refreshes")
    context_window_size: int = Field(5, ge=1, le=1_000, description="queries and answers remembered a cube")
    enable_activation_memory: bool = Field(False, description="promote working memory to activation memory")
    query_trigger_interval: float = Field(0.0, ge=0, description="force recall every N seconds; 0: never")
    stop_grace_s: float = Field(10.0, ge=0, description="how long stop() lets running handlers finish")
    disabled_handlers: tuple[str, ...] = Field((), description="labels this process does not serve")
    gate_terms_min: int = Field(
        5, ge=1, le=1_000, description="words that a query has at least, for one memory to answer all of it"
    )
    gate_spread_min: float = Field(
        1.4,
        ge=0,
        description="lead of the first place over the middle one, for a recall to be sure of itself",
    )
    gate_several_margin: float = Field(
        1.0, ge=0, description="added to it for a query that asks for several things"
    )
    search_method: str = Field(
        "tree_text_memory_search", description="the default method of retriever.search"
    )
    search_window_size: int = Field(5, ge=1, le=1_000, description="mixture searches remembered a user")
    search_history_turns: int = Field(5, ge=0, description="0: a follow-up leans on no earlier search")
    model_steps: tuple[Literal["reading", "intent", "rank", "preferences", "feedback", "summaries"], ...] = (
        Field(
            ("reading", "intent", "rank", "preferences", "feedback", "summaries"),
            description="what the scheduler's model is asked for; rules do the rest",
        )
    )
    web_log_buffer_max: int = Field(10_000, ge=1, description="web logs waiting in the process's buffer")


class MemorySettings(Section):
    """How many live memories a cube holds (what is over is archived), and how long one may be."""

    long_term_capacity: int = Field(10_000, ge=1)
    user_capacity: int = Field(10_000, ge=1)
    preference_capacity: int = Field(10_000, ge=1)
    working_capacity: int = Field(20, ge=1, le=10_000)
    item_tokens_max: int = Field(1_024, ge=16, le=100_000, description="longer turns become several memories")
    retention_threshold: float = Field(
        0.0, ge=0, lt=1, description="archive what is retained less; 0: nothing fades"
    )
    retention_ttl_days: float = Field(0.0, ge=0, description="archive what is older; 0: nothing is too old")
    retention_interval_s: float = Field(3_600.0, gt=0, description="between two looks over a cube")


class RecallSettings(Section):
    """How recall ranks. docs/recall.md names the stages and the weights, and what each gains."""

    stages: tuple[str, ...] = Field(
        (), description="stages that run, or with a '-' those that do not; none given: all"
    )
    weights: dict[str, float] = Field(
        default_factory=dict, description="weights by name, in the place of the fitted ones; 0: stage off"
    )


class ActivationSettings(Section):
    """Activation memory: prefixes of prompts that need not be read again. See docs/activation.md."""

    backend: Literal["auto", "off", "openai", "vllm", "sglang", "llama_cpp", "transformers"] = Field(
        "auto", description="what keeps prefixes; auto: the chat endpoint's own cache, whatever it is"
    )
    cache_hint: Literal["auto", "none", "prompt_cache_key", "cache_control"] = Field(
        "auto", description="the hint for the backend openai; one that is refused is left out"
    )
    slack: float = Field(
        0.25, ge=0, le=2, description="how much of the block may have lost its rank, by what is wanted"
    )
    prefix_tokens_min: int = Field(256, ge=1, description="shorter blocks are not prepared")
    queries_min: float = Field(2.0, ge=0, description="chats expected before the next change, for a build")
    extend_reuse_min: float = Field(
        0.3, ge=0, le=1, description="of a prefix that still holds, to extend it instead of building anew"
    )
    folder: Path | None = Field(
        None, description="where the backend transformers keeps its files; unset: activation under home"
    )
    storage: Literal["bf16", "fp32", "int8"] = Field("bf16", description="how its tensors are kept in files")
    bytes_max: int = Field(8 * 1024**3, ge=1024**2, description="bytes of all its files")
    ttl_s: float = Field(
        30 * 86_400.0, ge=0, description="a prefix that nobody used for so long is removed; 0: none is"
    )
    llama_slot: int = Field(0, ge=0, description="the llama.cpp server's slot that prefixes go through")
    llama_slot_folder: Path | None = Field(
        None, description="the server's --slot-save-path, where this process can remove files"
    )


class DocumentSettings(Section):
    """Reading files. Every bound refuses the whole file, with an error that names the setting."""

    bytes_max: int = Field(32 * 1024 * 1024, ge=1, description="bytes of one file")
    pages_max: int = Field(2_000, ge=1, description="pages, slides or sheets of one file")
    rows_max: int = Field(100_000, ge=1, description="rows of tables in one file")
    seconds_max: float = Field(60.0, gt=0, description="for reading one file; then its process is killed")
    memory_bytes_max: int = Field(
        1024 * 1024 * 1024, ge=128 * 1024 * 1024, description="address space of the process that reads"
    )
    expanded_bytes_max: int = Field(256 * 1024 * 1024, ge=1_024, description="bytes of one file unpacked")
    expansion_ratio_max: int = Field(200, ge=2, description="how far one packed entry over 1 MiB may grow")
    pixels_max: int = Field(50_000_000, ge=1, description="pixels of one image")
    chunk_chars: int = Field(1_000, ge=100, le=20_000, description="characters of one memory of a document")
    chunks_max: int = Field(5_000, ge=1, le=100_000, description="memories of one document")
    images: Literal["auto", "model", "ocr", "metadata"] = Field(
        "auto", description="auto: the vision model, else OCR, else what the file tells of itself"
    )
    ocr_languages: str = Field("eng", description="tesseract's languages, joined by +")


class ApiSettings(Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    enable_chat: bool | None = Field(
        None, description="the chat endpoints; off: 503. Unset: off for importers, on for `memos serve`"
    )
    body_bytes_max: int = Field(8 * 1024 * 1024, ge=1_024, description="bytes of one request body")
    body_silence_s: float = Field(30.0, gt=0, description="a body that stops for so long is given up")
    key: SecretStr | None = Field(None, description="one key for everything, of the role admin")
    keys_path: Path | None = Field(None, description="the file of `memos keys`; unset: keys.json under home")
    rate_per_minute: int = Field(6_000, ge=0, description="requests a key and minute; 0: no limit")
    hosts: tuple[str, ...] = Field((), description="further names under which a server without keys answers")
    cors_origins: tuple[str, ...] = Field((), description="web pages that may call the API; none by default")
    business_chat_keys: tuple[SecretStr, ...] = Field((), description="who may use the business chat")


class RabbitMqSettings(Section):
    """Web logs to a RabbitMQ broker; off until a host is named. Needs the extra `rabbitmq`."""

    host: str | None = Field(None, description="the broker; unset: web logs stay in the store")
    port: int = Field(5672, ge=1, le=65_535)
    user: str = "guest"
    password: SecretStr = SecretStr("guest")
    virtual_host: str = "/"
    tls: bool | None = Field(None, description="always verified; unset: on for port 5671")
    ca_file: Path | None = Field(None, description="authorities to trust; unset: those of the system")
    exchange: str = "memos-fanout"
    exchange_type: str = "fanout"
    queue: str = Field("memos-scheduler", description="bound to the exchange; empty: consumers bind theirs")


class LogSettings(Section):
    """Log lines on stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "WARNING"
    form: Literal["console", "json"] = "console"


class TracingSettings(Section):
    """Spans for OpenTelemetry (extra `otel`). Where they go is said by the standard OTEL_* variables."""

    enabled: bool = Field(False, description="send spans to the OTLP endpoint")


def _default_home() -> Path:
    return Path(platformdirs.user_data_dir("memscheduler", appauthor=False))


class Settings(Section):
    """The whole tree. `Settings.load()` reads the environment; the constructor takes values (tests)."""

    home: Path = Field(default_factory=_default_home, description="where all data lives")
    queue: QueueSettings = QueueSettings()
    store: StoreSettings = StoreSettings()
    models: ModelSettings = ModelSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    memory: MemorySettings = MemorySettings()
    recall: RecallSettings = RecallSettings()
    activation: ActivationSettings = ActivationSettings()
    documents: DocumentSettings = DocumentSettings()
    api: ApiSettings = ApiSettings()
    rabbitmq: RabbitMqSettings = RabbitMqSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings of this process. Raises ConfigError naming the key, its value and the way out."""
        given = os.environ if environ is None else environ
        values = _read_yaml(given.get(CONFIG_VARIABLE, ""))
        for path, found in _from_environment(given).items():
            _put(values, path, found.value)
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from error

    @property
    def store_path(self) -> Path:
        """The memory file."""
        return self.store.path or self.home / "memory.db"

    @property
    def activation_path(self) -> Path:
        """The folder of prefixes in files."""
        return self.activation.folder or self.home / "activation"

    @property
    def store_place(self) -> str:
        """Where the memories are, for people: the file, or the database without its password."""
        if self.store.url is None:
            return str(self.store_path)
        parts = urlsplit(self.store.url.get_secret_value())
        user = f"{parts.username}@" if parts.username else ""
        port = f":{parts.port}" if parts.port else ""
        return (
            f"postgresql://{user}{parts.hostname or ''}{port}{parts.path} (schema {self.store.schema_name})"
        )

    @property
    def rabbitmq_cursor_path(self) -> Path:
        """The file that keeps which web log was published last: beside the memory file."""
        return self.store_path.with_name(f"{self.store_path.stem}.rabbitmq")

    @property
    def keys_path(self) -> Path:
        """The file of API keys."""
        return self.api.keys_path or self.home / "keys.json"

    @property
    def queue_path(self) -> Path:
        """The file of the durable queue: beside the memory file, one for each."""
        store = self.store_path
        return store.with_name("queue.db" if store.name == "memory.db" else f"{store.stem}.queue.db")

    def masked(self) -> dict[str, Any]:
        """The tree for people to read: secrets show as stars."""
        return self.model_dump(mode="json")


CONFIG_VARIABLE = "MEMOS_CONFIG"

Path_ = tuple[str, ...]


def _verbatim(text: str) -> Any:
    return text


def _boolean(text: str) -> bool:
    folded = text.strip().lower()
    if folded in ("1", "true", "yes", "on"):
        return True
    if folded in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("give true or false")


_EMBEDDERS = {"universal_api": "openai"}
_RERANKERS = {"http_bge": "http", "http_bge_strategy": "http", "cosine_local": "none"}


def _names(text: str) -> tuple[str, ...]:
    """Names separated by commas; "none" is the empty list, because an empty variable is an unset one."""
    if text.strip().lower() == "none":
        return ()
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _json_list(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"give a JSON list of models ({error})") from error


def _json_object(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"give a JSON object ({error})") from error
    if not isinstance(value, dict):
        raise ValueError('give a JSON object, such as {"alice": 3}')
    return value


# documented name -> (setting, how its text is read)
ALIASES: dict[str, tuple[Path_, Callable[[str], Any]]] = {
    "MEMOS_BASE_PATH": (("home",), _verbatim),
    "MOS_ENABLE_SCHEDULER": (("scheduler", "enabled"), _boolean),
    "API_SCHEDULER_ON": (("scheduler", "enabled"), _boolean),
    "MOS_SCHEDULER_USE_REDIS_QUEUE": (("queue", "use_redis"), _boolean),
    "MEMSCHEDULER_USE_REDIS_QUEUE": (("queue", "use_redis"), _boolean),
    "DEFAULT_USE_REDIS_QUEUE": (("queue", "use_redis"), _boolean),
    "MEMSCHEDULER_REDIS_URL": (("queue", "redis_url"), _verbatim),
    "MEMSCHEDULER_REDIS_HOST": (("queue", "redis_host"), _verbatim),
    "MEMSCHEDULER_REDIS_PORT": (("queue", "redis_port"), _verbatim),
    "MEMSCHEDULER_REDIS_DB": (("queue", "redis_db"), _verbatim),
    "MEMSCHEDULER_REDIS_USERNAME": (("queue", "redis_username"), _verbatim),
    "MEMSCHEDULER_REDIS_PASSWORD": (("queue", "redis_password"), _verbatim),
    "MEMSCHEDULER_REDIS_TIMEOUT": (("queue", "redis_timeout_s"), _verbatim),
    "MEMSCHEDULER_REDIS_CONNECT_TIMEOUT": (("queue", "redis_connect_timeout_s"), _verbatim),
    "MEMSCHEDULER_REDIS_STREAM_KEY_PREFIX": (("queue", "redis_prefix"), _verbatim),
    "MEMSCHEDULER_STREAM_KEY_PREFIX": (("queue", "redis_prefix"), _verbatim),
    "ENABLE_CHAT_API": (("api", "enable_chat"), _boolean),
    "BUSINESS_CHAT_KEYS": (("api", "business_chat_keys"), _json_list),
    "MEMSCHEDULER_RABBITMQ_HOST_NAME": (("rabbitmq", "host"), _verbatim),
    "MEMSCHEDULER_RABBITMQ_PORT": (("rabbitmq", "port"), _verbatim),
    "MEMSCHEDULER_RABBITMQ_USER_NAME": (("rabbitmq", "user"), _verbatim),
    "MEMSCHEDULER_RABBITMQ_PASSWORD": (("rabbitmq", "password"), _verbatim),
    "MEMSCHEDULER_RABBITMQ_VIRTUAL_HOST": (("rabbitmq", "virtual_host"), _verbatim),
    "MEMSCHEDULER_RABBITMQ_EXCHANGE_NAME": (("rabbitmq", "exchange"), _verbatim),
    "MEMSCHEDULER_RABBITMQ_EXCHANGE_TYPE": (("rabbitmq", "exchange_type"), _verbatim),
    "MOS_SCHEDULER_TOP_K": (("scheduler", "top_k"), _verbatim),
    "MOS_SCHEDULER_ACT_MEM_UPDATE_INTERVAL": (("scheduler", "act_mem_update_interval"), _verbatim),
    "MOS_SCHEDULER_CONTEXT_WINDOW_SIZE": (("scheduler", "context_window_size"), _verbatim),
    "MOS_SCHEDULER_THREAD_POOL_MAX_WORKERS": (("scheduler", "workers"), _verbatim),
    "MOS_SCHEDULER_ENABLE_ACTIVATION_MEMORY": (("scheduler", "enable_activation_memory"), _boolean),
    "ENABLE_ACTIVATION_MEMORY": (("scheduler", "enable_activation_memory"), _boolean),
    "API_SEARCH_WINDOW_SIZE": (("scheduler", "search_window_size"), _verbatim),
    "API_SEARCH_HISTORY_TURNS": (("scheduler", "search_history_turns"), _verbatim),
    "MOS_WORKING_MEMORY": (("memory", "working_capacity"), _verbatim),
    "MOS_LONGTERM_MEMORY": (("memory", "long_term_capacity"), _verbatim),
    "MOS_USER_MEMORY": (("memory", "user_capacity"), _verbatim),
    "MOS_CHAT_MODEL": (("models", "chat_model"), _verbatim),
    "OPENAI_API_BASE": (("models", "chat_base_url"), _verbatim),
    "OPENAI_API_KEY": (("models", "chat_api_key"), _verbatim),
    "MOS_CHAT_TEMPERATURE": (("models", "chat_temperature"), _verbatim),
    "MOS_TOP_P": (("models", "chat_top_p"), _verbatim),
    "MOS_MAX_TOKENS": (("models", "chat_tokens_max"), _verbatim),
    "CHAT_MODEL_LIST": (("models", "chat_models"), _json_list),
    "MEMRADER_MODEL": (("models", "reader_model"), _verbatim),
    "MEMRADER_API_BASE": (("models", "reader_base_url"), _verbatim),
    "MEMRADER_API_KEY": (("models", "reader_api_key"), _verbatim),
    "MEMRADER_MAX_TOKENS": (("models", "reader_tokens_max"), _verbatim),
    "MEMREADER_GENERAL_MODEL": (("models", "scheduler_model"), _verbatim),
    "MOS_EMBEDDER_BACKEND": (("models", "embedder"), lambda text: _EMBEDDERS.get(text, text)),
    "MOS_EMBEDDER_MODEL": (("models", "embedder_model"), _verbatim),
    "MOS_EMBEDDER_API_BASE": (("models", "embedder_base_url"), _verbatim),
    "MOS_EMBEDDER_API_KEY": (("models", "embedder_api_key"), _verbatim),
    "MOS_RERANKER_BACKEND": (("models", "reranker"), lambda text: _RERANKERS.get(text, text)),
    "MOS_RERANKER_URL": (("models", "reranker_url"), _verbatim),
    "MOS_RERANKER_MODEL": (("models", "reranker_model"), _verbatim),
}

# Names of the reference implementation that mean nothing here, and that somebody may count on.
WITHOUT_EFFECT: dict[str, str] = {
    "MOS_CHAT_MODEL_PROVIDER": "every model is reached through an OpenAI-compatible endpoint",
    "MOS_EMBEDDER_PROVIDER": "every remote embedder is reached through an OpenAI-compatible endpoint",
    "MOS_RERANKER_STRATEGY": "memories are reranked as they are",
    "MEMOS_ENABLE_REDIS": "the queue is chosen by MEMOS_QUEUE__BACKEND",
    "MEMOS_ENABLE_RABBITMQ": "web logs go to a broker when MEMOS_RABBITMQ__HOST names one",
}

# Read elsewhere: by the test suite and the acceptance programs, not a setting.
_NOT_SETTINGS = frozenset(
    {
        CONFIG_VARIABLE,
        "MEMOS_ACCEPTANCE",
        "MEMOS_DATA_LOCOMO",
        "MEMOS_TESTS_REQUIRE_SERVICES",
        "MEMOS_MIGRATE_URL",
    }
)


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    text: str
    value: Any


def known_names() -> dict[str, Path_]:
    """Every canonical environment name and the setting it sets."""
    names: dict[str, Path_] = {}
    for name, field in Settings.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            for inner in annotation.model_fields:
                names[f"{PREFIX}{name}__{inner}".upper()] = (name, inner)
        else:
            names[f"{PREFIX}{name}".upper()] = (name,)
    return names


def _reader(path: Path_) -> Callable[[str], Any]:
    section = Settings.model_fields[path[0]].annotation
    if len(path) == 1 or not (isinstance(section, type) and issubclass(section, Section)):
        return _verbatim
    kind = str(section.model_fields[path[1]].annotation)
    if "ChatModel" in kind:
        return _json_list
    if "dict" in kind:
        return _json_object
    if "tuple" in kind:
        return _names
    return _boolean if "bool" in kind else _verbatim


def _from_environment(environ: Mapping[str, str]) -> dict[Path_, _Found]:
    names = known_names()
    found: dict[Path_, _Found] = {}
    for name in sorted(environ):
        text = environ[name]
        if name in ALIASES:
            path, read = ALIASES[name]
        elif name in WITHOUT_EFFECT:
            warnings.warn(f"{name} does nothing here: {WITHOUT_EFFECT[name]}", UserWarning, stacklevel=3)
            continue
        elif name in names:
            path, read = names[name], _reader(names[name])
        elif name.startswith(PREFIX) and name not in _NOT_SETTINGS:
            raise ConfigError(f"{name} is not a setting.{_nearest(name, [*names, *ALIASES])}")
        else:
            continue
        if text == "":
            continue  # an empty variable is an unset one, as in docker and systemd files
        try:
            value = read(text)
        except ValueError as error:
            raise ConfigError(f"{name}={_shown(path, text)}: {error}") from error
        before = found.get(path)
        if before is not None and before.value != value:
            raise ConfigError(
                f"{before.name}={_shown(path, before.text)} and {name}={_shown(path, text)} disagree about "
                f"{'.'.join(path)}; unset one of them"
            )
        found[path] = _Found(name, text, value)
    return found


def _read_yaml(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{CONFIG_VARIABLE}={path!r} cannot be read: {error.strerror or error}") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, not {type(values).__name__}")
    return values


def _put(values: dict[str, Any], path: Path_, value: Any) -> None:
    if len(path) == 1:
        values[path[0]] = value
        return
    section = values.setdefault(path[0], {})
    if not isinstance(section, dict):
        raise ConfigError(f"{path[0]} must be a mapping of settings, not {section!r}")
    section[path[1]] = value


def _shown(path: tuple[Any, ...], value: Any) -> str:
    """A value for an error's text; not if it is, or may hold, a key."""
    names = [str(part) for part in path]
    secret = any(name.endswith(("key", "keys", "password")) or name == "chat_models" for name in names)
    secret = secret or isinstance(value, Mapping)  # a whole section
    secret = secret or names == ["store", "url"]
    secret = secret or ("@" in str(value) and any(name.endswith("url") for name in names))
    return "'***'" if secret and value else repr(value)


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else " `memos doctor` lists the settings."


def _explain(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            siblings = [".".join(path) for path in known_names().values()]
            sections = list(Settings.model_fields)
            lines.append(f"{where} is not a setting.{_nearest(where, siblings + sections)}")
        else:
            shown = _shown(fault["loc"], fault.get("input"))
            lines.append(f"{where}={shown}: {fault['msg']}")
    return "; ".join(lines)
