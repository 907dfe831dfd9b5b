"""Clients that ask without a pause, each a thread with a connection and a user of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

TURNS = (
    "My boat is called Petrel and lies in the harbour of Tavira, berth {n} of pier {pier}.",
    "On day {n} I talked with Maria of pier {pier} about the new engine for the boat.",
    "I would rather sail on Thursdays, since on day {n} the wind at pier {pier} was better.",
)
IDLE_S = 300.0

Ask = Callable[[httpx.Client, int, int], None]  # the client, its number, its turn
Answered = dict[int, list[str]]  # client -> texts that were answered 200


@dataclass(frozen=True, slots=True)
class Asked:
    """What a while of asking came to."""

    count: int
    took_s: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        return self.count / self.took_s


def echoing(client: httpx.Client, number: int, turn: int) -> None:
    """A request of an add's size that costs the framework alone."""
    body = {"user_id": f"u-{number}", "messages": [{"role": "user", "content": text_of(number, turn)}]}
    client.post("/echo", json=body).raise_for_status()


def text_of(number: int, turn: int) -> str:
    """What a client says at its turn: nobody else's words."""
    return TURNS[turn % len(TURNS)].format(n=turn, pier=number)


def adding(clients: int, answered: Answered) -> Ask:
    """Adds of a turn; what was answered 200 is noted."""

    def ask(client: httpx.Client, number: int, turn: int) -> None:
        text = text_of(number, turn)
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


def ask_all(urls: Sequence[str], clients: int, seconds: float, ask: Ask) -> Asked:
    """`clients` threads, spread over the servers, that ask without a pause."""
    times: list[float] = []
    # Made before the clock starts: what a client costs to make is not the server's.
    opened = [client_of(urls[number % len(urls)]) for number in range(clients)]
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
    for client in opened:
        client.close()
    times.sort()
    middle, late = times[len(times) // 2], times[min(len(times) - 1, int(0.99 * len(times)))]
    return Asked(len(times), took, 1_000 * middle, 1_000 * late)


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=120, verify=False, trust_env=False)


def missing(url: str, clients: int, answered: Answered) -> int:
    """How many answered adds a listing does not show."""
    lost = 0
    with client_of(url) as client:
        for number, texts in answered.items():
            body = {"mem_cube_id": f"u{clients}-{number}"}
            [listed] = client.post("/product/get_memory", json=body).json()["data"]["text_mem"]
            kept = {one["memory"] for one in listed["memories"]}
            lost += sum(text not in kept for text in texts)
    return lost


def until_idle_s(url: str) -> float:
    """Seconds until nothing waits and nothing runs."""
    started = time.perf_counter()
    with client_of(url) as client:
        while time.perf_counter() < started + IDLE_S:
            totals = client.get("/product/scheduler/queue").raise_for_status().json()["data"]["totals"]
            if not totals["remaining"] and not totals["running"]:
                return time.perf_counter() - started
            time.sleep(0.05)
    raise SystemExit(f"the queue was not empty after {IDLE_S:.0f} s")
