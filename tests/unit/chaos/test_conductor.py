"""What the conductor writes down of the faults that it makes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memos.chaos import conductor
from memos.chaos.conductor import Wanted
from memos.chaos.ledger import Event, Killed, Stood, read
from memos.chaos.nursery import Nursery
from memos.chaos.plan import Fault


class _Sleepers:
    """Processes that do nothing, in place of workers."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def spawn(self, order: object) -> int:
        self.processes.append(subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]))
        return self.processes[-1].pid

    def alive(self, pid: int) -> bool:
        return any(one.pid == pid and one.poll() is None for one in self.processes)

    def close(self) -> None:
        for one in self.processes:
            one.kill()
            one.wait()


def test_a_pause_that_ends_with_a_kill_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose lease ran out while it was stopped stood still, also where it never woke again."""
    sleepers = _Sleepers()
    monkeypatch.setattr(conductor, "alive", sleepers.alive)
    nursery: Nursery = sleepers  # type: ignore[assignment]
    run = conductor._Run(Wanted(backend="sqlite"), tmp_path, None, nursery, lambda _: None)
    try:
        for place in run.places:
            run._start(place)
        run._strike_once(Fault(after_s=0.0, kind="pause", target=0, length_s=60.0))
        [paused] = [place for place in run.places if place.paused_since]
        pid, since = paused.pid, paused.paused_since
        run._kill(paused)
    finally:
        sleepers.close()
    told: list[Event] = [one for one in read(run.path) if isinstance(one, Stood | Killed)]
    [stood] = [one for one in told if isinstance(one, Stood)]
    [killed] = [one for one in told if isinstance(one, Killed)]
    assert (stood.pid, stood.at) == (pid, since)
    assert since < stood.until <= killed.at
    assert next(one for one in sleepers.processes if one.pid == pid).returncode == -signal.SIGKILL
