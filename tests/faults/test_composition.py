"""The parts of `deploy/compose.yaml`, started without containers: they find one another, work, and are replaced
one by one under load without an error of a client or a loss."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.composed import FILLED, composed
from tests.postgres import PrivatePostgres, required

ROOMY_S = 90.0
CLIENTS = 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + ROOMY_S
    while not true():
        assert time.monotonic() < deadline, f"not {what}"
        time.sleep(0.05)


class Part:
    """One container's process: the service's own command and settings, with hosts and ports of this machine."""

    def __init__(self, name: str, environment: dict[str, str], *, port: int, home: Path, log: Path) -> None:
        self.port = port
        self._log = log
        service = composed()["services"][name]
        self._environment = {**os.environ, **service["environment"], **environment, "MEMOS_HOME": str(home)}
        self._command = [sys.executable, "-m", "memos.cli", *service["command"]]
        if name == "api":
            self._environment |= {"MEMOS_API__PORT": str(port), "MEMOS_API__HOST": "127.0.0.1"}
        if name == "worker":
            given = {"0.0.0.0": "127.0.0.1", "9000": str(port)}
            self._command = [given.get(word, word) for word in self._command]
        self.process: subprocess.Popen[bytes] | None = None
        self._page = "/ready" if name == "api" else "/metrics"

    def start(self) -> None:
        self.begin()
        until(self._answers, "ready: " + self._log.read_text())

    def begin(self) -> None:
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self._log.read_text()
        try:
            return self.get(self._page).status_code == 200
        except httpx.TransportError:
            return False

    def get(self, page: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{page}", timeout=10, trust_env=False)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ROOMY_S)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[dict[str, list[Part]]]:
    """Redis with the options of the composition, PostgreSQL with pgvector, two servers, two workers."""
    if shutil.which("redis-server") is None and not required():
        pytest.skip("no redis-server on PATH")
    with ExitStack() as opened:
        try:
            postgres = PrivatePostgres()
        except ImportError as error:
            if required():
                raise
            pytest.skip(str(error))
        opened.callback(postgres.close)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE memos SUPERUSER LOGIN PASSWORD '{FILLED['POSTGRES_PASSWORD']}'")
            connection.execute("CREATE DATABASE memos OWNER memos")
        redis_port = free_port()
        kept = composed()["services"]["redis"]["command"]
        (tmp_path / "redis").mkdir()
        redis = subprocess.Popen(
            [*kept, "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(tmp_path / "redis")],
            stdout=subprocess.DEVNULL,
        )
        opened.callback(redis.wait)
        opened.callback(redis.kill)
        url = composed()["services"]["api"]["environment"]["MEMOS_STORE__URL"]
        environment = {
            "MEMOS_STORE__URL": url.replace("postgres:5432", f"127.0.0.1:{postgres.port}"),
            "MEMSCHEDULER_REDIS_HOST": "127.0.0.1",
            "MEMSCHEDULER_REDIS_PORT": str(redis_port),
            "MEMOS_MODELS__EMBEDDER": "none",
        }
        migrate = Part("migrate", environment, port=0, home=tmp_path, log=tmp_path / "migrate.log")
        migrate.begin()
        assert migrate.process is not None
        assert migrate.process.wait(ROOMY_S) == 0, (tmp_path / "migrate.log").read_text()
        made: dict[str, list[Part]] = {"api": [], "worker": []}
        for name in ("api", "worker", "api", "worker"):
            log = tmp_path / f"{name}-{len(made[name])}.log"
            part = Part(name, environment, port=free_port(), home=tmp_path / "home", log=log)
            opened.callback(part.end)
            part.start()
            made[name].append(part)
        yield made


class Clients:
    """Threads that add through whichever server listens, as behind a balancer. A refused connection goes to the
    other server; anything else that is not a 200 is an error."""

    def __init__(self, servers: list[Part]) -> None:
        self._servers = servers
        self._over = threading.Event()
        self.answered: list[tuple[str, str]] = []
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.answered) + count
        until(lambda: self.errors or len(self.answered) >= wanted, "answered")

    def _work(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {FILLED['MEMOS_API__KEY']}"}
        turn = 0
        while not self._over.is_set():
            turn += 1
            text = f"My kettle number {number}-{turn} is called mark{number}x{turn}."
            body = {"user_id": f"user-{number}", "messages": [{"role": "user", "content": text}]}
            for attempt in range(200):
                server = self._servers[(number + turn + attempt) % len(self._servers)]
                address = f"http://127.0.0.1:{server.port}/product/add"
                try:
                    answer = httpx.post(address, json=body, headers=headers, timeout=60, trust_env=False)
                except httpx.ConnectError:
                    time.sleep(0.02)
                    continue
                except httpx.TransportError as error:
                    self.errors.append(repr(error))
                    return
                if answer.status_code == 200:
                    self.answered.append((f"user-{number}", text))
                else:
                    self.errors.append(f"{answer.status_code} {answer.text[:300]}")
                break
            else:
                self.errors.append("no server listens")
                return


@pytest.mark.timeout(300)
def test_a_rolling_restart_loses_nothing_and_no_client_sees_an_error(parts: dict[str, list[Part]]) -> None:
    """Each server and worker is told to stop and started again while clients add: no error, every answered add is
    stored once, every task is done."""
    with Clients(parts["api"]) as clients:
        for part in (parts["api"][0], parts["worker"][0], parts["api"][1], parts["worker"][1]):
            clients.wait_for_more(15)
            assert part.stop() == 0
            clients.wait_for_more(15)
            part.start()
    assert clients.errors == []
    headers = {"Authorization": f"Bearer {FILLED['MEMOS_API__KEY']}"}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{parts['api'][1].port}", headers=headers, timeout=60, trust_env=False
    ) as client:

        def left() -> dict[str, float]:
            page = client.get("/metrics").text
            found = re.findall(r'^memos_queue_messages\{label="(\w+)",state="\w+"\} (\S+)$', page, re.M)
            return {label: float(count) for label, count in found if float(count)}

        until(lambda: not left(), "done by the workers")
        assert re.search(r"^memos_dead_letters 0\.0$", client.get("/metrics").text, re.M)
        for user in {user for user, _ in clients.answered}:
            asked = {"mem_cube_id": user, "page_size": 1_000, "page": 1}
            told = client.post("/product/get_memory", json=asked).json()["data"]
            kept = Counter(one["memory"] for node in told["text_mem"] for one in node["memories"])
            mine = [text for owner, text in clients.answered if owner == user]
            assert all(kept[text] == 1 for text in mine), [text for text in mine if kept[text] != 1]
    ran = sum(
        float(count)
        for part in parts["worker"]
        for count in re.findall(
            r'^memos_tasks_settled_total\{.*state="completed"\} (\S+)$', part.get("/metrics").text, re.M
        )
    )
    assert ran > 0  # the workers did it: the servers' own schedulers are off
