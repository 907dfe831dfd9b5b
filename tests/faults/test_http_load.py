"""Clients add over HTTP while the server is killed, or told to stop: every answered add is there once, and found."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from tests.services import drop_keys, redis_address, redis_is_there

CLIENTS = 8
START_S = 60.0


class Server:
    """`memos serve` on one port and one folder, however often it is started."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self.notices_kills = environment["MEMOS_QUEUE__BACKEND"] == "sqlite"
        self._environment = {**os.environ, **environment, "MEMOS_HOME": str(home)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "memos.cli", "serve", "--port", str(self.port)]
        with (self._home.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        until = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None and time.monotonic() < until, self.log()
            try:
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)

    def strike(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(60)

    def log(self) -> str:
        return (self._home.parent / "server.log").read_text()

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Clients:
    """Threads that add, each for a user of its own, one text never twice."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self.answered: list[tuple[str, str]] = []
        self.errors: list[httpx.TransportError] = []
        self.refused: list[str] = []  # answers that are no 200
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + START_S
        while len(self.answered) < count:
            assert time.monotonic() < until and not self.refused, (len(self.answered), self.refused)
            time.sleep(0.005)

    def _work(self, number: int) -> None:
        user, turn = f"user-{number}", 0
        with httpx.Client(base_url=self._server.url, timeout=60) as client:
            while not self._over.is_set():
                turn += 1
                text = f"Entry {number}-{turn} of the log: kettle mark{number}x{turn}."
                body = {"user_id": user, "messages": [{"role": "user", "content": text}]}
                try:
                    answer = client.post("/product/add", json=body)
                except httpx.TransportError as error:
                    self.errors.append(error)
                    self._over.wait(0.02)
                    continue
                if answer.status_code == 200:
                    self.answered.append((user, text))
                else:
                    self.refused.append(answer.text)


@pytest.fixture(params=["sqlite", "redis"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    environment = {"MEMOS_MODELS__EMBEDDER": "none", "MEMOS_QUEUE__BACKEND": request.param}
    prefix = f"test-load-{uuid4().hex}"
    if request.param == "redis":
        if not redis_is_there():
            pytest.skip("no Redis answers")
        environment |= {
            "MEMOS_QUEUE__REDIS_URL": redis_address().url,
            "MEMOS_QUEUE__REDIS_PREFIX": prefix,
        }
    made = Server(tmp_path / "home", environment)
    made.start()
    yield made
    made.end()
    if request.param == "redis":
        drop_keys(redis_address(), prefix)


def check(server: Server, answered: list[tuple[str, str]], *, all_read: bool = True) -> None:
    """Each answered add is listed once, found by a search for what it alone says, and read in the end."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        listed: Counter[tuple[str, str]] = Counter()
        for number in range(CLIENTS):
            user = f"user-{number}"
            [bucket] = client.post("/product/get_memory", json={"mem_cube_id": user}).json()["data"][
                "text_mem"
            ]
            listed.update((user, one["memory"]) for one in bucket["memories"])
        assert {one: listed[one] for one in answered if listed[one] != 1} == {}
        assert max(listed.values()) == 1  # nor anything that was not answered
        for user, text in answered[:: max(1, len(answered) // 20)]:
            body = {"user_id": user, "query": text.split()[-1].rstrip("."), "relativity": 0}
            found = client.post("/product/search", json=body).json()["data"]["text_mem"]
            assert text in [one["memory"] for part in found for one in part["memories"]]
        for number in range(CLIENTS if all_read else 0):
            idle = client.post("/product/scheduler/wait", params={"user_name": f"user-{number}"}).json()
            assert idle["message"] == "idle"
        counts = client.get("/product/scheduler/allstatus").json()["data"]["all_tasks_summary"]
        assert counts["failed"] == 0
        assert not all_read or counts["completed"] >= len(answered)


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_killed_server_keeps_every_answered_add(server: Server, kills: int) -> None:
    """SIGKILL in the middle of requests, several times: what was answered 200 is there exactly once."""
    chance = random.Random(7)
    with Clients(server) as clients:
        for _ in range(kills):
            clients.wait_for(len(clients.answered) + 30)
            time.sleep(chance.uniform(0, 0.05))
            server.strike(signal.SIGKILL)
            server.start()
        clients.wait_for(len(clients.answered) + 20)
    assert clients.errors  # the kills struck requests
    assert clients.refused == []
    # On Redis the leases of the killed one last for 30 s: the long run waits for them.
    check(server, clients.answered, all_read=server.notices_kills or kills > 2)


def test_a_stopped_server_breaks_no_request(server: Server) -> None:
    """SIGTERM under load: every request is answered until the listener is closed, after which connections are
    refused; nothing is lost."""
    with Clients(server) as clients:
        clients.wait_for(60)
        server.strike(signal.SIGTERM)
        before = list(clients.answered)
        server.start()
        clients.wait_for(len(before) + 20)
    broken = [repr(error) for error in clients.errors if not isinstance(error, httpx.ConnectError)]
    assert broken == [] and clients.refused == []
    assert clients.errors  # refused while nobody listened
    check(server, clients.answered)
