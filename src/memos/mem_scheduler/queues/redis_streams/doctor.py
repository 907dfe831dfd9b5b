"""Whether a Redis server keeps what it is given: what `memos doctor` says of it."""

from __future__ import annotations

from typing import Any

import redis

from memos.errors import QueueError
from memos.mem_scheduler.queues.redis_streams.connection import translated
from memos.mem_scheduler.queues.redis_streams.queue import RedisStreamsQueue


def examine(queue: RedisStreamsQueue) -> str:
    """Version, what it does when memory is full, and how durable it is, in a line.

    Raises QueueError when it may throw work away: any policy but noeviction lets a full server drop keys.
    """
    try:
        found: Any = queue.client.info("everything")
    except redis.exceptions.NoPermissionError:
        return f"{queue.address}, not examined: its user lacks INFO"
    except (redis.exceptions.RedisError, OSError) as error:
        raise translated(error, queue.address) from error
    name = "Valkey" if found.get("server_name") == "valkey" else "Redis"
    version = found.get("valkey_version") or found.get("redis_version")
    policy = found.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise QueueError(
            f"{name} at {queue.address} has maxmemory-policy {policy}: when its memory is full it throws work "
            "away; set maxmemory-policy noeviction"
        )
    return f"{name} {version} at {queue.address}, noeviction, {_durability(found)}"


def _durability(found: dict[str, Any]) -> str:
    if int(found.get("aof_enabled", 0)):
        return "append-only file on"
    if int(found.get("rdb_last_save_time", 0)) and int(found.get("rdb_saves", 0)):
        return "snapshots only: a crash takes what came since the last one (appendonly yes keeps it)"
    return "no append-only file: a restart of the server takes all work (appendonly yes keeps it)"
