"""One process at a time opens a database in a folder: the lock is on the folder itself and leaves no file.

Several processes that start over a new folder would otherwise meet inside SQLite's change to write-ahead logging,
which answers "locked" at once instead of waiting, or read one another's half-made layout. The lock goes with
its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memos.errors import QueueUnavailable, StoreUnavailable

LOOK_S = 0.005


@contextmanager
def opening_alone(
    path: Path, *, timeout_s: float, unavailable: type[StoreUnavailable] | type[QueueUnavailable]
) -> Iterator[None]:
    """Open the file `path` in the block. Raises `unavailable` when another opens one there for longer; OSError
    without the folder."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise unavailable(
                        f"{path} is locked: another process opens a file in {path.parent}; try again"
                    ) from None
                time.sleep(LOOK_S)
        yield
    finally:
        os.close(descriptor)
