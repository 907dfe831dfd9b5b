"""A program for tests: writers that are killed at each step of a write. Prints one JSON line for each kill.

For every system call that changes the disk (and once more behind it) a child is forked that dies there by
SIGKILL; then the folder is read as another process finds it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.memory.activation.prefixes import NAMESPACE, files, held, litter, put

from memos.memory.activation.files import SegmentFiles, sweep_all

A = list(range(100, 116))
B = [*A[:8], *range(300, 312)]
CHANGES = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir")


def main(root: Path, what: str) -> None:
    """Kill at every step until a writer lives through all of them."""
    step = 0
    while True:
        folder = root / f"{step}"
        kept = files(folder, prefixes_max=1)
        name = put(kept, A)
        child = os.fork()
        if not child:
            _die_at(step)
            if what == "write":
                put(kept, B)
            else:
                kept.drop(NAMESPACE, name)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        lived = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write(
            json.dumps({"step": step, "lived": lived, "died": died, **_state(folder, what)}) + "\n"
        )
        sys.stdout.flush()
        if lived:
            return
        step += 1


def _state(folder: Path, what: str) -> dict[str, Any]:
    """What the next process finds, before and after it has swept and written."""
    kept = files(folder, prefixes_max=1)  # sweeps at the start
    before = _tokens(kept)
    swept = litter(kept) if (kept.folder(NAMESPACE) / "manifest.json").exists() else []
    again = sweep_all(folder)
    if what == "write":
        put(kept, B)
    else:
        put(kept, A)
    return {"before": before, "litter": swept, "again": again, "after": _tokens(kept), "rest": litter(kept)}


def _tokens(kept: SegmentFiles) -> list[int]:
    if not (kept.folder(NAMESPACE) / "manifest.json").exists():
        return [0, 0]
    return [held(kept, A), held(kept, B)]


def _die_at(step: int) -> None:
    """Even steps: before a call; odd ones: behind it."""
    calls = 0

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*args: Any, **named: Any) -> Any:
            nonlocal calls
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            done = call(*args, **named)
            if calls + 1 == step:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 2
            return done

        return dying

    for name in CHANGES:
        setattr(os, name, deadly(getattr(os, name)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
