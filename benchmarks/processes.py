"""What /proc says of processes: the processor time of a server and all that it started, its children, who lives."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds used by a process, by its living children, and by those that ended and were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (
        sum(int(field) for field in fields[11:15]) / _TICKS_A_SECOND
    )  # user, system, and the same of the dead
    return own + sum(_of_child(child) for child in children_of(pid))


def all_cpu_s(pids: Iterable[int]) -> float:
    """The sum over several."""
    return sum(cpu_s(pid) for pid in pids)


def _of_child(pid: int) -> float:
    try:
        return cpu_s(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it ended just now, and is counted with its parent from the next look on


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be fetched does not."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] not in ([], ["Z"])


def children_of(pid: int) -> list[int]:
    """The processes that it started and that still are."""
    return [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in _read(thread / "children").split()
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
