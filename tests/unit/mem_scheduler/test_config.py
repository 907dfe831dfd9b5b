"""The documented configuration: every key, its default, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.mem_scheduler.parts import Parts

from memos.configs.mem_scheduler import (
    BaseSchedulerConfig,
    GeneralSchedulerConfig,
    OptimizedSchedulerConfig,
    SchedulerConfigFactory,
)
from memos.errors import ConfigError
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.optimized_scheduler import OptimizedScheduler
from memos.mem_scheduler.scheduler_factory import SchedulerFactory

DOCUMENTED: dict[str, Any] = {
    "top_k": 5,
    "enable_parallel_dispatch": True,
    "thread_pool_max_workers": 50,
    "consume_interval_seconds": 0.01,
    "consume_batch": 3,
    "auth_config_path": None,
    "max_internal_message_queue_size": 200,
    "multi_task_running_timeout": 30,
    "act_mem_update_interval": 300,
    "context_window_size": 5,
    "act_mem_dump_path": None,
    "enable_activation_memory": False,
    "working_mem_monitor_capacity": 30,
    "activation_mem_monitor_capacity": 20,
    "enhance_batch_size": 20,
    "enhance_retries": 1,
    "db_path": None,
    "db_url": None,
    "search_method": "tree_text_memory_search",
    "scheduler_startup_mode": "thread",
}


def test_documented_keys_have_documented_defaults() -> None:
    """Every documented key is a field with the documented default."""
    values = GeneralSchedulerConfig().model_dump()
    assert {name: values[name] for name in DOCUMENTED} == DOCUMENTED


def test_keys_that_the_reference_reads_undeclared_can_be_set() -> None:
    """Keys that no declaration had are fields here."""
    config = GeneralSchedulerConfig(
        disabled_handlers=["query"],
        query_trigger_interval=10,
        stop_wait=True,
        max_web_log_queue_size=7,
        query_key_words_limit=3,
        get_status_parallel=True,
    )
    assert config.disabled_handlers == ("query",)
    assert config.grace_s is None
    assert GeneralSchedulerConfig(stop_grace_s=2).grace_s == 2


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"top_kk": 3}, "'top_k'"),
        ({"context_window": 3}, "'context_window_size'"),
        ({"max_internal_message_queue_size": -1}, "max_internal_message_queue_size=-1"),
        ({"thread_pool_max_workers": 1}, "thread_pool_max_workers=1"),
        ({"working_mem_monitor_capacity": 0}, "working_mem_monitor_capacity=0"),
        ({"act_mem_update_interval": -3}, "act_mem_update_interval=-3"),
        ({"scheduler_startup_mode": "fork"}, "scheduler_startup_mode='fork'"),
        ({"search_method": "magic"}, "tree_text_memory_search"),
        ({"top_k": "many"}, "top_k='many'"),
    ],
)
def test_a_wrong_key_or_value_is_named(values: dict[str, Any], named: str) -> None:
    """A ConfigError names the key, its value and the nearest valid one."""
    with pytest.raises(ConfigError, match=named.replace("'", ".")):
        GeneralSchedulerConfig(**values)
    with pytest.raises(ConfigError):
        SchedulerConfigFactory("general_scheduler", values)


def test_an_explicit_queue_size_is_told_from_the_default() -> None:
    """Only a size that somebody set bounds the queue."""
    assert BaseSchedulerConfig().queue_size is None
    assert BaseSchedulerConfig(max_internal_message_queue_size=200).queue_size == 200


def test_the_factory_reads_the_documented_file_form() -> None:
    """`backend` and `config` as YAML and JSON files hold them; a checked config is taken over."""
    factory = SchedulerConfigFactory.model_validate(
        {"backend": "optimized_scheduler", "config": {"top_k": 10, "context_window_size": 10}}
    )
    assert isinstance(factory.config, OptimizedSchedulerConfig)
    assert (factory.backend, factory.config.top_k) == ("optimized_scheduler", 10)
    again = SchedulerConfigFactory("optimized_scheduler", factory.config)
    assert again.config == factory.config
    assert "optimized_scheduler" in repr(again)
    assert SchedulerConfigFactory("general_scheduler").config == GeneralSchedulerConfig()


@pytest.mark.parametrize(
    "value",
    [
        "text",
        {"config": {}},
        {"backend": "general_schedule"},
        {"backend": "general_scheduler", "conf": {}},
        {"backend": "general_scheduler", "config": [1]},
    ],
)
def test_a_wrong_file_form_is_refused(value: object) -> None:
    """Anything else is a ConfigError."""
    with pytest.raises(ConfigError):
        SchedulerConfigFactory.model_validate(value)


def test_the_scheduler_factory_makes_what_the_configuration_names(still: Parts) -> None:
    """Each backend name gives its class, with the configuration handed through."""
    for backend, kind in (
        ("general_scheduler", GeneralScheduler),
        ("optimized_scheduler", OptimizedScheduler),
    ):
        made = SchedulerFactory.from_config(
            SchedulerConfigFactory(backend, {"top_k": 3}), queue=still.queue, services=still.services
        )
        assert type(made) is kind
        assert made.top_k == 3


def test_a_backend_without_a_class_is_refused(still: Parts) -> None:
    """A configuration that names no scheduler class is a ConfigError."""
    factory = SchedulerConfigFactory("general_scheduler")
    factory.config = BaseSchedulerConfig()
    with pytest.raises(ConfigError, match="no scheduler class"):
        SchedulerFactory.from_config(factory, queue=still.queue, services=still.services)
