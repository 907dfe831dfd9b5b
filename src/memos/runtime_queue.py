"""Which queue stands behind the port: a part of the composition root with a file of its own.

The settings name a backend; a scheduler configuration may change that. `redis` is loaded only where it
is asked for.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from memos.clock import Clock
from memos.errors import ConfigError, MemosError
from memos.settings import QueueSettings, Settings

if TYPE_CHECKING:
    from memos.configs.mem_scheduler import GeneralSchedulerConfig
    from memos.mem_scheduler.queues.base import TaskQueue
    from memos.mem_scheduler.queues.redis_streams import RedisAddress
    from memos.memory.store import MemoryStore

_ADDRESS = frozenset(
    {"redis_url", "redis_host", "redis_port", "redis_db", "redis_username", "redis_password", "redis_tls"}
)


def build_queue(settings: Settings, clock: Clock, store: MemoryStore) -> TaskQueue:
    """The queue that the settings ask for, on the store whose work it holds. Raises ConfigError, QueueError."""
    chosen = settings.queue
    bounds: dict[str, Any] = {
        "messages_max": chosen.messages_max,
        "lane_messages_max": chosen.lane_messages_max,
        "payload_bytes_max": chosen.payload_bytes_max,
        "dead_letters_max": chosen.dead_letters_max,
        "status_entries_max": chosen.status_entries_max,
        "idempotency_keys_max": chosen.idempotency_keys_max,
        "idempotency_ttl_s": chosen.idempotency_ttl_s,
        "user_batches_max": chosen.user_batches_max,
        "weights": chosen.user_weights,
        "name": settings.scheduler.name,
    }
    if chosen.effective_backend == "local":
        from memos.mem_scheduler.queues.local import LocalQueue

        return LocalQueue(clock=clock, random=random.Random(), **bounds)
    if chosen.effective_backend == "redis":
        from memos.mem_scheduler.queues.redis_streams import open_redis_queue

        queue = open_redis_queue(
            redis_address(settings),
            clock=clock,
            shards=chosen.shards,
            prefix=chosen.redis_prefix,
            reconnect_s=chosen.redis_reconnect_s,
            wait_replicas=chosen.redis_wait_replicas,
            wait_replicas_s=chosen.redis_wait_replicas_s,
            random=random.Random(),
            **bounds,
        )
        try:
            queue.bind_store(store.store_id)
        except MemosError:
            queue.close()
            raise
        return queue
    from memos.mem_scheduler.queues.sqlite import SqliteQueue

    return SqliteQueue(
        settings.queue_path,
        clock=clock,
        busy_timeout_s=settings.store.busy_timeout_s,
        random=random.Random(),
        **bounds,
    )


def redis_address(settings: Settings) -> RedisAddress:
    """Where the settings say that Redis is. Raises ConfigError when its package is missing."""
    from memos.mem_scheduler.queues.redis_streams.connection import RedisAddress, redis_url

    chosen = settings.queue
    password = chosen.redis_password
    url = (
        chosen.redis_url.get_secret_value()
        if chosen.redis_url is not None
        else redis_url(
            host=chosen.redis_host,
            port=chosen.redis_port,
            db=chosen.redis_db,
            username=chosen.redis_username,
            password=None if password is None else password.get_secret_value(),
            tls=chosen.redis_tls,
        )
    )
    return RedisAddress(
        url,
        ca_certs=None if chosen.redis_ca_certs is None else str(chosen.redis_ca_certs),
        connect_timeout_s=chosen.redis_connect_timeout_s,
        timeout_s=chosen.redis_timeout_s,
    )


def queue_following(queue: QueueSettings, config: GeneralSchedulerConfig) -> QueueSettings:
    """The queue's settings as a scheduler configuration changes them."""
    given = queue.model_dump(exclude_unset=True)
    if "use_redis_queue" in config.model_fields_set:
        given.pop("use_redis", None)
        if config.use_redis_queue:
            given["backend"] = "redis"
            keys = {key if key.startswith("redis_") else f"redis_{key}" for key in config.redis_config}
            if "redis_url" in keys:  # the whole address of the settings gives way to it
                given = {name: value for name, value in given.items() if name not in _ADDRESS}
            for key, value in config.redis_config.items():
                given[key if key.startswith("redis_") else f"redis_{key}"] = value
        elif given.get("backend") == "redis":
            del given["backend"]
    if config.queue_size is not None:
        given["lane_messages_max"] = config.queue_size
    try:
        return type(queue)(**given)
    except ValidationError as error:
        raise ConfigError(f"redis_config cannot work: {error}") from error


def redis_client(queue: TaskQueue) -> Any:
    """The documented `redis_client`: None without the Redis queue."""
    if "memos.mem_scheduler.queues.redis_streams" not in sys.modules:
        return None
    from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue, ShardedQueue

    return queue.shared_client if isinstance(queue, RedisStreamsQueue | ShardedQueue) else None
