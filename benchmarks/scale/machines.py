"""How many machines users need: measured CPU time a turn in each part, and assumptions that stand beside the answer."""

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
class Turn:
    """CPU ms of a whole turn with everything that follows from it. 0 where a part is not there."""

    program_ms: float
    database_ms: float = 0.0
    redis_ms: float = 0.0  # of one thread: a Redis uses one core however many there are


@dataclass(frozen=True, slots=True)
class Machines:
    """What so many users need."""

    users: float
    turns_a_second: float  # at the peak
    program_cores: float
    machines: int  # for servers and workers
    database_cores: float
    databases: int  # machines of their own
    redis_cores: float
    redises: int  # of one thread each
    stored_tb: float


def needed(users: float, turn: Turn, *, item_bytes: float, given: Assumptions) -> Machines:
    """Databases and Redises are of installations side by side, among which users are divided."""
    a_day = users * given.active_share * given.turns_a_day
    peak = a_day / DAY_S * given.peak_factor

    def cores(ms: float) -> float:
        return peak * ms / 1_000 / given.utilisation

    program, database, redis = cores(turn.program_ms), cores(turn.database_ms), cores(turn.redis_ms)
    return Machines(
        users,
        peak,
        program,
        max(1, math.ceil(program / given.cores)),
        database,
        math.ceil(database / given.cores),
        redis,
        math.ceil(redis),
        a_day * given.kept_days * given.items_a_turn * item_bytes / 1e12,
    )
