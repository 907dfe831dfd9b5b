"""Where the processes run: on every backend that several processes can share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.processes import Site

from memos.chaos.nursery import Nursery
from memos.chaos.redis_server import PrivateRedis


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """One nursery for all tests: it imports once."""
    with Nursery() as made:
        yield made


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateRedis]:
    """A redis-server of the tests' own, with its append-only file on."""
    if shutil.which("redis-server") is None and not os.environ.get("MEMOS_TESTS_REQUIRE_SERVICES"):
        pytest.skip("no redis-server on PATH")
    with PrivateRedis(aof=True) as made:
        yield made


@pytest.fixture(params=["sqlite", "redis"])
def site(request: pytest.FixtureRequest, tmp_path: Path, nursery: Nursery) -> Iterator[Site]:
    """A run of its own; what is left of its processes ends with it."""
    if request.param == "sqlite":
        queue = {"MEMOS_QUEUE__BACKEND": "sqlite"}
    else:
        queue = redis_settings(request.getfixturevalue("server"), tmp_path)
    yield from made_site(tmp_path, nursery, queue)


def redis_settings(server: PrivateRedis, folder: Path) -> dict[str, str]:
    return {
        "MEMOS_QUEUE__BACKEND": "redis",
        "MEMSCHEDULER_REDIS_HOST": "127.0.0.1",
        "MEMSCHEDULER_REDIS_PORT": str(server.port),
        "MEMSCHEDULER_REDIS_STREAM_KEY_PREFIX": folder.name,
    }


def made_site(folder: Path, nursery: Nursery, queue: dict[str, str]) -> Iterator[Site]:
    made = Site(folder, nursery, queue)
    try:
        yield made
    finally:
        made.end()
