"""A small process that forks light workers: what they need is imported once, a start costs a fork.

The nursery has one thread and no open store or queue, so that forking is safe. It reads one JSON line for
each child on its stdin and answers with the pid; it ends, and its children with it, when stdin does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType

from memos.chaos.child import Order, run
from memos.runtime import build
from memos.settings import Settings

# No setting of the caller's may lead a child to a store or a server that is not the run's own.
FOREIGN = ("MEMOS_", "MOS_", "MEMSCHEDULER_", "MEMREADER_", "MEMRADER_", "OPENAI_", "REDIS_", "ENABLE_")
FOREIGN_TOO = ("API_SCHEDULER_ON", "DEFAULT_USE_REDIS_QUEUE", "CHAT_MODEL")


class Nursery:
    """The nursery's parent side; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "memos.chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(os.environ),
            start_new_session=True,  # Ctrl-C is for the conductor, which ends the run in order
        )

    def spawn(self, order: Order) -> int:
        """Start a child; its pid. It may not have begun to work when this returns."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the nursery of chaos workers is gone")
        return int(answer)

    def close(self) -> None:
        """End the nursery, which kills what is left of its children."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without any setting of this project, its documented aliases included."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(FOREIGN) and name not in FOREIGN_TOO
    }


def alive(pid: int) -> bool:
    """Whether a child of the nursery is still there: the dead are reaped at once."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """The nursery's own side."""
    _warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps the dead
    children: list[int] = []
    for line in sys.stdin:
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            _grow_up(order)
        children.append(pid)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for pid in children:
        if alive(pid):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL)


def _warm_up() -> None:
    """Import what a runtime loads when it is built, so that a child does not: build one, and close it."""
    for name in ("sqlite", "redis_streams"):
        with contextlib.suppress(ImportError):  # the extra `redis` is not installed
            importlib.import_module(f"memos.mem_scheduler.queues.{name}")
    with tempfile.TemporaryDirectory() as folder:
        settings = {"MEMOS_HOME": folder, "MEMOS_MODELS__EMBEDDER": "none", "MEMOS_QUEUE__BACKEND": "local"}
        build(Settings.load({**settings, "MEMOS_LOG__LEVEL": "CRITICAL"}), start=False).close()
    if threading.active_count() > 1:
        raise RuntimeError(f"a nursery must have one thread: {threading.enumerate()}")


def _grow_up(order: Order) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(null, standard)
        run(order)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
