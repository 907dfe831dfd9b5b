"""The settings: one frozen tree, the only reader of the environment and of the YAML configuration.

Canonical names are `MEMOS_<SECTION>__<FIELD>` (for example `MEMOS_QUEUE__BACKEND`), and `MEMOS_HOME`.
The names that the documents print are aliases (`ALIASES`). Two names that say different things about
one setting are an error that names both; an unknown `MEMOS_*` name is an error that names the nearest
known one. Order: environment, then the YAML file that `MEMOS_CONFIG` names, then the defaults below.
Nothing but `runtime`, `api.app` and `cli` imports this module: everybody else is given values.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from memos.errors import ConfigError

PREFIX = "MEMOS_"


class Section(BaseModel):
    """A branch of the tree: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class QueueSettings(Section):
    """The task queue. Every bound refuses with `QueueFull` and is visible as a metric."""

    backend: Literal["local"] | None = Field(None, description="local: in memory, lost with the process")
    use_redis: bool | None = Field(None, description="the documented switch between Redis and local queue")
    messages_max: int = Field(200_000, ge=1, description="messages in the whole queue")
    lane_messages_max: int = Field(20_000, ge=1, description="messages in one lane")
    payload_bytes_max: int = Field(4 * 1024 * 1024, ge=1, description="bytes of one message's content")
    dead_letters_max: int = Field(10_000, ge=1, description="dead letters kept; the oldest leave first")
    status_entries_max: int = Field(200_000, ge=1, description="settled messages whose status is kept")

    @model_validator(mode="after")
    def _agree(self) -> QueueSettings:
        if self.use_redis:
            raise ValueError(
                "this version has no Redis queue yet: unset MOS_SCHEDULER_USE_REDIS_QUEUE or set it to false"
            )
        return self

    @property
    def effective_backend(self) -> str:
        """The backend that is built."""
        return self.backend or "local"


class StoreSettings(Section):
    """The memory store."""

    path: Path | None = Field(None, description="the SQLite file; default <home>/memory.db")
    busy_timeout_s: float = Field(10.0, gt=0, description="how long a write waits for another process")
    vector_cache_bytes_max: int = Field(
        512 * 1024 * 1024, ge=0, description="bytes of cached vectors, all cubes"
    )
    web_logs_max: int = Field(100_000, ge=1, description="web logs kept in the store; the oldest leave first")


class ModelSettings(Section):
    """The models. Without any, everything works by rules, full text and links."""

    embedder: Literal["minilm", "none"] = Field("minilm", description="none: recall by text and links only")
    embedder_folder: Path | None = Field(None, description="a folder with model.safetensors and vocab.txt")
    embedder_threads: int = Field(1, ge=1, le=64, description="threads of one encoding")
    embedding_cache_entries_max: int = Field(4_096, ge=0, description="sentence vectors kept by content hash")


class SchedulerSettings(Section):
    """The scheduler and what its handlers do."""

    enabled: bool = Field(True, description="start the scheduler with the runtime")
    kind: Literal["general", "optimized"] = Field("optimized", description="the scheduler class")
    top_k: int = Field(10, ge=1, le=1_000, description="memories recalled for a gap")
    workers: int = Field(16, ge=2, le=10_000, description="threads that run handlers")
    act_mem_update_interval: float = Field(300.0, ge=0, description="seconds between activation refreshes")
    context_window_size: int = Field(5, ge=1, le=1_000, description="queries and answers remembered a cube")
    enable_activation_memory: bool = Field(False, description="promote working memory to activation memory")
    query_trigger_interval: float = Field(0.0, ge=0, description="force recall every N seconds; 0: never")
    stop_grace_s: float = Field(10.0, ge=0, description="how long stop() lets running handlers finish")
    disabled_handlers: tuple[str, ...] = Field((), description="labels this process does not serve")
    search_method: str = Field(
        "tree_text_memory_search", description="the default method of retriever.search"
    )
    search_window_size: int = Field(5, ge=1, le=1_000, description="mixture searches remembered a user")
    search_history_turns: int = Field(5, ge=0, description="0: a follow-up leans on no earlier search")
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


class ApiSettings(Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    enable_chat: bool | None = Field(
        None, description="the chat endpoints; off: 503. Unset: off for importers, on for `memos serve`"
    )
    body_bytes_max: int = Field(8 * 1024 * 1024, ge=1_024, description="bytes of one request body")
    key: SecretStr | None = Field(None, description="needed as a bearer token when listening off loopback")


class LogSettings(Section):
    """Log lines on stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "WARNING"
    form: Literal["console", "json"] = "console"


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
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()

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


# documented name -> (setting, how its text is read)
ALIASES: dict[str, tuple[Path_, Callable[[str], Any]]] = {
    "MEMOS_BASE_PATH": (("home",), _verbatim),
    "MOS_ENABLE_SCHEDULER": (("scheduler", "enabled"), _boolean),
    "API_SCHEDULER_ON": (("scheduler", "enabled"), _boolean),
    "MOS_SCHEDULER_USE_REDIS_QUEUE": (("queue", "use_redis"), _boolean),
    "MEMSCHEDULER_USE_REDIS_QUEUE": (("queue", "use_redis"), _boolean),
    "DEFAULT_USE_REDIS_QUEUE": (("queue", "use_redis"), _boolean),
    "ENABLE_CHAT_API": (("api", "enable_chat"), _boolean),
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
}

# Names of the reference implementation that carry our prefix and mean nothing here.
WITHOUT_EFFECT: dict[str, str] = {
    "MEMOS_ENABLE_REDIS": "the queue is chosen by MEMOS_QUEUE__BACKEND",
    "MEMOS_ENABLE_RABBITMQ": "this version writes web logs to the store only",
}

# Read elsewhere: by the test suite and the acceptance programs, not a setting.
_NOT_SETTINGS = frozenset(
    {CONFIG_VARIABLE, "MEMOS_ACCEPTANCE", "MEMOS_DATA_LOCOMO", "MEMOS_TESTS_REQUIRE_SERVICES"}
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
    if "tuple" in kind:
        return lambda text: tuple(part.strip() for part in text.split(",") if part.strip())
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
            raise ConfigError(f"{name}={text!r}: {error}") from error
        before = found.get(path)
        if before is not None and before.value != value:
            raise ConfigError(
                f"{before.name}={before.text!r} and {name}={text!r} disagree about "
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
            lines.append(f"{where}={fault.get('input')!r}: {fault['msg']}")
    return "; ".join(lines)
