"""What is looked at once a second while a soak runs: the queue's depth, memory of each process, open connections."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.soak.site import Site
from memos.errors import MemosError
from memos.runtime import build
from memos.settings import Settings

EVERY_S = 1.0
WARM_S = 10.0  # of a process's life, before its memory is read for the first time
_BARS = "▁▂▃▄▅▆▇█"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Memory:
    """Resident bytes of one process: first and last reading of each of its lives."""

    name: str
    lives: list[tuple[int, float, float]] = field(default_factory=list)  # pid, MiB first, MiB last
    _seen: dict[int, float] = field(default_factory=dict)  # pid -> since when

    def note(self, pid: int, mib: float) -> None:
        now = time.monotonic()
        if now - self._seen.setdefault(pid, now) < WARM_S:
            return
        if self.lives and self.lives[-1][0] == pid:
            self.lives[-1] = (pid, self.lives[-1][1], mib)
        else:
            self.lives.append((pid, mib, mib))


class Watch:
    """Samples from construction to `close`; a context manager."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.depths: list[tuple[float, int | None]] = []  # None: the queue did not answer
        self.links_max = 0
        self.server_links_max = 0
        self.memory = {one.name: Memory(one.name) for one in site.processes}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        quick = {"MEMOS_QUEUE__REDIS_RECONNECT_S": "0", "MEMOS_QUEUE__REDIS_TIMEOUT_S": "1"}
        settings = Settings.load({**self._site.environment(direct=True), **quick})
        with build(settings, start=False) as runtime:
            while not self._over.wait(EVERY_S):
                now = time.monotonic()
                try:
                    depth = runtime.queue.depth(lanes=False)
                    self.depths.append((now, depth.remaining + depth.running))
                except MemosError:
                    self.depths.append((now, None))
                self.links_max = max(self.links_max, self._site.store_line.open_links)
                self.server_links_max = max(self.server_links_max, self._site.queue_line.open_links)
                for one in self._site.processes:
                    mib = resident_mib(one.pid)
                    if mib:
                        self.memory[one.name].note(one.pid, mib)


def resident_mib(pid: int) -> float:
    """0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20
    except (OSError, IndexError):
        return 0.0


def sparkline(values: Sequence[float | None], width: int = 60) -> str:
    """The values in so many bars, each the greatest of its part; "·" where there was none."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [len(values) * n // count for n in range(count + 1)]
    parts = [values[first:last] for first, last in pairwise(edges)]
    tops = [max((one for one in part if one is not None), default=None) for part in parts]
    most = max((one for one in tops if one is not None), default=0.0) or 1.0
    return "".join("·" if one is None else _BARS[round((len(_BARS) - 1) * one / most)] for one in tops)
