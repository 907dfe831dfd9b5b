"""An installation on this machine: PostgreSQL, Redis (its file synced at each write), servers, workers.

Every process reaches the two servers through proxies of its kind, so that the network can be cut, slowed and stalled;
whoever looks on (`runtime`) goes to them directly. All of it is private and in folders of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx

from benchmarks.postgres_server import PrivatePostgres
from memos.chaos.nursery import clean_environment
from memos.chaos.proxy import Proxy
from memos.chaos.redis_server import PrivateRedis, free_port
from memos.mem_scheduler.schemas.task_schemas import CLASS_OF_LABEL
from memos.runtime import Runtime, build
from memos.settings import Settings

START_S = 120.0
STOP_S = 60.0
LOOK_S = 0.05
LABELS = tuple(CLASS_OF_LABEL)


def until(true: Callable[[], object], what: Callable[[], object] | str, within_s: float = START_S) -> float:
    """Wait for something that other processes do; the seconds that it took. AssertionError when it does not come."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"not within {within_s:.0f} s: {what() if callable(what) else what}")
        time.sleep(LOOK_S)
    return time.monotonic() - began


@dataclass
class Process:
    """One server or worker, however often it is started. `page` answers when it works."""

    name: str
    command: list[str]
    environment: dict[str, str]
    port: int
    page: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=10, trust_env=False))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Begin; `wait` until it answers."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )

    def wait(self) -> None:
        until(self._answers, lambda: f"{self.name} answers: {self.tail()}")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}: {self.tail()}")
        status = self.status_of(self.page)
        return status == 200

    def status_of(self, page: str, timeout_s: float = 10.0) -> int:
        """The HTTP status of a page; 0 where nothing answers in time."""
        try:
            return self.http.get(self.url + page, timeout=timeout_s).status_code
        except httpx.TransportError:
            return 0

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self.http.close()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2_000:] if self.log.exists() else ""


class Site:
    """Everything, from construction to `close`; a context manager."""

    def __init__(
        self,
        *,
        servers: int = 2,
        workers: int = 2,
        concurrency: int = 4,
        lease_s: float = 2.0,
        fsync: bool = False,
        settings: dict[str, str] | None = None,
    ) -> None:
        """`lease_s`: how soon the work of a killed worker is taken up; `fsync`: of PostgreSQL. Raises ImportError,
        ConfigError where a server cannot be started here."""
        self._opened = ExitStack()
        with ExitStack() as opening:
            self.folder = Path(opening.enter_context(tempfile.TemporaryDirectory(prefix="memos-site-")))
            # Pages are written whole into the log: a killed process may leave a page half written.
            self.postgres = PrivatePostgres(fsync=fsync, settings=("full_page_writes=on",))
            opening.callback(self.postgres.close)
            self.redis = opening.enter_context(PrivateRedis(aof=True, options=("--appendfsync", "always")))
            self.store_line = opening.enter_context(Proxy("127.0.0.1", self.postgres.port))
            self.queue_line = opening.enter_context(Proxy("127.0.0.1", self.redis.port))
            self._settings = settings or {}
            self.servers = [self._process("server", number) for number in range(servers)]
            self.workers = [
                self._process("worker", number, concurrency=concurrency) for number in range(workers)
            ]
            with self.runtime() as runtime:  # makes the tables, and the leases short
                for label in LABELS:
                    runtime.scheduler.orchestrator.tasks_min_idle_ms[label] = int(1_000 * lease_s)
            for one in self.processes:
                opening.callback(one.stop)
                one.start()
            for one in self.processes:
                one.wait()
            self._opened = opening.pop_all()

    @property
    def processes(self) -> list[Process]:
        return [*self.workers, *self.servers]

    def environment(self, *, direct: bool = False) -> dict[str, str]:
        """The settings of a process. `direct`: past the proxies."""
        store = self.postgres.port if direct else self.store_line.port
        queue = self.redis.port if direct else self.queue_line.port
        return {
            "MEMOS_HOME": str(self.folder / "home"),
            "MEMOS_STORE__URL": f"postgresql://postgres@127.0.0.1:{store}/postgres",
            "MOS_SCHEDULER_USE_REDIS_QUEUE": "true",
            "MEMSCHEDULER_REDIS_HOST": "127.0.0.1",
            "MEMSCHEDULER_REDIS_PORT": str(queue),
            **self._settings,
        }

    def _process(self, kind: str, number: int, *, concurrency: int = 4) -> Process:
        port = free_port()
        environment = {**clean_environment(os.environ), **self.environment()}
        command = [sys.executable, "-m", "memos.cli"]
        if kind == "server":
            environment["MOS_ENABLE_SCHEDULER"] = "false"
            command += ["serve", "--port", str(port)]
        else:
            command += ["worker", "--concurrency", str(concurrency), "--metrics-port", str(port)]
        page = "/health" if kind == "server" else "/metrics"
        name = f"{kind} {number}"
        return Process(name, command, environment, port, page, self.folder / f"{kind}-{number}.log")

    @contextlib.contextmanager
    def runtime(self) -> Iterator[Runtime]:
        """A look from outside: the store and the queue themselves, nothing started."""
        with build(Settings.load(self.environment(direct=True)), start=False) as runtime:
            yield runtime

    def restart(self, process: Process) -> None:
        process.start()
        process.wait()

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
