"""A program for tests: writers that are killed at each step of a write. Prints one JSON line for each kill.

For every system call that changes the disk (and once more behind it) a child is forked that dies there by
SIGKILL; then the folder is read as another process finds it. `write`: a prefix takes another's place; `drop`: it is
removed; `evict`: a write makes room in another namespace; `expire`: a write removes what nobody used for too long.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.memory.activation.prefixes import NAMESPACE, files, held, litter, put, segment_bytes

from memos import log
from memos.memory.activation.files import SegmentFiles, sweep_all
from memos.testing import ManualClock

A = list(range(100, 116))
B = [*A[:8], *range(300, 312)]
OTHER = "aa" * 16
TTL_S = 100.0
CHANGES = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir")


class Case:
    """One folder, before a writer comes and after it died."""

    def __init__(self, folder: Path, what: str) -> None:
        self.folder = folder
        self.what = what
        self.clock = ManualClock()
        self.bytes_max = 10**9
        kept = self.files()
        if what in ("evict", "expire"):
            put(kept, A, OTHER)
            if what == "evict":
                self.bytes_max = 9 * segment_bytes(kept.manifest(OTHER))
        self.writer = self.files()  # opened before time passes: opening removes what is old, too
        if what in ("evict", "expire"):
            self.clock.advance(TTL_S + 1 if what == "expire" else 1)
        self.name = put(self.files(ttl_s=0), A)

    def files(self, *, ttl_s: float | None = None) -> SegmentFiles:
        """As a process opens them that begins now."""
        many = self.what in ("evict", "expire")
        wanted = (TTL_S if self.what == "expire" else 0.0) if ttl_s is None else ttl_s
        return files(
            self.folder,
            prefixes_max=8 if many else 1,
            bytes_max=self.bytes_max,
            ttl_s=wanted,
            clock=self.clock,
        )

    def act(self, kept: SegmentFiles) -> None:
        """What the writer does that is killed."""
        if self.what == "drop":
            kept.drop(NAMESPACE, self.name)
        else:
            put(kept, B)

    def tokens(self) -> list[int]:
        """Of A and B that can be read, each value checked; of A in the other namespace where there is one."""
        kept = self.files(ttl_s=0)
        counts = [_read(kept, A, NAMESPACE), _read(kept, B, NAMESPACE)]
        return counts + ([_read(kept, A, OTHER)] if self.what in ("evict", "expire") else [])

    def rest(self) -> list[str]:
        """Files that nothing names."""
        kept = self.files(ttl_s=0)
        spaces = [one for one in (NAMESPACE, OTHER) if (kept.folder(one) / "manifest.json").exists()]
        return [name for space in spaces for name in litter(kept, space)]


def main(root: Path, what: str) -> None:
    """Kill at every step until a writer lives through all of them."""
    log.configure("ERROR")  # the output is for a program
    step = 0
    while True:
        case = Case(root / f"{step}", what)
        child = os.fork()
        if not child:
            _die_at(step)
            case.act(case.writer)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        lived = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        state = {"step": step, "lived": lived, "died": died, **_state(case)}
        sys.stdout.write(json.dumps(state) + "\n")
        sys.stdout.flush()
        if lived:
            return
        step += 1


def _state(case: Case) -> dict[str, Any]:
    """What the next process finds, before and after it has swept and written."""
    before = case.tokens()  # opening sweeps
    swept = case.rest()
    again = sweep_all(case.folder)
    if case.what == "expire":
        case.clock.advance(TTL_S + 1)  # looking was a use
    put(case.files(), A if case.what == "drop" else B)
    return {
        "before": before,
        "litter": swept,
        "again": again,
        "after": case.tokens(),
        "rest": case.rest(),
        "fits": case.files(ttl_s=0).size() <= case.bytes_max,
    }


def _read(kept: SegmentFiles, ids: list[int], namespace: str) -> int:
    if not (kept.folder(namespace) / "manifest.json").exists():
        return 0
    return held(kept, ids, namespace)


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
