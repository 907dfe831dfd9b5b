"""Redis Cluster: which node has the keys of a tag, and a client that goes there.

All keys of a tag are in one slot, so a script finds them on one node, and a client that follows that slot is
all a shard needs. Which node has it is asked of the cluster (by redis-py) when a connection is made; after an
error the connections are dropped and the cluster is asked again: a failover, a slot that has moved.

ASK is not followed, but waited out. While a slot moves, some of its keys are here and some there. A script would
find half of them on either node, take the others for empty, and write what it made of that. The node refuses
the first key that a script names: that is the base of all keys, under which nothing ever stands, so every
script is refused before its first step, from the first key that moves to the last. Calls wait for the end of it
as they wait for a server that is away, at most `reconnect_s`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot

from memos.mem_scheduler.queues.redis_streams.connection import RedisAddress, cluster_options

LOOK_S = 0.05  # between two questions for the nodes
_NOWHERE = "node.invalid"  # until the cluster is asked; not redis-py's default, which is some other server


class Nodes:
    """The nodes of a cluster, as they were last told. Thread-safe; nothing is sent before the first connection."""

    def __init__(self, address: RedisAddress) -> None:
        """Raises ConfigError for a URL that cannot work."""
        self.address = address
        self._seeds = address.seeds
        self._options = cluster_options(address)
        self._lock = threading.Lock()
        self._cluster: RedisCluster | None = None
        self._asked_at = 0.0

    def client_of(self, key: str) -> redis.Redis:
        """A client that always speaks to the node that has `key`, of keys with its tag alone."""
        options = dict(self._options)
        kind = _SecureLine if options.pop("ssl", False) else _Line
        pool = redis.ConnectionPool(connection_class=kind, nodes=self, slot=slot_of(key), **options)
        return redis.Redis(connection_pool=pool)

    def whole(self) -> RedisCluster:
        """A client for any key of the cluster, which follows whatever moves, for other programs."""
        options = {name: value for name, value in self._options.items() if name != "retry"}
        return self._made(options)

    def place_of(self, slot: int) -> tuple[str, int]:
        """Host and port of the node that has the slot. Raises what redis-py raises."""
        try:
            node = self._known().get_node_from_slot(slot)
        except redis.exceptions.RedisClusterException as error:
            raise redis.exceptions.ConnectionError(f"slot {slot}: {error}") from error
        return str(node.host), int(node.port)

    def primaries(self) -> list[tuple[str, int]]:
        """Host and port of each node that has slots. Raises what redis-py raises."""
        found = {
            (str(node.host), int(node.port)) for node in self._known().get_nodes_by_server_type("primary")
        }
        return sorted(found)

    def client_at(self, host: str, port: int) -> redis.Redis:
        """A client of one node."""
        return redis.Redis(host=host, port=port, **self._options)

    def look_again(self, error: Exception) -> None:
        """After `error`: ask the cluster who has what, unless that was asked just now."""
        with self._lock:
            cluster, now = self._cluster, time.monotonic()
            if cluster is None or now - self._asked_at < LOOK_S:
                return
            self._asked_at = now
        # Where no node answers what was known stays, and the next error comes back here.
        with contextlib.suppress(
            redis.exceptions.RedisClusterException, redis.exceptions.RedisError, OSError
        ):
            cluster.nodes_manager.initialize()

    def after_fork(self) -> None:
        """In the child: what a thread of the parent held locked stays so, and its connections are not ours."""
        self._lock = threading.Lock()
        self._cluster = None

    def _known(self) -> Any:
        with self._lock:
            if self._cluster is None:
                self._cluster = self._made(self._options)
                self._asked_at = time.monotonic()
            return self._cluster.nodes_manager

    def _made(self, options: dict[str, Any]) -> RedisCluster:
        try:
            return RedisCluster(
                startup_nodes=[ClusterNode(host, port) for host, port in self._seeds],
                require_full_coverage=False,
                **options,
            )
        except redis.exceptions.RedisClusterException as error:
            refused = _refusal(error)
            if refused is not None:
                raise refused from error
            raise redis.exceptions.ConnectionError(f"no node of the cluster answers: {error}") from error


def _refusal(error: BaseException) -> redis.exceptions.RedisError | None:
    """The error behind that waiting does not mend: a user that is not let in."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


class _Line(redis.Connection):
    """A connection to whichever node has a slot at the moment it is made."""

    def __init__(self, *, nodes: Nodes, slot: int, **options: Any) -> None:
        self._nodes, self._slot = nodes, slot
        parent: Any = super()
        parent.__init__(host=_NOWHERE, **options)

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        """Every way to a connection comes through here."""
        if self._sock is None:
            self.host, self.port = self._nodes.place_of(self._slot)
        parent: Any = super()
        parent.connect_check_health(*args, **kwargs)


class _SecureLine(redis.SSLConnection):
    """The same with TLS."""

    def __init__(self, *, nodes: Nodes, slot: int, **options: Any) -> None:
        self._nodes, self._slot = nodes, slot
        parent: Any = super()
        parent.__init__(host=_NOWHERE, **options)

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if self._sock is None:
            self.host, self.port = self._nodes.place_of(self._slot)
        parent: Any = super()
        parent.connect_check_health(*args, **kwargs)


def slot_of(key: str) -> int:
    """The slot of a key, by its tag."""
    return int(key_slot(key.encode()))
