"""What a caller may ask of a submit beyond the messages, and how long it waits for room. Pure.

A full queue refuses (`reject`), is waited for (`block`), or takes what joins a waiting message of its
label (`coalesce`, see `queues.base`). Waiting looks again in growing pauses: the room may be made by
another process, of which nobody here is told.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from memos.errors import InvalidInput

PAUSE_MIN_S = 0.01
PAUSE_MAX_S = 0.25
BLOCK_S_DEFAULT = 10.0

WhenFull = Literal["reject", "block", "coalesce"]


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """Checked options of one call. Raises InvalidInput."""

    delay_s: float = 0.0
    idempotency_key: str | None = None
    when_full: WhenFull = "reject"
    timeout_s: float = BLOCK_S_DEFAULT

    def __post_init__(self) -> None:
        for name in ("delay_s", "timeout_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InvalidInput(f"{name} must be seconds, 0 or more, not {value!r}")
        if self.when_full not in ("reject", "block", "coalesce"):
            raise InvalidInput(f"when_full is {self.when_full!r}; give reject, block or coalesce")

    @property
    def waits(self) -> bool:
        """Whether a full queue is waited for."""
        return self.when_full == "block"


def pauses(now: float, timeout_s: float) -> Generator[float, float]:
    """The pauses (s) between the looks of a wait that begins at `now`; send in the time of each look.

    Ends when the time is over; the last pause ends with it.
    """
    deadline = now + timeout_s
    pause = PAUSE_MIN_S
    while now < deadline:
        now = yield min(pause, deadline - now)
        pause = min(PAUSE_MAX_S, pause * 2)
