"""The queue that the settings ask for, on the real Redis."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import tests.services
from pydantic import ValidationError

from memos.configs.mem_scheduler import SchedulerConfigFactory
from memos.errors import ConfigError, QueueUnavailable
from memos.mem_scheduler.queues.redis_streams import RedisAddress, RedisStreamsQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import build
from memos.runtime_queue import redis_address
from memos.settings import ModelSettings, QueueSettings, Settings

needs_redis = pytest.mark.skipif(not tests.services.redis_is_there(), reason="no Redis on loopback")


@pytest.fixture
def prefix() -> Iterator[str]:
    own = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    yield own
    tests.services.drop_keys(tests.services.redis_address(), own)


def settings(home: Path, prefix: str, **queue: object) -> Settings:
    url = tests.services.redis_address().url
    asked = QueueSettings(use_redis=True, redis_url=url, redis_prefix=prefix, **queue)  # type: ignore[arg-type]
    return Settings(home=home, queue=asked, models=ModelSettings(embedder="none"))


@needs_redis
def test_the_documented_switch_builds_the_redis_queue(tmp_path: Path, prefix: str) -> None:
    """The same program runs on Redis: a custom handler gets its message, and the documented names agree."""
    with build(settings(tmp_path, prefix), start=False) as runtime:
        got: list[str] = []
        runtime.scheduler.register_handlers(
            {"note": lambda messages: got.extend(m.content for m in messages)}
        )
        runtime.scheduler.submit_messages(
            [ScheduleMessageItem(user_id="u", mem_cube_id="c", label="note", content="hello")]
        )
        assert isinstance(runtime.queue, RedisStreamsQueue)
        assert runtime.scheduler.use_redis_queue and runtime.scheduler.config.use_redis_queue
        assert runtime.scheduler.get_tasks_status()["u:c:note"] == {
            "running": 0,
            "remaining": 1,
            "pending": 1,
        }
        while runtime.scheduler.run_once():
            pass
        assert got == ["hello"]
        assert runtime.redis_client is not None and runtime.redis_client.ping()
    assert not (tmp_path / "queue.db").exists()


@needs_redis
def test_a_queue_belongs_to_one_store(tmp_path: Path, prefix: str) -> None:
    """Another memory store on the same prefix is refused; the same one comes back."""
    for _ in range(2):
        build(settings(tmp_path / "one", prefix), start=False).close()
    with pytest.raises(ConfigError, match="belongs to the memory store"):
        build(settings(tmp_path / "two", prefix), start=False)


@needs_redis
def test_a_scheduler_configuration_asks_for_redis(tmp_path: Path, prefix: str) -> None:
    """`use_redis_queue` and `redis_config` of the documented configuration name the queue."""
    config = {
        "use_redis_queue": True,
        "redis_config": {"url": tests.services.redis_address().url, "prefix": prefix},
    }
    plain = Settings(home=tmp_path, models=ModelSettings(embedder="none"))
    with build(plain, start=False, scheduler=SchedulerConfigFactory("general_scheduler", config)) as runtime:
        assert isinstance(runtime.queue, RedisStreamsQueue)
        assert runtime.queue.prefix == prefix


def test_a_scheduler_configuration_with_a_wrong_address_is_refused(tmp_path: Path) -> None:
    """An unknown or impossible key of `redis_config` is a ConfigError that names it."""
    for wrong in ({"hots": "x"}, {"port": 0}, {"url": "redis://x", "host": "y"}):
        config = {"use_redis_queue": True, "redis_config": wrong}
        with pytest.raises(ConfigError, match="redis"):
            build(
                Settings(home=tmp_path),
                start=False,
                scheduler=SchedulerConfigFactory("general_scheduler", config),
            )


@pytest.mark.timeout(60)
def test_an_unreachable_redis_is_told_at_start(tmp_path: Path) -> None:
    """QueueUnavailable names the address, for a closed port and for a server that never answers."""
    with socket.socket() as closed, socket.socket() as silent:
        for one in (closed, silent):
            one.bind(("127.0.0.1", 0))
        silent.listen()  # takes connections and never answers
        for port in (closed.getsockname()[1], silent.getsockname()[1]):
            asked = QueueSettings(use_redis=True, redis_host="127.0.0.1", redis_port=port)
            with pytest.raises(QueueUnavailable, match=f"redis://127.0.0.1:{port}/0"):
                build(
                    Settings(home=tmp_path, queue=asked, models=ModelSettings(embedder="none")), start=False
                )


def test_two_ways_to_name_a_queue_must_agree() -> None:
    """The switch and the backend, a URL and its parts: what disagrees is refused."""
    assert QueueSettings(use_redis=True, backend="redis").effective_backend == "redis"
    assert QueueSettings(use_redis=False).effective_backend == "sqlite"
    for wrong in (
        {"use_redis": True, "backend": "sqlite"},
        {"use_redis": False, "backend": "redis"},
        {"redis_url": "redis://a", "redis_host": "b"},
        {"redis_prefix": "with space"},
        {"redis_prefix": "brace{d}"},
    ):
        with pytest.raises(ValidationError):
            QueueSettings(**wrong)  # type: ignore[arg-type]


def test_an_address_of_parts() -> None:
    """Any character of a password survives; nobody sees it in a message."""
    asked = QueueSettings(
        redis_host="::1",
        redis_port=7000,
        redis_db=3,
        redis_username="me",
        redis_password="p@ss/:#",
        redis_tls=True,
    )
    address = redis_address(Settings(queue=asked))
    assert address.url == "rediss://me:p%40ss%2F%3A%23@[::1]:7000/3"
    assert str(address) == "rediss://me:***@[::1]:7000/3"
    assert str(RedisAddress("redis://:secret@host/1")) == "redis://:***@host/1"
