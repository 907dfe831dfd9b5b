"""Where the Redis rows run: a private redis-server, or the one that BENCH_REDIS_URL names.

Every run has a key prefix of its own, and takes away what it left.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memos.chaos.redis_server import PrivateRedis, find_server, parts_of
from memos.runtime import Runtime, build
from memos.settings import Settings

URL_NAME = "BENCH_REDIS_URL"


@dataclass(frozen=True)
class Site:
    """A server and a prefix. `client` is redis-py's, with hiredis as in production."""

    host: str
    port: int
    prefix: str
    client: Any
    server: str  # name and version
    home: Path  # one memory store for all runtimes: a queue belongs to one

    @property
    def environment(self) -> dict[str, str]:
        """The settings that lead there."""
        return {
            "MOS_SCHEDULER_USE_REDIS_QUEUE": "true",
            "MEMSCHEDULER_REDIS_HOST": self.host,
            "MEMSCHEDULER_REDIS_PORT": str(self.port),
            "MEMSCHEDULER_REDIS_STREAM_KEY_PREFIX": self.prefix,
            "MEMOS_HOME": str(self.home),
            "MEMOS_MODELS__EMBEDDER": "none",
        }

    def left(self) -> list[bytes]:
        """All keys under the prefix."""
        return list(self.client.scan_iter(match=f"{self.prefix}*", count=1_000))

    def wipe(self) -> None:
        keys = self.left()
        for at in range(0, len(keys), 1_000):
            self.client.unlink(*keys[at : at + 1_000])


@contextlib.contextmanager
def redis_site() -> Iterator[Site | str]:
    """A site, or why there is none."""
    try:
        import redis
    except ImportError:
        yield "needs the extra `redis`"
        return
    with contextlib.ExitStack() as opened:
        url = os.environ.get(URL_NAME)
        if url is None:
            if find_server() is None:
                yield f"no redis-server on PATH and no {URL_NAME}"
                return
            url = opened.enter_context(PrivateRedis(aof=False)).url
        host, port = parts_of(url)
        client = opened.enter_context(redis.Redis(host=host, port=port))
        home = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        prefix = f"bench-{uuid.uuid4().hex[:8]}"
        site = Site(host, port, prefix, client, _name(client.info("server")), home)
        opened.callback(site.wipe)
        with environment(site.environment):
            yield site


@contextlib.contextmanager
def environment(wanted: dict[str, str]) -> Iterator[None]:
    """These variables for the length of the block."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def redis_runtime(*, start: bool = False) -> Runtime:
    """A whole runtime over the site's queue, as production builds it. Close it, or use `with`."""
    return build(Settings.load(), start=start)


def _name(server: dict[str, Any]) -> str:
    valkey = server.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {server['redis_version']}"
