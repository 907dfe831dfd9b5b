"""Which fault strikes whom and when: drawn from a seed, the same for the same seed. Pure.

The plan repeats exactly; what the processes are doing when a fault strikes does not, because they run in
real time. A seed that broke a guarantee is therefore run again until it breaks once more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Backend = Literal["local", "sqlite", "redis"]
Kind = Literal["kill", "pause", "stop", "cut", "slow", "client_kill", "script_flush", "server_kill"]

# How often each fault comes, out of the sum.
WEIGHTS: dict[Backend, dict[Kind, int]] = {
    "local": {"kill": 12, "pause": 3, "stop": 2},
    "sqlite": {"kill": 24, "pause": 4, "stop": 2},
    "redis": {
        "kill": 48,
        "pause": 8,
        "stop": 4,
        "cut": 4,
        "slow": 2,
        "client_kill": 3,
        "script_flush": 2,
        "server_kill": 1,
    },
}
OF_THE_SERVER: frozenset[Kind] = frozenset({"cut", "slow", "client_kill", "script_flush", "server_kill"})


@dataclass(frozen=True, slots=True)
class Fault:
    """`after_s` seconds after the one before it; `target` picks a process; `length_s` of a pause or outage."""

    after_s: float
    kind: Kind
    target: int
    length_s: float


def faults(
    backend: Backend, seed: int, *, gap_s: float, lease_s: float, without: frozenset[Kind] = frozenset()
) -> Iterator[Fault]:
    """An endless plan: gaps are exponential with mean `gap_s`, pauses last longer than the lease."""
    source = random.Random(seed)
    weights = {kind: weight for kind, weight in WEIGHTS[backend].items() if kind not in without}
    kinds = list(weights)
    while True:
        [kind] = source.choices(kinds, weights=list(weights.values()))
        after_s = min(source.expovariate(1 / gap_s), 5 * gap_s)
        length_s = lease_s + source.uniform(0.3, 1.0) if kind == "pause" else source.uniform(0.1, 0.8)
        yield Fault(after_s, kind, source.randrange(1 << 30), length_s)
