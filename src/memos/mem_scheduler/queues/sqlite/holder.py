"""Which process holds a lease, and whether it is gone: a dead holder is noticed before its lease runs out.

A process is told from a later one with the same number by the time it started, in clock ticks of this start
of the machine. Only processes of the same start and of the same process namespace are judged: a container
cannot see whether another one's processes live. Where that cannot be found out (no /proc), nobody is judged
gone, and the lease's end decides as before.
"""

from __future__ import annotations

import json
import os
from dataclasses import astuple, dataclass
from pathlib import Path

_PROC = Path("/proc")
_STATE, _STARTED = 0, 19  # fields of /proc/PID/stat behind the name of the program


@dataclass(frozen=True, slots=True)
class Holder:
    """A process: the start of the machine, the namespace of `pid`, and when it started there."""

    boot: str
    namespace: str
    pid: int
    started: int

    @classmethod
    def me(cls, boot: str) -> Holder | None:
        """This process; None where it cannot be told from a later one."""
        try:
            namespace = str((_PROC / "self" / "ns" / "pid").readlink())
        except OSError:
            return None
        pid = os.getpid()
        found = _stat(pid)
        return None if found is None or not boot else cls(boot, namespace, pid, found[1])

    def text(self) -> str:
        return json.dumps(astuple(self))

    @classmethod
    def of(cls, text: str) -> Holder | None:
        """The holder that a lease names; None when it names none."""
        return cls(*json.loads(text)) if text else None

    def sees_end_of(self, other: Holder) -> bool:
        """Whether `other` is certainly gone, as this process sees it."""
        if (self.boot, self.namespace) != (other.boot, other.namespace):
            return False
        try:
            os.kill(other.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it is there, but belongs to somebody else
        found = _stat(other.pid)
        if found is None:
            return False
        state, started = found
        return started != other.started or (state in "ZX" and _is_last_thread(other.pid))


def _stat(pid: int) -> tuple[str, int] | None:
    """State and time of start of a process; None when that cannot be read."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[_STATE], int(fields[_STARTED])
    except (OSError, IndexError, ValueError):
        return None


def _is_last_thread(pid: int) -> bool:
    """A first thread may have ended while others still run."""
    try:
        return len(list((_PROC / str(pid) / "task").iterdir())) <= 1
    except OSError:
        return True
