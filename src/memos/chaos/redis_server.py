"""A redis-server of one's own on a free port of this machine, to be killed and started again.

Speaks to the server by inline commands over a plain socket, so that no client library is needed. The
shared server of a machine is never touched: what is killed here was started here.

With `aof` the server writes each command to its append-only file before it answers: a killed server
process (not a power cut, which `appendfsync everysec` leaves up to a second of) comes back with every
write that was answered. Without it a killed server comes back empty, and nothing is promised.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from memos.errors import ConfigError, QueueUnavailable

START_S = 10.0
ANSWER_S = 10.0
LOOK_S = 0.01


def find_server() -> str | None:
    """The path of redis-server, or valkey-server where only that is installed; None without either."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


class PrivateRedis:
    """Runs from its construction to `close`; a context manager. ConfigError without a server to run."""

    def __init__(self, *, aof: bool = True, options: tuple[str, ...] = ()) -> None:
        program = find_server()
        if program is None:
            raise ConfigError("no redis-server on PATH: install it, or name a running one by its URL")
        self.port = free_port()
        self._folder = tempfile.mkdtemp(prefix="memos-redis-")
        self._command = [
            *(program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder),
            *("--save", "", "--appendonly", "yes" if aof else "no", "--appendfsync", "everysec"),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running server; QueueUnavailable while none runs."""
        if self._process is None:
            raise QueueUnavailable(f"the redis-server of port {self.port} does not run")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers. Does nothing while it runs."""
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                if self.ask("PING").startswith("+PONG"):
                    return
            except OSError:
                if self._process.poll() is not None:
                    break
            time.sleep(LOOK_S)
        self.kill()
        raise QueueUnavailable(f"redis-server did not answer on port {self.port} within {START_S:.0f} s")

    def kill(self) -> None:
        """SIGKILL; `start` brings it back with what its append-only file holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, command: str) -> str:
        """Send one inline command; the first line of the answer, as the protocol writes it. OSError."""
        return ask("127.0.0.1", self.port, command)

    def close(self) -> None:
        """Kill the server and remove its folder. Safe to call twice."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> PrivateRedis:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ask(host: str, port: int, command: str) -> str:
    """Send one inline command to a server without a password; the first line of its answer. OSError."""
    with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
        connection.sendall(command.encode() + b"\r\n")
        answer = b""
        while not answer.endswith(b"\n"):
            piece = connection.recv(4_096)
            if not piece:
                raise ConnectionError("the server closed the connection")
            answer += piece
        return answer.decode(errors="replace").splitlines()[0]


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def parts_of(url: str) -> tuple[str, int]:
    """Host and port of a redis URL. ConfigError when it is none."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme != "redis" or not parts.hostname:
        raise ConfigError(f"{Path(url).name!r} is not a URL such as redis://127.0.0.1:6379/0")
    return parts.hostname, parts.port or 6379
