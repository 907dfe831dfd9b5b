"""How many machines users need: measured CPU time a turn, and assumptions that stand beside the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Change them to yours; nothing here is measured."""

    turns_a_day: float = 10.0  # of an active user
    active_share: float = 0.2  # of all users, on a day
    peak_factor: float = 3.0  # the busiest hour over the mean
    utilisation: float = 0.6  # of a core at the peak: at 0.6 eight workers wait little, at 0.9 long
    cores: int = 16  # of a machine
    items_a_turn: float = 2.5  # what was said, the answer, and what was read from them
    kept_days: float = 365.0

    def __str__(self) -> str:
        return (
            f"{self.turns_a_day:g} turns a day of {self.active_share:.0%} of the users, peak {self.peak_factor:g} times the mean, "
            f"cores used to {self.utilisation:.0%}, {self.cores} cores a machine, {self.items_a_turn:g} items a turn kept for "
            f"{self.kept_days:g} days"
        )


@dataclass(frozen=True, slots=True)
class Machines:
    """What so many users need."""

    users: float
    turns_a_second: float  # at the peak
    cores: float
    machines: int
    stored_tb: float


def needed(users: float, *, turn_ms: float, item_bytes: float, given: Assumptions) -> Machines:
    """turn_ms: CPU time of a turn with everything that follows from it."""
    a_day = users * given.active_share * given.turns_a_day
    peak = a_day / DAY_S * given.peak_factor
    cores = peak * turn_ms / 1_000 / given.utilisation
    stored = a_day * given.kept_days * given.items_a_turn * item_bytes / 1e12
    return Machines(users, peak, cores, max(1, math.ceil(cores / given.cores)), stored)
