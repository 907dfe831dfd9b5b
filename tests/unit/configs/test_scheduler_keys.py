"""Every documented key of a scheduler's configuration changes the runtime, is refused, or says it does nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.postgres import schemas_of

from memos.configs.mem_scheduler import (
    GeneralSchedulerConfig,
    OptimizedSchedulerConfig,
    SchedulerConfigFactory,
)
from memos.errors import ConfigError, QueueFull
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.optimized_scheduler import OptimizedScheduler
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.store import AddItems
from memos.runtime import Runtime, build
from memos.settings import ModelSettings, Settings, StoreSettings
from memos.testing import run_until_idle


@contextmanager
def runtime_of(folder: Path, *, start: bool = False, **config: Any) -> Iterator[Runtime]:
    """A runtime over a scheduler configuration of these keys alone."""
    settings = Settings(home=folder, models=ModelSettings(embedder="none"))
    with build(settings, start=start, scheduler=SchedulerConfigFactory("general_scheduler", config)) as made:
        yield made


def message(label: str, content: str = "hello") -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id="u", mem_cube_id="c", label=label, content=content)


def remember(runtime: Runtime, *texts: str) -> None:
    written = runtime.reader.read_messages(
        [{"role": "user", "content": text} for text in texts], user_id="u", cube_id="c"
    )
    runtime.store.apply([AddItems(tuple(runtime.indexer.index(list(written.items))))])


HONOURED = {
    "enable_activation_memory",
    "top_k",
    "enable_parallel_dispatch",
    "thread_pool_max_workers",
    "max_internal_message_queue_size",
    "scheduler_startup_mode",
    "served_labels",
    "disabled_handlers",
    "search_method",
    "query_trigger_interval",
    "query_key_words_limit",
    "stop_wait",
    "stop_grace_s",
    "max_web_log_queue_size",
    "context_window_size",
    "working_mem_monitor_capacity",
    "db_path",
    "use_redis_queue",
    "redis_config",
}
REFUSED: dict[str, Any] = {
    "auth_config_path": "auth.yaml",
    "db_url": "mysql://db",
    "enable_orm_persistence": False,
}
WITHOUT_EFFECT = {
    "consume_interval_seconds": "kept for old files",
    "consume_batch": "kept for old files",
    "multi_task_running_timeout": "kept for old files",
    "get_status_parallel": "kept for old files",
    "act_mem_update_interval": "with activation memory only",
    "act_mem_dump_path": "with activation memory only",
    "activation_mem_monitor_capacity": "with activation memory only",
    "enhance_batch_size": "with a language model only",
    "enhance_retries": "with a language model only",
}


def test_every_key_is_honoured_refused_or_said_to_do_nothing() -> None:
    """No documented key is left out of the three sets."""
    assert HONOURED | set(REFUSED) | set(WITHOUT_EFFECT) == set(GeneralSchedulerConfig.model_fields)
    assert set(OptimizedSchedulerConfig.model_fields) == set(GeneralSchedulerConfig.model_fields)


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_what_this_version_does_not_have_is_refused(key: str, tmp_path: Path) -> None:
    """A key that asks for an absent part is a ConfigError that names it, and leaves no store behind."""
    with pytest.raises(ConfigError, match=key), runtime_of(tmp_path, **{key: REFUSED[key]}):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT))
def test_keys_without_effect_say_so(key: str) -> None:
    """The description of a key that changes nothing says why."""
    assert WITHOUT_EFFECT[key] in str(GeneralSchedulerConfig.model_fields[key].description)


def test_the_reference_page_names_every_key() -> None:
    """Each key has its line in the reference, with its description."""
    page = Path(__file__).parents[3] / "docs" / "reference" / "scheduler_config.md"
    text = page.read_text(encoding="utf-8")
    missing = [
        name
        for name, field in GeneralSchedulerConfig.model_fields.items()
        if f"| `{name}` |" not in text or str(field.description) not in text
    ]
    assert missing == []


def test_backend_chooses_the_class(tmp_path: Path) -> None:
    """`backend` names the scheduler that is built."""
    settings = Settings(home=tmp_path, models=ModelSettings(embedder="none"))
    kinds = []
    for backend in ("general_scheduler", "optimized_scheduler"):
        with build(settings, start=False, scheduler=SchedulerConfigFactory(backend)) as runtime:
            kinds.append(type(runtime.scheduler))
    assert kinds == [GeneralScheduler, OptimizedScheduler]


def test_top_k_bounds_a_recall(tmp_path: Path) -> None:
    """`top_k` is how many memories `search` gives where the caller names no number."""
    with runtime_of(tmp_path, top_k=2) as runtime:
        remember(runtime, *(f"Fact {n} about the harbour" for n in range(6)))
        assert len(runtime.scheduler.search("harbour", "u", "c")) == 2


@pytest.mark.parametrize(
    ("config", "workers"),
    [({"thread_pool_max_workers": 7}, 7), ({"enable_parallel_dispatch": False}, 1)],
)
def test_workers(config: dict[str, Any], workers: int, tmp_path: Path) -> None:
    """`thread_pool_max_workers` sizes the pool; without `enable_parallel_dispatch` it is one thread."""
    with runtime_of(tmp_path, start=True, **config) as runtime:
        assert runtime.scheduler._pool.size == workers


def test_the_queue_is_bounded(tmp_path: Path) -> None:
    """`max_internal_message_queue_size` bounds a lane where it is set."""
    with runtime_of(tmp_path, max_internal_message_queue_size=3) as runtime:
        for _ in range(3):
            runtime.scheduler.submit_messages(message("query"))
        with pytest.raises(QueueFull):
            runtime.scheduler.submit_messages(message("query"))


def test_disabled_handlers_leave_their_messages_waiting(tmp_path: Path) -> None:
    """A message of a label in `disabled_handlers` is kept and not run."""
    with runtime_of(tmp_path, disabled_handlers=["query"]) as runtime:
        runtime.scheduler.submit_messages([message("query"), message("answer")])
        while runtime.scheduler.run_once():
            pass
        assert runtime.scheduler.unserved_labels() == {"query": 1}


def test_search_method_is_the_default_method(tmp_path: Path) -> None:
    """`search_method` is what documented programs hand to the retriever."""
    with runtime_of(tmp_path, search_method="tree_text_memory_fine_search") as runtime:
        assert runtime.scheduler.search_method == "tree_text_memory_fine_search"


def decisions(runtime: Runtime) -> list[str]:
    """What the web logs say of working memory, oldest first."""
    logs = runtime.store.web_logs(cube_id="c", label="scheduleMemory")
    return [log.log_content for _, log in reversed(logs)]


@pytest.mark.parametrize(("interval_s", "replaced"), [(1e-6, 2), (0.0, 1)])
def test_recall_by_time(interval_s: float, replaced: int, tmp_path: Path) -> None:
    """A repeated query is recalled again only when `query_trigger_interval` has passed."""
    with runtime_of(tmp_path, query_trigger_interval=interval_s) as runtime:
        remember(runtime, "The ferry to the island leaves at noon")
        for _ in range(2):
            runtime.scheduler.submit_messages(message("mem_update", "When does the ferry leave?"))
            while runtime.scheduler.run_once():
                pass
        assert sum("unchanged" not in decision for decision in decisions(runtime)) == replaced


def test_keywords_and_window_are_bounded(tmp_path: Path) -> None:
    """`query_key_words_limit` and `context_window_size` bound the activity that the store keeps."""
    with runtime_of(tmp_path, query_key_words_limit=2, context_window_size=3) as runtime:
        for n in range(5):
            text = f"harbour ferry island noon captain number{n}"
            runtime.scheduler.submit_messages(message("mem_update", text))
        while runtime.scheduler.run_once():
            pass
        activity = runtime.scheduler.services.activity.read(runtime.store, "c", "u")
        assert len(activity.queries) == 3
        assert {len(query.keywords) for query in activity.queries} == {2}


def test_the_pool_of_candidates_is_bounded(tmp_path: Path) -> None:
    """`working_mem_monitor_capacity` bounds what competes for the places, where it is set."""
    with runtime_of(tmp_path, working_mem_monitor_capacity=4) as runtime:
        remember(runtime, *(f"Fact {n} about the harbour" for n in range(9)))
        runtime.scheduler.submit_messages(message("mem_update", "What is known about the harbour?"))
        while runtime.scheduler.run_once():
            pass
        assert len(runtime.store.working("c").entries) == 4


def test_grace() -> None:
    """`stop_grace_s` is how long `stop` waits, `stop_wait` takes its bound away."""
    assert GeneralSchedulerConfig(stop_grace_s=3).grace_s == 3
    assert GeneralSchedulerConfig(stop_grace_s=3, stop_wait=True).grace_s is None


def test_stop_hands_back_what_outlives_the_grace(tmp_path: Path) -> None:
    """With `stop_grace_s` 0, `stop` does not wait for a handler that runs."""
    import threading

    entered, go = threading.Event(), threading.Event()

    def handler(messages: list[ScheduleMessageItem]) -> None:
        entered.set()
        go.wait(10)

    with runtime_of(tmp_path, stop_grace_s=0) as runtime:
        runtime.scheduler.register_handlers({"slow": handler})
        runtime.scheduler.submit_messages(message("slow"))
        runtime.scheduler.start()
        assert entered.wait(10)
        runtime.scheduler.stop()
        assert runtime.scheduler.get_tasks_status()["remaining"] == 1
        go.set()


def test_the_web_log_buffer_is_bounded(tmp_path: Path) -> None:
    """`max_web_log_queue_size` bounds the buffer behind `get_web_log_messages`."""
    with runtime_of(tmp_path, max_web_log_queue_size=2) as runtime:
        logs = [
            ScheduleLogForWebItem(user_id="u", mem_cube_id="c", label="addMessage", log_content=str(n))
            for n in range(5)
        ]
        runtime.log_sink.emit(logs)
        assert len(runtime.scheduler.get_web_log_messages()) == 2


def test_db_url_is_the_store(tmp_path: Path) -> None:
    """`db_url` is the address of a store on PostgreSQL, and what it holds goes there."""
    with schemas_of("postgres").lent() as address:
        home = Settings(home=tmp_path, store=StoreSettings(schema_name=address.schema, role=address.role))
        chosen = SchedulerConfigFactory("general_scheduler", {"db_url": address.url})
        with build(home, start=False, scheduler=chosen) as runtime:
            assert runtime.store.describe()["backend"].startswith("PostgreSQL")
        assert not (tmp_path / "memory.db").exists()


def test_db_path_is_the_store(tmp_path: Path) -> None:
    """`db_path` is the file of the memory store."""
    file = tmp_path / "elsewhere" / "mine.db"
    with runtime_of(tmp_path / "home", start=True, db_path=str(file)) as runtime:
        runtime.scheduler.submit_messages(message("query"))
        run_until_idle(runtime.scheduler, timeout_s=30)
        assert runtime.settings.store_path == file
    assert file.is_file()
    assert not (tmp_path / "home" / "memory.db").exists()


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_files_in_the_documented_form(suffix: str, tmp_path: Path) -> None:
    """`backend` and `config` are read from YAML and from JSON."""
    file = tmp_path / f"general{suffix}"
    text = json.dumps({"backend": "general_scheduler", "config": {"top_k": 7, "stop_wait": True}})
    file.write_text(text if suffix == ".json" else "backend: general_scheduler\nconfig:\n  top_k: 7\n")
    read = (
        SchedulerConfigFactory.from_json_file if suffix == ".json" else SchedulerConfigFactory.from_yaml_file
    )
    factory = read(file)
    assert (factory.backend, factory.config.top_k) == ("general_scheduler", 7)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.yaml", "backend: general_scheduler\nconfig:\n  topk: 3\n", "Did you mean 'top_k'"),
        ("a.yaml", "backend: generel_scheduler\n", "Did you mean 'general_scheduler'"),
        ("a.yaml", "backend: general_scheduler\nconfig:\n  top_k: many\n", "top_k='many'"),
        ("a.yaml", "backend: general_scheduler\nkonfig: {}\n", "Did you mean 'config'"),
        ("a.yaml", "config: {}\n", "needs 'backend'"),
        ("a.yaml", "- 1\n", "must hold a mapping"),
        ("a.yaml", "a: [\n", "is not YAML"),
        ("a.json", "{", "is not JSON"),
        ("a.toml", "", "a .yaml, .yml or .json file"),
        ("missing/a.yaml", None, "cannot be read"),
    ],
)
def test_files_that_cannot_work(name: str, text: str | None, expected: str, tmp_path: Path) -> None:
    """A wrong key, value or file is a ConfigError that names it."""
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        SchedulerConfigFactory.from_yaml_file(file)


def test_served_labels_leaves_the_rest_to_others(tmp_path: Path) -> None:
    """A process claims the labels it is told, keeps the handlers of the others, and runs none of their work."""
    ran: list[str] = []
    with runtime_of(tmp_path, served_labels=("mine", "query")) as runtime:
        scheduler = runtime.scheduler
        scheduler.register_handlers({"mine": lambda batch: ran.append("mine")})
        scheduler.register_handlers({"theirs": lambda batch: ran.append("theirs")})
        assert scheduler.served_labels() == {"mine", "query"}
        for label in ("theirs", "mine"):
            scheduler.submit_messages(
                ScheduleMessageItem(user_id="u", mem_cube_id="c", label=label, content="x")
            )
        while scheduler.run_once():
            pass
        assert ran == ["mine"]
        assert scheduler.unserved_labels() == {"theirs": 1}
