"""Which labels somebody serves: those of recent claims, and of claims whose batches still run.

A lane whose head carries another label is shown as parked. It needs no mark to come back: a claim
that names the label finds it, in order.
"""

from __future__ import annotations

SERVED_S = 60.0  # how long a claim speaks for its labels
_CLAIMS_MAX = 256


class ServedLabels:
    """What was asked for, and when. Not thread-safe; times are monotonic seconds."""

    def __init__(self) -> None:
        self._claimed_at: dict[frozenset[str], float] = {}
        self._leases: dict[frozenset[str], int] = {}

    def claimed(self, labels: frozenset[str], now: float) -> None:
        if labels not in self._claimed_at and len(self._claimed_at) >= _CLAIMS_MAX:
            oldest = min(self._claimed_at, key=self._claimed_at.__getitem__)
            del self._claimed_at[oldest]
        self._claimed_at[labels] = now

    def leased(self, labels: frozenset[str]) -> None:
        self._leases[labels] = self._leases.get(labels, 0) + 1

    def ended(self, labels: frozenset[str]) -> None:
        left = self._leases[labels] - 1
        if left:
            self._leases[labels] = left
        else:
            del self._leases[labels]

    def now_served(self, now: float) -> set[str]:
        """The labels that somebody serves."""
        served: set[str] = set()
        for labels in self._leases:
            served |= labels
        for labels, claimed_at in self._claimed_at.items():
            if claimed_at >= now - SERVED_S:
                served |= labels
        return served
