"""Real processes over a folder, whose ledger and outcome are judged as `memos chaos` does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memos.chaos import ledger
from memos.chaos.child import Order
from memos.chaos.conductor import effects_of, states_of
from memos.chaos.ledger import Event, Killed, Ledger, now
from memos.chaos.nursery import Nursery, alive
from memos.chaos.verdict import Outcome, Verdict, judge
from memos.runtime import Runtime, build
from memos.settings import Settings

LEASE_S = 1.0
WAIT_S = 60.0


@dataclass
class Site:
    """One run: a folder, the settings that lead to its queue, and the nursery of its processes."""

    folder: Path
    nursery: Nursery
    queue: dict[str, str]
    starts: int = 0
    pids: list[int] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MEMOS_HOME": str(self.folder),
            "MEMOS_MODELS__EMBEDDER": "none",
            "MEMOS_SCHEDULER__WORKERS": "4",
            "MEMOS_MEMORY__LONG_TERM_CAPACITY": "10000000",
            "MEMOS_LOG__LEVEL": "CRITICAL",
            **self.queue,
        }

    @property
    def path(self) -> Path:
        return self.folder / "ledger.jsonl"

    def spawn(self, name: str, **changes: Any) -> int:
        self.starts += 1
        order = Order(
            ledger=str(self.path),
            environment=self.environment,
            name=name,
            start=self.starts,
            seed=1,
            lease_s=LEASE_S,
            rate=10_000.0,
            **changes,
        )
        pid = self.nursery.spawn(order)
        self.pids.append(pid)
        return pid

    def worker(self, **changes: Any) -> int:
        return self.spawn("w", **changes)

    def submitter(self, count: int, *labels: str, **changes: Any) -> int:
        return self.spawn("s", works=False, submits=True, messages_max=count, only=list(labels), **changes)

    def submit(self, count: int, *labels: str) -> None:
        """Have a process submit and end by itself."""
        pid = self.submitter(count, *labels)
        until(lambda: not alive(pid))

    def runtime(self) -> Runtime:
        return build(Settings.load(self.environment), start=False)

    def drain(self) -> None:
        """Wait until nothing is left."""
        with self.runtime() as runtime:

            def empty() -> bool:
                depth = runtime.queue.depth(lanes=False)
                return not depth.remaining and not depth.running and not runtime.store.pending_followups()

            until(empty)

    def write(self, event: Event) -> None:
        """Add to the ledger what this process did or saw."""
        book = Ledger(self.path)
        book.write(event)
        book.close()

    def kill(self, pid: int) -> None:
        """SIGKILL, written down."""
        self.write(Killed(now(), pid, "random"))
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))

    def end(self) -> None:
        """Kill what still runs."""
        for pid in self.pids:
            if alive(pid):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            until(lambda pid=pid: not alive(pid))  # type: ignore[misc]

    def events(self) -> list[Event]:
        return ledger.read(self.path)

    def verdict(self) -> Verdict:
        with self.runtime() as runtime:
            outcome = Outcome(effects_of(runtime), states_of(runtime))
        return judge(self.events(), outcome, lease_s=LEASE_S)


def until(true: Callable[[], bool]) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
