"""The ways to a server: users, TLS, Sentinel, a socket, a restart; each on a private redis-server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tests.services

from memos.clock import SystemClock
from memos.errors import ConfigError, QueueFull, QueueUnavailable
from memos.mem_scheduler.queues.base import Done
from memos.mem_scheduler.queues.redis_streams import RedisAddress, RedisStreamsQueue
from memos.mem_scheduler.queues.redis_streams.connection import connect
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

pytestmark = pytest.mark.skipif(not tests.services.private_redis_is_there(), reason="no redis-server on PATH")


@pytest.fixture
def server() -> Iterator[tests.services.PrivateRedis]:
    started = tests.services.PrivateRedis(options=("--appendfsync", "always"))
    yield started
    started.close()


def message(content: str = "x") -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id="u", mem_cube_id="c", label="query", content=content)


def runs(queue: RedisStreamsQueue) -> bool:
    """Whether a message goes all the way through."""
    keys = queue.submit([message()])
    (batch,) = queue.claim({"query"}, lanes_max=1, timeout_s=5.0)
    queue.finish(batch, [Done()])
    return [delivery.key for delivery in batch.deliveries] == keys


def test_a_user_with_no_more_than_it_needs(server: tests.services.PrivateRedis) -> None:
    """The documented rights are enough; a wrong password and missing rights are ConfigErrors at start."""
    rights = ["+@read", "+@write", "+@scripting", "+@pubsub", "+@connection", "+@transaction", "+time"]
    server.client.execute_command(
        "ACL", "SETUSER", "worker", "on", ">se/cr:et", "~mine:*", "&mine:*", *rights, "-@dangerous"
    )
    address = RedisAddress(f"redis://worker:se%2Fcr%3Aet@127.0.0.1:{server.port}/0")
    with RedisStreamsQueue(address, clock=SystemClock(), prefix="mine") as queue:
        assert runs(queue)
        assert queue.clear() == 0
    with pytest.raises(ConfigError, match="refuses this user"):
        RedisStreamsQueue(address, clock=SystemClock(), prefix="foreign").submit([message()])
    wrong = RedisAddress(f"redis://worker:nope@127.0.0.1:{server.port}/0")
    with pytest.raises(ConfigError, match="refuses this user"):
        RedisStreamsQueue(wrong, clock=SystemClock(), prefix="mine")


def test_tls_checks_the_servers_certificate(tmp_path: Path) -> None:
    """With the authority's certificate the queue works; without it the server is refused."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        *("--tls-port", str(port), "--tls-cert-file", str(tmp_path / "cert.pem")),
        *("--tls-key-file", str(tmp_path / "key.pem"), "--tls-ca-cert-file", str(tmp_path / "cert.pem")),
        *("--tls-auth-clients", "no"),
    ]
    server = tests.services.PrivateRedis(options=tuple(options))
    try:
        url = f"rediss://127.0.0.1:{port}/0"
        with RedisStreamsQueue(
            RedisAddress(url, ca_certs=str(tmp_path / "cert.pem")), clock=SystemClock()
        ) as queue:
            assert runs(queue)
        with pytest.raises(QueueUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            RedisStreamsQueue(RedisAddress(url), clock=SystemClock())
    finally:
        server.close()


def test_sentinel_names_the_server(server: tests.services.PrivateRedis, tmp_path: Path) -> None:
    """The address of a service is asked of the sentinels; one that knows no such service is told."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {server.port} 1\n")
    sentinel = subprocess.Popen(
        ["redis-server", str(config), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _until_listening(port)
        # the first sentinel is away: the second answers
        address = RedisAddress(f"redis+sentinel://127.0.0.1:9,127.0.0.1:{port}/main/0")
        with RedisStreamsQueue(address, clock=SystemClock()) as queue:
            assert runs(queue)
        with pytest.raises(QueueUnavailable, match="nobody"):
            RedisStreamsQueue(
                RedisAddress(f"redis+sentinel://127.0.0.1:{port}/nobody/0"), clock=SystemClock()
            )
    finally:
        sentinel.kill()
        sentinel.wait()


def _until_listening(port: int) -> None:
    deadline = time.monotonic() + 10.0
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "the sentinel does not listen"
        time.sleep(0.02)


def test_a_unix_socket(tmp_path: Path) -> None:
    """A server without a port is reached by its socket."""
    path = tmp_path / "r.sock"
    server = tests.services.PrivateRedis(options=("--unixsocket", str(path)))
    try:
        with RedisStreamsQueue(RedisAddress(f"unix://{path}?db=0"), clock=SystemClock()) as queue:
            assert runs(queue)
    finally:
        server.close()


@pytest.mark.parametrize(
    "url",
    ["http://x", "localhost:6379", "redis+sentinel://host", "redis+sentinel:///main", "redis://h/notanumber"],
)
def test_an_address_that_cannot_work_is_refused(url: str) -> None:
    """ConfigError, before anything is sent."""
    with pytest.raises(ConfigError, match=r"Redis URL|names no service"):
        connect(RedisAddress(url))


def test_a_killed_server_that_comes_back_loses_nothing(server: tests.services.PrivateRedis) -> None:
    """Calls wait for it; what was acknowledged is there; who waited for work gets the next message."""
    with RedisStreamsQueue(server.address, clock=SystemClock(), reconnect_s=30.0) as queue:
        keys = queue.submit([message(), message()])
        (held,) = queue.claim({"query"}, lanes_max=1, batch_max=1, timeout_s=0)
        server.kill()
        back = threading.Timer(0.5, server.start)
        back.start()
        keys += queue.submit([message("while it is away")])  # waits for the server
        back.join()
        queue.finish(held, [Done()])
        ran = [held.deliveries[0].key]
        while batches := queue.claim({"query"}, lanes_max=1, timeout_s=0):
            for batch in batches:
                ran += [delivery.key for delivery in batch.deliveries]
                queue.finish(batch, [Done()] * len(batch.deliveries))
        assert ran == keys
        found: list[str] = []
        waiting = threading.Thread(
            target=lambda: found.extend(
                d.key for b in queue.claim({"query"}, lanes_max=1, timeout_s=30.0) for d in b.deliveries
            )
        )
        waiting.start()
        server.kill()
        server.start()
        assert queue.submit([message()]) == (waiting.join(30.0) or found)


def test_a_full_server_refuses_new_work_and_can_be_drained(server: tests.services.PrivateRedis) -> None:
    """With noeviction a submit is QueueFull; claim and finish go on, and room comes back."""
    with RedisStreamsQueue(server.address, clock=SystemClock()) as queue:
        queue.submit([message("y" * 100_000) for _ in range(20)])
        server.client.config_set("maxmemory", "1mb")
        with pytest.raises(QueueFull, match="out of memory"):
            queue.submit([message()])
        done = 0
        while batches := queue.claim({"query"}, lanes_max=1, timeout_s=0):
            for batch in batches:
                queue.finish(batch, [Done()] * len(batch.deliveries))
                done += len(batch.deliveries)
        assert done == 20
        server.client.config_set("maxmemory", "0")
        assert runs(queue)
