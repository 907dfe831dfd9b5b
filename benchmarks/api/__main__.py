"""The rows of `python -m benchmarks.api`."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import httpx

from benchmarks.api import beside
from benchmarks.api.load import (
    TURNS,
    Answered,
    Ask,
    adding,
    ask_all,
    client_of,
    echoing,
    missing,
    searching,
)
from benchmarks.api.parts import Part, echo, server
from benchmarks.report import Bar, Options, Row, main

CLIENTS = (1, 16, 64)
SECONDS, QUICK_SECONDS = 6.0, 1.5


def measure(options: Options) -> list[Row]:
    """All rows."""
    seconds = QUICK_SECONDS if options.quick else SECONDS
    if "workers" in options.flags:
        return beside.measure(seconds, quick=options.quick)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        floor, whole = echo(), server(Path(folder))
        floor.start()
        whole.start()
        lost = 0
        for clients in CLIENTS:
            answered: Answered = {number: [] for number in range(clients)}
            bare = timed("floor", floor, clients, seconds / 2, echoing)
            added = timed("add", whole, clients, seconds, adding(clients, answered))
            lost += missing(whole.url, clients, answered)
            found = timed("search", whole, clients, seconds, searching(clients))
            rows += bare + added + found
            for name, own in (("add", added), ("search", found)):
                ratio = own[0].measured / bare[0].measured if own[0].measured and bare[0].measured else None
                rows.append(Row(f"{name}, {_clients(clients)}, of the floor", None, ratio, "x"))
        floor.stop()
        rows.append(Row("adds lost", Bar("<=", 0), lost, "adds"))
        rows.append(Row("adds lost by SIGKILL", Bar("<=", 0), killed(whole, seconds), "adds"))
        whole.stop()
    return rows


def timed(name: str, part: Part, clients: int, seconds: float, ask: Ask) -> list[Row]:
    """`clients` threads that ask without a pause."""
    used = part.cpu_s()
    asked = ask_all([part.url], clients, seconds, ask)
    used = part.cpu_s() - used
    label = f"{name}, {_clients(clients)}"
    return [
        Row(label, None, asked.rate, "requests/s"),
        Row(f"{label}, p50", None, asked.p50_ms, "ms"),
        Row(f"{label}, p99", None, asked.p99_ms, "ms"),
        Row(f"{label}, server", None, 1_000 * used / asked.count, "CPU ms a request"),
    ]


def _clients(number: int) -> str:
    return f"{number} client{'s' if number > 1 else ''}"


def killed(whole: Part, seconds: float) -> int:
    """SIGKILL while 16 clients add; how many answered adds are gone after a restart."""
    clients = 16
    answered: Answered = {number: [] for number in range(clients)}
    add = adding(clients, answered)
    stopping = threading.Event()

    def work(number: int) -> None:
        with client_of(whole.url) as client:
            turn = 10_000
            while not stopping.is_set():
                try:
                    add(client, number, turn)
                except httpx.TransportError:
                    return
                turn += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    whole.kill()
    stopping.set()
    for thread in threads:
        thread.join()
    whole.start()
    return missing(whole.url, clients, answered)


if __name__ == "__main__":
    main(
        "The HTTP API",
        measure,
        settings={"turns": len(TURNS)},
        flags={"workers": "the embedded stack beside servers and workers on PostgreSQL and Redis"},
    )
