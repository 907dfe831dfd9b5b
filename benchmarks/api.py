"""The HTTP API on the embedded stack: adds and searches a second, and how long one takes, by clients at once.

    python -m benchmarks.api [--quick] [--json FILE]

`memos serve` runs as a process of its own with the defaults a user gets (durable queue, the embedder where it is
installed); the clients are threads of this process, each with a connection of its own, so their cost is part of the
figures. The floor is what the same clients get from a bare FastAPI application that gives back the JSON it was sent,
in a process like the server's; `of the floor` and the CPU time of the server's process for each request say more on a
busy machine than rates do. Each client asks for a user of its own, and no two send the same text: encodings are kept,
and would be shared. After the adds every one that was answered 200 is looked for: `adds lost` must be 0. The last row kills the server in the middle of adds and looks again after a restart.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.report import Bar, Options, Row, main

CLIENTS = (1, 16, 64)
SECONDS, QUICK_SECONDS = 6.0, 1.5
START_S = 120.0
TURNS = (
    "My boat is called Petrel and lies in the harbour of Tavira, berth {n} of pier {pier}.",
    "On day {n} I talked with Maria of pier {pier} about the new engine for the boat.",
    "I would rather sail on Thursdays, since on day {n} the wind at pier {pier} was better.",
)


ECHO = """
import sys, uvicorn
from fastapi import FastAPI

app = FastAPI()

@app.get("/ready")
def ready() -> dict:
    return {}

@app.post("/echo")
def echo(body: dict) -> dict:
    return body

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


class Server:
    """`memos serve` on a free port, over a folder that outlives it."""

    def __init__(self, home: Path, *, floor: bool = False) -> None:
        """`floor`: the bare application instead."""
        self._floor = floor
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "MEMOS_HOME": str(self._home)}
        command = [sys.executable, "-m", "memos.cli", "serve", "--port", str(self.port)]
        if self._floor:
            command = [sys.executable, "-c", ECHO, str(self.port)]
        self._process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while True:
            try:
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(0.05)

    def cpu_s(self) -> float:
        """Processor time of the server's process so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()


def measure(options: Options) -> list[Row]:
    """All rows."""
    seconds = QUICK_SECONDS if options.quick else SECONDS
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        floor = Server(Path(folder), floor=True)
        server = Server(Path(folder))
        floor.start()
        server.start()
        lost = 0
        for clients in CLIENTS:
            answered: dict[int, list[str]] = {number: [] for number in range(clients)}
            bare = timed("floor", floor, clients, seconds / 2, echoing)
            added = timed("add", server, clients, seconds, adding(clients, answered))
            lost += missing(server, clients, answered)
            found = timed("search", server, clients, seconds, searching(clients))
            rows += bare + added + found
            for name, own in (("add", added), ("search", found)):
                ratio = own[0].measured / bare[0].measured if own[0].measured and bare[0].measured else None
                rows.append(Row(f"{name}, {_clients(clients)}, of the floor", None, ratio, "x"))
        floor.stop()
        rows.append(Row("adds lost", Bar("<=", 0), lost, "adds"))
        rows.append(Row("adds lost by SIGKILL", Bar("<=", 0), killed(server, seconds), "adds"))
        server.stop()
    return rows


Ask = Callable[[httpx.Client, int, int], None]


def echoing(client: httpx.Client, number: int, turn: int) -> None:
    """A request of an add's size that costs the framework alone."""
    text = TURNS[turn % len(TURNS)].format(n=turn, pier=number)
    body = {"user_id": f"u-{number}", "messages": [{"role": "user", "content": text}]}
    client.post("/echo", json=body).raise_for_status()


def adding(clients: int, answered: dict[int, list[str]]) -> Ask:
    """Adds of a turn; what was answered 200 is noted."""

    def ask(client: httpx.Client, number: int, turn: int) -> None:
        text = TURNS[turn % len(TURNS)].format(n=turn, pier=number)
        body = {"user_id": f"u{clients}-{number}", "messages": [{"role": "user", "content": text}]}
        if client.post("/product/add", json=body).status_code == 200:
            answered[number].append(text)

    return ask


def searching(clients: int) -> Ask:
    """Searches over what the adds before have stored; each asks for something else."""

    def ask(client: httpx.Client, number: int, turn: int) -> None:
        body = {
            "user_id": f"u{clients}-{number}",
            "query": f"Where did my boat lie on day {turn}, at pier {number}?",
        }
        client.post("/product/search", json=body).raise_for_status()

    return ask


def timed(name: str, server: Server, clients: int, seconds: float, ask: Ask) -> list[Row]:
    """`clients` threads that ask without a pause."""
    times: list[float] = []
    # Made before the clock starts: what a client costs to make is not the server's.
    opened = [httpx.Client(base_url=server.url, timeout=120, verify=False) for _ in range(clients)]
    used = server.cpu_s()
    started = time.perf_counter()
    until = started + seconds

    def work(number: int) -> None:
        own: list[float] = []
        turn = 0
        while time.perf_counter() < until:
            asked = time.perf_counter()
            ask(opened[number], number, turn)
            own.append(time.perf_counter() - asked)
            turn += 1
        times.extend(own)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    used = server.cpu_s() - used
    for client in opened:
        client.close()
    times.sort()
    label = f"{name}, {_clients(clients)}"
    return [
        Row(label, None, len(times) / took, "requests/s"),
        Row(f"{label}, p50", None, 1_000 * times[len(times) // 2], "ms"),
        Row(f"{label}, p99", None, 1_000 * times[min(len(times) - 1, int(0.99 * len(times)))], "ms"),
        Row(f"{label}, server", None, 1_000 * used / len(times), "CPU ms a request"),
    ]


def _clients(number: int) -> str:
    return f"{number} client{'s' if number > 1 else ''}"


def missing(server: Server, clients: int, answered: dict[int, list[str]]) -> int:
    """How many answered adds a listing does not show."""
    lost = 0
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for number, texts in answered.items():
            body = {"mem_cube_id": f"u{clients}-{number}"}
            [listed] = client.post("/product/get_memory", json=body).json()["data"]["text_mem"]
            kept = {one["memory"] for one in listed["memories"]}
            lost += sum(text not in kept for text in texts)
    return lost


def killed(server: Server, seconds: float) -> int:
    """SIGKILL while 16 clients add; how many answered adds are gone after a restart."""
    clients = 16
    answered: dict[int, list[str]] = {number: [] for number in range(clients)}
    add = adding(clients, answered)
    stopping = threading.Event()

    def work(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=120, verify=False) as client:
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
    server.kill()
    stopping.set()
    for thread in threads:
        thread.join()
    server.start()
    return missing(server, clients, answered)


if __name__ == "__main__":
    main("The HTTP API on the embedded stack", measure, settings={"turns": len(TURNS), "queue": "sqlite"})
