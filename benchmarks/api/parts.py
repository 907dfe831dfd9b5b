"""The processes of an installation: a server with everything in it, or servers, workers, Redis and PostgreSQL.

Redis keeps an append-only file as `deploy/compose.yaml` has it, PostgreSQL has fsync on and the settings of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.postgres_server import PrivatePostgres
from benchmarks.processes import all_cpu_s, cpu_s
from memos.chaos.redis_server import PrivateRedis, free_port

START_S = 120.0
REDIS = ("--maxmemory", "1gb")  # of deploy/compose.yaml; the append-only file is on by default
ECHO = """
import sys, uvicorn
from fastapi import FastAPI

app = FastAPI()

@app.get("/ready")
def ready() -> dict:
    return {}

@app.post("/echo")
def echo(body: dict) -> dict:
    return body

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


class Part:
    """A process that answers HTTP on a port of its own; its data outlive it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, page: str) -> None:
        """`page`: answers 200 once the process is ready. `{port}` in the command is its port."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [word.replace("{port}", str(self.port)) for word in command]
        self._environment = {**os.environ, **environment}
        self._page = page
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *self._command], env=self._environment, stderr=subprocess.DEVNULL
        )

    def await_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                if httpx.get(f"{self.url}{self._page}", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline or self._running.poll() is not None:
                raise SystemExit(f"{self._command[2]} did not start")
            time.sleep(0.05)

    def start(self) -> None:
        self.begin()
        self.await_ready()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        return self._running.pid

    def cpu_s(self) -> float:
        """Processor time of the process so far."""
        return cpu_s(self.pid)

    def kill(self) -> None:
        self._running.kill()
        self._running.wait()

    def stop(self) -> None:
        self._running.terminate()
        self._running.wait()


def echo() -> Part:
    """The bare application that is the floor."""
    return Part(["-c", ECHO, "{port}"], {}, page="/ready")


def server(home: Path, environment: Mapping[str, str] | None = None) -> Part:
    """`memos serve` over a folder."""
    return Part(
        ["-m", "memos.cli", "serve", "--port", "{port}"],
        {"MEMOS_HOME": str(home), **(environment or {})},
        page="/ready",
    )


def worker(home: Path, environment: Mapping[str, str]) -> Part:
    """`memos worker` with the concurrency of the composition."""
    return Part(
        ["-m", "memos.cli", "worker", "--concurrency", "8", "--metrics-port", "{port}"],
        {"MEMOS_HOME": str(home), **environment},
        page="/metrics",
    )


@dataclass(frozen=True)
class Installation:
    """Running parts. What is not there has no processes."""

    servers: tuple[Part, ...]
    workers: tuple[Part, ...] = ()
    database: tuple[int, ...] = ()
    redis: tuple[int, ...] = ()

    @property
    def urls(self) -> list[str]:
        return [one.url for one in self.servers]

    def cpu_s(self) -> dict[str, float]:
        """Processor time so far, by kind of part."""
        kinds = {
            "servers": [one.pid for one in self.servers],
            "workers": [one.pid for one in self.workers],
            "database": self.database,
            "redis": self.redis,
        }
        return {kind: all_cpu_s(pids) for kind, pids in kinds.items() if pids}

    def stop(self) -> None:
        for part in (*self.servers, *self.workers):
            part.stop()


@contextmanager
def embedded() -> Iterator[Installation]:
    """One process with everything in it."""
    with tempfile.TemporaryDirectory() as home:
        made = Installation((server(Path(home)),))
        made.servers[0].start()
        try:
            yield made
        finally:
            made.stop()


@contextmanager
def composed(*, servers: int, workers: int) -> Iterator[Installation]:
    """Servers with their schedulers off, workers, and servers of their own for work and for memory."""
    with ExitStack() as opened:
        postgres = opened.enter_context(PrivatePostgres(fsync=True, settings=()))
        redis = opened.enter_context(PrivateRedis(options=REDIS))
        home = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        environment = environment_of(postgres.url, redis.port)
        made = Installation(
            tuple(server(home, {**environment, "MOS_ENABLE_SCHEDULER": "false"}) for _ in range(servers)),
            tuple(worker(home, environment) for _ in range(workers)),
            (postgres.pid,),
            (redis.pid,),
        )
        made.workers[0].start()  # alone: it makes the tables
        for part in (*made.workers[1:], *made.servers):
            part.begin()
        for part in (*made.workers[1:], *made.servers):
            part.await_ready()
        try:
            yield made
        finally:
            made.stop()


def environment_of(store_url: str, redis_port: int) -> dict[str, str]:
    """Settings that lead to the two servers."""
    return {
        "MEMOS_STORE__URL": store_url,
        "MOS_SCHEDULER_USE_REDIS_QUEUE": "true",
        "MEMSCHEDULER_REDIS_HOST": "127.0.0.1",
        "MEMSCHEDULER_REDIS_PORT": str(redis_port),
    }
