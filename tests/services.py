"""The servers that tests use: where they are, and what to do when they are not there.

A missing service skips on a laptop, with the reason, and fails where `MEMOS_TESTS_REQUIRE_SERVICES` is
set. The address of Redis is `MEMOS_TESTS_REDIS_URL`, by default the loopback. Tests that kill or restart a
server start one of their own (`PrivateRedis`).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable

import redis

import memos.chaos.redis_server
from memos.mem_scheduler.queues.redis_streams import RedisAddress


def redis_address() -> RedisAddress:
    return RedisAddress(os.environ.get("MEMOS_TESTS_REDIS_URL", "redis://127.0.0.1:6379/0"))


@functools.cache
def redis_is_there() -> bool:
    """Whether the Redis of the tests answers. Where services are required it must."""
    try:
        redis.Redis.from_url(redis_address().url, socket_connect_timeout=2).ping()
    except redis.exceptions.RedisError:
        if os.environ.get("MEMOS_TESTS_REQUIRE_SERVICES"):
            raise
        return False
    return True


def drop_keys(address: RedisAddress, prefix: str) -> None:
    """Remove everything under a test's own prefix."""
    client = redis.Redis.from_url(address.url)
    try:
        for key in client.scan_iter(f"{prefix}:*", count=1_000):
            client.unlink(key)
    except redis.exceptions.RedisError:
        pass  # the server of the test is gone, and its keys with it
    finally:
        client.close()


class PrivateRedis(memos.chaos.redis_server.PrivateRedis):
    """A redis-server of a test's own, on a free port, that may be killed and started again."""

    @property
    def address(self) -> RedisAddress:
        return RedisAddress(self.url, connect_timeout_s=1.0, timeout_s=2.0)

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True)


def private_redis_is_there() -> bool:
    """Whether a redis-server can be started; where services are required it must be."""
    found = memos.chaos.redis_server.find_server() is not None
    if not found and os.environ.get("MEMOS_TESTS_REQUIRE_SERVICES"):
        raise RuntimeError("redis-server is not installed, and the services are required")
    return found


class PrivateCluster:
    """Nodes of a Redis Cluster of a test's own, on free ports: three primaries, with a replica each where asked."""

    PRIMARIES = 3
    SLOTS = 16_384
    READY_S = 20.0

    def __init__(self, *, replicas: bool = False) -> None:
        self.nodes: list[PrivateRedis] = []
        try:
            count = self.PRIMARIES * (2 if replicas else 1)
            buses = [memos.chaos.redis_server.free_port() for _ in range(count)]
            for number in range(count):
                self.nodes.append(PrivateRedis(options=self._options(buses[number])))
            self._join(buses)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _options(bus: int) -> tuple[str, ...]:
        return (
            *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
            *("--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
        )

    def _join(self, buses: list[int]) -> None:
        each = -(-self.SLOTS // self.PRIMARIES)
        for number, node in enumerate(self.nodes):
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < self.PRIMARIES:
                last = min(self.SLOTS, (number + 1) * each) - 1
                node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * each, last)
            if number:
                first = self.nodes[0].client
                first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, buses[number])
        self.wait(lambda: all(self._knows(node) == len(self.nodes) for node in self.nodes))
        for number, node in enumerate(self.nodes[self.PRIMARIES :]):
            primary = self.nodes[number].client.execute_command("CLUSTER", "MYID")
            node.client.execute_command("CLUSTER", "REPLICATE", primary)
        self.wait(lambda: all(self._info(node)["cluster_state"] == "ok" for node in self.nodes))
        if len(self.nodes) > self.PRIMARIES:
            self.wait(
                lambda: all(
                    node.client.info("replication")["master_link_status"] == "up"
                    for node in self.nodes[self.PRIMARIES :]
                )
            )

    def _knows(self, node: PrivateRedis) -> int:
        return int(self._info(node)["cluster_known_nodes"])

    @staticmethod
    def _info(node: PrivateRedis) -> dict[str, str]:
        found: dict[str, str] = node.client.execute_command("CLUSTER INFO")
        return found

    def wait(self, holds: Callable[[], bool]) -> None:
        """Until that holds."""
        deadline = time.monotonic() + self.READY_S
        while not holds():
            assert time.monotonic() < deadline, "the cluster does not come to be what it should"
            time.sleep(0.02)

    @property
    def address(self) -> RedisAddress:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return RedisAddress(f"redis+cluster://{hosts}", connect_timeout_s=1.0, timeout_s=2.0)

    def node_at(self, port: int) -> PrivateRedis:
        return next(node for node in self.nodes if node.port == port)

    def flush(self) -> None:
        """Take everything out, for the next test."""
        for node in self.nodes[: self.PRIMARIES]:
            node.client.flushall()

    def close(self) -> None:
        for node in self.nodes:
            node.close()
