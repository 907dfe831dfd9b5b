"""The documented configuration of a scheduler: `SchedulerConfigFactory(backend=…, config={…})`.

Every documented key is a field, those included that the reference reads but never declared. An unknown
key and a value that cannot work are a ConfigError that names the key, its value and the nearest valid
one. This is the edge where YAML and JSON come in; the scheduler itself is handed the checked object.

What each key does stands in its description and in `docs/reference/scheduler_config.md`. A key that asks
for something this version does not have is refused when the runtime is built, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from memos.configs.base import Checked, nearest, read_mapping
from memos.errors import ConfigError

SEARCH_METHODS = ("tree_text_memory_search", "tree_text_memory_fine_search", "text_memory_search")


class BaseSchedulerConfig(Checked):
    """What every scheduler can be told."""

    top_k: int = Field(5, ge=1, le=1_000, description="memories recalled for a gap")
    enable_parallel_dispatch: bool = Field(True, description="False: one handler at a time")
    thread_pool_max_workers: int = Field(50, gt=1, description="threads that run handlers")
    consume_interval_seconds: float = Field(
        0.01, ge=0, description="kept for old files: the consumer waits for work, it does not poll"
    )
    consume_batch: int = Field(3, ge=1, description="kept for old files: batches adapt to the handler")
    auth_config_path: str | None = Field(
        None, description="refused until a broker or a model needs credentials"
    )
    use_redis_queue: bool = Field(False, description="the queue on Redis Streams instead of the embedded one")
    redis_config: dict[str, Any] = Field(
        default_factory=dict,
        description="with use_redis_queue: url, or host, port, db, username, password, tls; prefix",
    )
    max_internal_message_queue_size: int = Field(
        200, ge=1, description="messages in one lane; honoured where it is set, the queue's own otherwise"
    )
    multi_task_running_timeout: int = Field(
        30, ge=1, description="kept for old files: the steps of a task run one after the other"
    )
    scheduler_startup_mode: Literal["thread", "process"] = Field(
        "thread",
        description="where handlers run: in threads of this process, or in a worker process that start() starts",
    )
    served_labels: tuple[str, ...] = Field(
        (), description="labels that this process serves; none: all that have a handler"
    )
    disabled_handlers: tuple[str, ...] = Field((), description="labels this process does not serve")
    search_method: str = Field(SEARCH_METHODS[0], description="the default method of retriever.search")
    query_trigger_interval: float = Field(
        0.0, ge=0, description="recall at least every N s; 0: never by time"
    )
    query_key_words_limit: int = Field(20, ge=1, le=1_000, description="keywords taken from a query")
    stop_wait: bool = Field(False, description="stop() waits for running handlers without limit")
    stop_grace_s: float = Field(10.0, ge=0, description="how long stop() lets running handlers finish")
    max_web_log_queue_size: int = Field(10_000, ge=1, description="web logs in the process's buffer")
    get_status_parallel: bool = Field(False, description="kept for old files: a status is one call")

    @field_validator("search_method")
    @classmethod
    def _known_method(cls, method: str) -> str:
        if method not in SEARCH_METHODS:
            raise ValueError(f"give one of {', '.join(SEARCH_METHODS)}")
        return method

    @property
    def grace_s(self) -> float | None:
        """How long `stop` waits for running handlers; None: as long as they take."""
        return None if self.stop_wait else self.stop_grace_s

    @property
    def workers(self) -> int:
        """How many handlers run at a time."""
        return self.thread_pool_max_workers if self.enable_parallel_dispatch else 1

    @property
    def queue_size(self) -> int | None:
        """The bound of the queue where somebody set one."""
        given = "max_internal_message_queue_size" in self.model_fields_set
        return self.max_internal_message_queue_size if given else None


class GeneralSchedulerConfig(BaseSchedulerConfig):
    """What the scheduler with the built-in handlers can be told besides."""

    act_mem_update_interval: float = Field(
        300, ge=0, description="seconds between activation refreshes, with activation memory only"
    )
    context_window_size: int = Field(
        5, ge=1, description="queries and answers remembered of a user in a cube"
    )
    act_mem_dump_path: str | None = Field(
        None, description="folder of activation memory files, with activation memory only"
    )
    enable_activation_memory: bool = Field(False, description="promote working memory to activation memory")
    working_mem_monitor_capacity: int = Field(
        30,
        ge=1,
        le=1_000,
        description="candidates pooled for working memory; honoured where it is set, else five times the places",
    )
    activation_mem_monitor_capacity: int = Field(
        20, ge=1, description="memories in an activation refresh, with activation memory only"
    )
    enhance_batch_size: int = Field(
        20, ge=1, description="memories a model is shown at a time, with a language model only"
    )
    enhance_retries: int = Field(
        1, ge=0, description="repeats of a failed model step, with a language model only"
    )
    db_path: str | None = Field(None, description="file of the memory store")
    db_url: str | None = Field(
        None, description="address of a memory store on PostgreSQL, as `MEMOS_STORE__URL`"
    )
    enable_orm_persistence: bool = Field(
        True, description="monitor state always stands in the store: false is refused"
    )

    @property
    def candidates_max(self) -> int | None:
        """The bound of the pool where somebody set one."""
        given = "working_mem_monitor_capacity" in self.model_fields_set
        return self.working_mem_monitor_capacity if given else None


class OptimizedSchedulerConfig(GeneralSchedulerConfig):
    """The same keys; the class chooses the scheduler."""


_BACKENDS: dict[str, type[GeneralSchedulerConfig]] = {
    "general_scheduler": GeneralSchedulerConfig,
    "optimized_scheduler": OptimizedSchedulerConfig,
}


class SchedulerConfigFactory:
    """A backend's name and its configuration, checked: `backend` and `config`."""

    backend_to_class: ClassVar[Mapping[str, type[GeneralSchedulerConfig]]] = _BACKENDS

    def __init__(self, backend: str, config: Mapping[str, Any] | BaseSchedulerConfig | None = None) -> None:
        if backend not in _BACKENDS:
            raise ConfigError(
                f"scheduler backend {backend!r} does not exist.{nearest(str(backend), list(_BACKENDS))}"
            )
        self.backend = backend
        wanted = _BACKENDS[backend]
        self.config: GeneralSchedulerConfig
        if isinstance(config, wanted):
            self.config = config
        elif isinstance(config, BaseSchedulerConfig):
            self.config = wanted(**config.model_dump(exclude_unset=True))
        elif config is None or isinstance(config, Mapping):
            self.config = wanted(**{str(key): value for key, value in (config or {}).items()})
        else:
            raise ConfigError(f"config of {backend} must be a mapping, not {type(config).__name__}")

    @classmethod
    def model_validate(cls, value: object) -> SchedulerConfigFactory:
        """The factory of a mapping `{"backend": …, "config": {…}}`, as YAML and JSON files hold it."""
        if not isinstance(value, Mapping):
            raise ConfigError(f"a scheduler configuration is a mapping, not {type(value).__name__}")
        unknown = set(map(str, value)) - {"backend", "config"}
        if unknown:
            name = sorted(unknown)[0]
            raise ConfigError(f"{name!r} is no key here.{nearest(name, ['backend', 'config'])}")
        if "backend" not in value:
            raise ConfigError(f"a scheduler configuration needs 'backend': one of {', '.join(_BACKENDS)}")
        return cls(str(value["backend"]), value.get("config"))

    @classmethod
    def from_yaml_file(cls, path: str | Path) -> SchedulerConfigFactory:
        """The factory of a YAML file. Raises ConfigError."""
        return cls.model_validate(read_mapping(path))

    @classmethod
    def from_json_file(cls, path: str | Path) -> SchedulerConfigFactory:
        """The factory of a JSON file. Raises ConfigError."""
        return cls.model_validate(read_mapping(path))

    def __repr__(self) -> str:
        return f"SchedulerConfigFactory(backend={self.backend!r}, config={self.config!r})"
