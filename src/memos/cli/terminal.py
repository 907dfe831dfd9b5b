"""What all commands share: the two consoles, texts that are safe to show there, and how a runtime is opened for one command."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from memos.errors import InvalidInput

if TYPE_CHECKING:
    from memos.runtime import Runtime
    from memos.settings import Settings

out = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
NARROW_COLUMNS = 110


def plain(text: str, style: str = "") -> Text:
    """`text` as it is, for a console: no markup is read in it, no control character reaches the terminal."""
    return Text("".join(map(_escaped, text)), style=style)


def _escaped(character: str) -> str:
    # What joins and directs letters is part of many scripts and of emoji; only what steers a terminal is not.
    steers = character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cs")
    return repr(character)[1:-1] if steers else character


@contextmanager
def opened(
    settings: Settings | None = None, *, start: bool = False, rebind: bool = False
) -> Iterator[Runtime]:
    """A runtime for the length of one command; the scheduler runs only when `start` is given.

    `rebind` lets it open with vectors of another embedder (for `memos reembed` alone).
    """
    from memos.runtime import build
    from memos.settings import Settings

    with build(settings or Settings.load(), start=start, rebind=rebind) as runtime:
        if runtime.embedder_missing:
            errors.print(plain(runtime.embedder_missing, "yellow"))
        yield runtime
        if start:  # what the command announced is done when it ends
            runtime.drain(runtime.settings.scheduler.stop_grace_s)


def moment(text: str | None) -> datetime | None:
    """An ISO date or time as aware UTC; a naive one is local time. InvalidInput names the text."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise InvalidInput(
            f"{text!r} is not an ISO date or time, such as 2026-05-08 or 2026-05-08T13:56"
        ) from error


def counted(number: int, one: str, many: str = "") -> str:
    """`1 memory`, `2 memories`; `many` where an s does not make the plural."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def shown(when: datetime | None) -> str:
    """A time for people, in the local zone."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M") if when else ""
