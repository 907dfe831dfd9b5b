"""The servers that tests use: where they are, and what to do when they are not there.

A missing service skips on a laptop, with the reason, and fails where `MEMOS_TESTS_REQUIRE_SERVICES` is
set. The address of Redis is `MEMOS_TESTS_REDIS_URL`, by default the loopback. Tests that kill or restart a
server start one of their own (`PrivateRedis`).
"""

from __future__ import annotations

import functools
import os

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
