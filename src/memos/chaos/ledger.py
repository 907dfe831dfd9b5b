"""The witness outside the queue: an append-only file, one JSON line an event, synced before work goes on.

All processes of a run append to one file; a line is one write, so lines never mix. Times are seconds of the
monotonic clock, which the processes of a machine share.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Tried:
    """A submitter is about to submit; whether it was taken is open until `Accepted`."""

    at: float
    pid: int
    items: tuple[str, ...]
    label: str
    lane: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The submit of these items returned."""

    at: float
    pid: int
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A batch was leased. `items` are names as in `name_of`."""

    at: float
    pid: int
    epoch: int
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """`finish` answered for a batch: the state of each item."""

    at: float
    pid: int
    epoch: int
    items: tuple[str, ...]
    states: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """`finish` refused, because the lease is gone, or did not get through."""

    at: float
    pid: int
    epoch: int
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Began:
    """A handler began with these items, in this order."""

    at: float
    pid: int
    run: int
    lane: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """The handler returned (ok) or raised."""

    at: float
    pid: int
    run: int
    ok: bool


@dataclass(frozen=True, slots=True)
class Killed:
    """A process is being killed, at `where`: "random", or the point at which it killed itself."""

    at: float
    pid: int
    where: str


@dataclass(frozen=True, slots=True)
class Stood:
    """A process (pid 0: every one) stood still, or was cut off, in this time."""

    at: float
    until: float
    pid: int
    why: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """A process was asked to stop and did so by itself."""

    at: float
    pid: int


Event = Tried | Accepted | Claimed | Settled | Refused | Began | Ended | Killed | Stood | Stopped
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (Tried, Accepted, Claimed, Settled, Refused, Began, Ended, Killed, Stood, Stopped)
}


class Ledger:
    """Appends events to `path`; they are on disk when `write` returns. Thread-safe."""

    def __init__(self, path: Path) -> None:
        synced = getattr(os, "O_DSYNC", 0)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | synced, 0o600)

    def write(self, event: Event) -> None:
        line = json.dumps([type(event).__name__, asdict(event)], separators=(",", ":"))
        # A kill may tear a line; the break before the next one keeps that one whole.
        os.write(self._file, b"\n" + line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> list[Event]:
    """All events in the order of their times. A line that a kill tore says nothing: what it was about to say
    had not been acted on yet."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            if line:
                events.append(_event(line))
    return sorted(events, key=lambda event: event.at)


def _event(line: str) -> Event:
    name, values = json.loads(line)
    kind = _KINDS[name]
    for one in fields(kind):
        if isinstance(values[one.name], list):
            values[one.name] = tuple(values[one.name])
    event: Event = kind(**values)
    return event


def now() -> float:
    """The clock of the ledger."""
    return time.monotonic()


def name_of(label: str, item_id: str) -> str:
    """What the ledger calls a message: chained copies repeat `item_id` under another label."""
    return f"{label}:{item_id}"


def names(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(name_of(label, item_id) for label, item_id in pairs)
