"""Which start of the machine this is, and what a new one does to times that are stored.

Leases and delays run on the monotonic clock, which all processes of one start of the machine share and
nobody can set. It begins anew with the machine, so a file that was written under another start has its
times carried over by wall time, and its leases are void: nobody can hold them any more.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

_LINUX = Path("/proc/sys/kernel/random/boot_id")
_SLACK_S = 1.0


def boot_id() -> str:
    """A text that is another one after each start of the machine; "" where none is known."""
    try:
        if sys.platform == "darwin":
            answer = subprocess.run(
                ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, timeout=5
            )
            return answer.stdout.strip()
        return _LINUX.read_text(encoding="ascii").strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def carry_over(connection: sqlite3.Connection, *, boot: str, now: float, wall: float) -> bool:
    """Make the stored times those of this start of the machine. True when it is another one."""
    stored, seen_at, offset = connection.execute(
        "SELECT boot_id, seen_at, wall_offset FROM counter"
    ).fetchone()
    if stored == boot and now >= seen_at - _SLACK_S:
        connection.execute("UPDATE counter SET wall_offset = ?", (wall - now,))  # somebody may set the clock
        return False
    shift = (wall - now) - offset
    connection.execute("UPDATE lease SET expires_at = ?, claimed_at = claimed_at - ?", (now, shift))
    connection.execute(
        "UPDATE pack SET ready_at = ready_at - :shift, blocked_since = blocked_since - :shift,"
        " due_at = CASE WHEN due_at > 0 THEN due_at - :shift ELSE 0 END WHERE place <= 2",
        {"shift": shift},
    )
    connection.execute("UPDATE lane SET head_due = head_due - ?", (shift,))
    connection.execute("UPDATE idempotency SET ends_at = ends_at - ?", (shift,))
    connection.execute("DELETE FROM served")
    connection.execute("DELETE FROM instance")
    connection.execute(
        "UPDATE counter SET boot_id = ?, seen_at = ?, wall_offset = ?", (boot, now, wall - now)
    )
    return True
