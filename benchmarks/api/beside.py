"""The embedded stack beside servers and workers on PostgreSQL and Redis, in one run on one machine.

CPU times count from the first request until the queue is empty: what follows from an add is in its cost. On a machine
that all parts share the sum over the parts says how many cores a rate needs, and the rate how much of it came out here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks.api.load import Answered, Asked, adding, ask_all, missing, searching, until_idle_s
from benchmarks.api.parts import Installation, composed, embedded
from benchmarks.report import Bar, Row

CLIENTS = (1, 16, 64)
INSTALLATIONS: dict[str, Callable[[], AbstractContextManager[Installation]]] = {
    "embedded": embedded,
    "1 worker": lambda: composed(servers=1, workers=1),
    "2 workers": lambda: composed(servers=1, workers=2),
    "2 servers, 2 workers": lambda: composed(servers=2, workers=2),
}
QUICK = ("embedded", "1 worker")
QUICK_CLIENTS = 16


def measure(seconds: float, *, quick: bool) -> list[Row]:
    """Each installation with each number of clients; with `quick` two of them and one number."""
    rows: list[Row] = []
    for name, start in INSTALLATIONS.items():
        chosen = [one for one in CLIENTS if not quick or (name in QUICK and one == QUICK_CLIENTS)]
        if not chosen:
            rows.append(Row(name, None, None, "requests/s", "--quick"))
            continue
        with start() as installation:
            lost = 0
            for clients in chosen:
                made, gone = _rows(installation, name, clients, seconds)
                rows += made
                lost += gone
        rows.append(Row(f"{name}, adds lost", Bar("<=", 0), lost, "adds"))
    return rows


def _rows(installation: Installation, name: str, clients: int, seconds: float) -> tuple[list[Row], int]:
    """The rows, and how many answered adds are not there."""
    answered: Answered = {number: [] for number in range(clients)}
    before = installation.cpu_s()
    added = ask_all(installation.urls, clients, seconds, adding(clients, answered))
    idle_s = until_idle_s(installation.urls[0])
    label = f"{name}, {clients} client{'s' if clients > 1 else ''}"
    rows = _asked(f"{label}, add", added, _used(before, installation.cpu_s(), added.count))
    rows.append(Row(f"{label}, queue empty", None, idle_s, "s after the last add", f"{added.count:,} adds"))
    lost = missing(installation.urls[0], clients, answered)
    before = installation.cpu_s()
    found = ask_all(installation.urls, clients, seconds, searching(clients))
    return rows + _asked(f"{label}, search", found, _used(before, installation.cpu_s(), found.count)), lost


def _used(before: dict[str, float], after: dict[str, float], count: int) -> dict[str, float]:
    return {kind: 1_000 * (after[kind] - before[kind]) / count for kind in before}


def _asked(label: str, asked: Asked, used_ms: dict[str, float]) -> list[Row]:
    split = ", ".join(f"{kind} {ms:.1f}" for kind, ms in used_ms.items())
    return [
        Row(label, None, asked.rate, "requests/s"),
        Row(f"{label}, p50", None, asked.p50_ms, "ms"),
        Row(f"{label}, p99", None, asked.p99_ms, "ms"),
        Row(f"{label}, CPU", None, sum(used_ms.values()), "ms a request", split),
    ]
