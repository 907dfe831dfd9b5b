"""Whether the servers of a Redis queue keep what they are given: what `memos doctor` says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from memos.errors import QueueError
from memos.mem_scheduler.queues.redis_streams.cluster import Nodes, slot_of
from memos.mem_scheduler.queues.redis_streams.connection import RedisAddress, translated
from memos.mem_scheduler.queues.redis_streams.queue import RedisStreamsQueue
from memos.mem_scheduler.queues.redis_streams.shards import ShardedQueue


def examine(queue: RedisStreamsQueue | ShardedQueue) -> str:
    """Version, what a server does when memory is full, and how durable it is; of a cluster each node, and which
    shards it has.

    Raises QueueError when one may throw work away: any policy but noeviction lets a full server drop keys.
    """
    parts = queue.parts if isinstance(queue, ShardedQueue) else [queue]
    nodes = parts[0].nodes
    try:
        if nodes is not None:
            return "; ".join(_nodes(queue.address, nodes, [part.tag for part in parts]))
        said = _server(queue.client, str(queue.address))
    except (redis.exceptions.RedisError, OSError) as error:
        raise translated(error, queue.address) from error
    return said if len(parts) == 1 else f"{said}; {len(parts)} shards on this one server"


def _nodes(address: RedisAddress, nodes: Nodes, tags: list[str]) -> Iterator[str]:
    places = {tag: nodes.place_of(slot_of(f"{{{tag}}}")) for tag in tags}
    used = sorted(set(places.values()))
    yield f"{len(tags)} shards on {len(used)} of {len(nodes.primaries())} nodes of {address}"
    for host, port in used:
        client = nodes.client_at(host, port)
        try:
            said = _server(client, f"{host}:{port}")
            whole = _needs_all(client)
        finally:
            client.close()
        own = ", ".join(
            f"{tag} (slot {slot_of(f'{{{tag}}}')})" for tag in tags if places[tag] == (host, port)
        )
        note = " (cluster-require-full-coverage yes: one node that is lost stops them all)" if whole else ""
        yield f"{own}: {said}{note}"


def _needs_all(client: redis.Redis) -> bool:
    try:
        found: Any = client.config_get("cluster-require-full-coverage")
    except redis.exceptions.NoPermissionError:
        return False
    return bool(found.get("cluster-require-full-coverage") == "yes")


def _server(client: redis.Redis, place: str) -> str:
    try:
        found: Any = client.info("everything")
    except redis.exceptions.NoPermissionError:
        return f"{place}, not examined: its user lacks INFO"
    name = "Valkey" if found.get("server_name") == "valkey" else "Redis"
    version = found.get("valkey_version") or found.get("redis_version")
    policy = found.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise QueueError(
            f"{name} at {place} has maxmemory-policy {policy}: when its memory is full it throws work "
            "away; set maxmemory-policy noeviction"
        )
    return f"{name} {version} at {place}, noeviction, {_durability(found)}"


def _durability(found: dict[str, Any]) -> str:
    if int(found.get("aof_enabled", 0)):
        return "append-only file on"
    if int(found.get("rdb_last_save_time", 0)) and int(found.get("rdb_saves", 0)):
        return "snapshots only: a crash takes what came since the last one (appendonly yes keeps it)"
    return "no append-only file: a restart of the server takes all work (appendonly yes keeps it)"
