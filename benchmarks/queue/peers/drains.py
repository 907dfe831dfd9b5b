"""Runs the peers in their own environment (`make bench-env`) against the same server, one after the other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.queue.workload import BODY

PYTHON_NAME = "BENCH_PEERS_PYTHON"
ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 60.0


def peers_python() -> Path | None:
    """The bench environment's python; None where it was not made."""
    named = os.environ.get(PYTHON_NAME)
    python = Path(named) if named else ROOT / ".bench-venv" / "bin" / "python"
    return python if python.exists() else None


def drain_rate(peer: str, *, host: str, port: int, prefix: str, count: int) -> float:
    """No-op tasks a second that one worker of `peer` (dramatiq, taskiq) takes off the server."""
    program = Path(__file__).with_name(f"{peer}_drain.py")
    arguments = [f"redis://{host}:{port}/0", f"{prefix}-{peer}", str(count), BODY]
    answer = subprocess.run(
        [str(peers_python()), str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
        cwd="/",
    )
    return float(answer.stdout.split()[-1])
