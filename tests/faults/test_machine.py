"""A full disk, and a wall clock that is set: what the machine may do to a queue."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.conformance.queue_model import BACKENDS, message

from memos.clock import SystemClock
from memos.mem_scheduler.queues.base import Done
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.testing import ManualClock

_FILL = """
import resource, signal, sys
from pathlib import Path
from memos.clock import SystemClock
from memos.errors import QueueUnavailable
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
queue = SqliteQueue(Path(sys.argv[1]), clock=SystemClock())
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
one = ScheduleMessageItem(user_id="u", mem_cube_id="c", label="query", content="x" * 2_000)
try:
    for n in range(10_000):
        keys = queue.submit([one.model_copy(update={"item_id": f"{n}.{m}"}) for m in range(8)])
        print(*keys, flush=True)
except QueueUnavailable:
    print("full", flush=True)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """Where the file may not grow a submit is refused whole; all that was answered is there, in order, and
    runs once there is room again."""
    path = tmp_path / "queue.db"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_FILL), str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines and lines[-1] == "full", done.stderr
    answered = [key for line in lines[:-1] for key in line.split()]
    assert len(answered) > 100
    ran: list[str] = []
    with SqliteQueue(path, clock=SystemClock()) as queue:
        while batches := queue.claim(("query",), lanes_max=1, timeout_s=0):
            for batch in batches:
                ran += [delivery.key for delivery in batch.deliveries]
                queue.finish(batch, [Done()] * len(batch.deliveries))
    assert ran == answered


class SteppedClock(ManualClock):
    """A clock whose wall time can be set without time passing."""

    step_s = 0.0

    def now(self) -> float:
        return super().now() + self.step_s


@pytest.mark.parametrize("step_s", [-86_400.0, 86_400.0])
@pytest.mark.parametrize("backend", ["local", "sqlite"])
def test_a_wall_clock_that_is_set(backend: str, step_s: float) -> None:
    """A step of a day back or forth ends no lease and brings no delayed message early or late."""
    clock = SteppedClock()
    queue = BACKENDS[backend](clock)
    queue.submit([message("held")])
    queue.submit([message("delayed")], delay_s=10.0)
    [batch] = queue.claim(("held",), lanes_max=1, timeout_s=0)
    clock.step_s = step_s
    assert queue.claim(("held", "delayed"), lanes_max=4, timeout_s=0) == []
    assert queue.renew([batch]) == []
    queue.finish(batch, [Done()])
    clock.advance(9.0)
    assert queue.claim(("delayed",), lanes_max=1, timeout_s=0) == []
    clock.advance(1.5)
    [late] = queue.claim(("delayed",), lanes_max=1, timeout_s=0)
    assert late.deliveries[0].message.label == "delayed"
    queue.close()
