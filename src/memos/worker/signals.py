"""SIGTERM and SIGINT as something a main thread can wait for.

A signal is counted and wakes whoever waits; nothing else happens in the handler, because it may interrupt
its thread anywhere, also while that holds a lock. Use it in the main thread only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """Counts the signals while it is entered; what was set before is put back."""

    def __init__(self, *, ignored: tuple[signal.Signals, ...] = ()) -> None:
        """`ignored` are not counted and do nothing."""
        self.count = 0
        self._ignored = ignored
        self._before: dict[signal.Signals, Any] = {}
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        os.set_blocking(self._read, False)

    def fileno(self) -> int:
        """Readable when a signal came that `clear` was not called for yet."""
        return self._read

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the next signal; False when the time is over."""
        came = bool(select.select([self._read], [], [], timeout_s)[0])
        self.clear()
        return came

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 64):
                pass

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._write, b"!")

    def __enter__(self) -> StopSignals:
        for one in (signal.SIGTERM, signal.SIGINT):
            action = signal.SIG_IGN if one in self._ignored else self._note
            self._before[one] = signal.signal(one, action)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one, action in self._before.items():
            signal.signal(one, action)
        os.close(self._read)
        os.close(self._write)
