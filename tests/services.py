"""The servers that tests use: where they are, and what to do when they are not there.

A missing service skips on a laptop, with the reason, and fails where `MEMOS_TESTS_REQUIRE_SERVICES` is
set. The address of Redis is `MEMOS_TESTS_REDIS_URL`, by default the loopback. Tests that kill or restart a
server start one of their own (`PrivateRedis`).
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from memos.mem_scheduler.queues.redis_streams import RedisAddress

START_S = 10.0


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


class PrivateRedis:
    """A redis-server of a test's own, on a free port, that may be killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> RedisAddress:
        return RedisAddress(f"redis://127.0.0.1:{self.port}/0", connect_timeout_s=1.0, timeout_s=2.0)

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True)

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self._process = subprocess.Popen(
            [*command, "--save", "", *self.options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.client.ping()
                return
            except redis.exceptions.RedisError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.kill()


def private_redis_is_there() -> bool:
    """Whether a redis-server can be started; where services are required it must be."""
    found = shutil.which("redis-server") is not None
    if not found and os.environ.get("MEMOS_TESTS_REQUIRE_SERVICES"):
        raise RuntimeError("redis-server is not installed, and the services are required")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="memos-redis-"))
