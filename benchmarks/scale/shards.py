"""Rows about a queue in shards: whose turn it is across them, and what shards cost or give.

    python -m benchmarks.scale.shards [--quick] [--json FILE] [--shards N]

Private servers: one redis-server for one shard and for several, three cluster nodes for several. Each claim is
settled before the next. Work is counted in messages; rates are by the clock of this machine, whose cores servers and
client share, so that they say what shards cost here and not what they give on machines of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis

from memos.chaos.redis_server import PrivateRedis, free_port
from memos.clock import SystemClock
from memos.mem_scheduler.queues.base import Done, Finish
from memos.mem_scheduler.queues.redis_streams import RedisAddress, open_redis_queue
from memos.mem_scheduler.queues.redis_streams.shards import shard_of
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

USERS = 100
BACKLOG = 10_000
OTHERS = 10  # how many times less the other users have
BATCH_MAX = 32
ROUNDS = 3
NODES = 3
SLOTS = 16_384


@dataclass(frozen=True)
class Row:
    """One figure."""

    name: str
    value: float
    unit: str
    note: str = ""


def message(user: str) -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id=user, mem_cube_id="cube", label="query", content="What is new?")


@contextlib.contextmanager
def single() -> Iterator[RedisAddress]:
    with PrivateRedis(aof=False) as server:
        yield RedisAddress(server.url)


@contextlib.contextmanager
def cluster() -> Iterator[RedisAddress]:
    """Three nodes, joined by redis-cli as an operator would."""
    with contextlib.ExitStack() as opened:
        nodes = [
            opened.enter_context(
                PrivateRedis(
                    aof=False, options=("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
                )
            )
            for _ in range(NODES)
        ]
        places = [f"127.0.0.1:{node.port}" for node in nodes]
        subprocess.run(
            ["redis-cli", "--cluster", "create", *places, "--cluster-yes"],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )
        clients = [redis.Redis(port=node.port, decode_responses=True) for node in nodes]
        while any(one.execute_command("CLUSTER INFO")["cluster_state"] != "ok" for one in clients):
            time.sleep(0.05)
        yield RedisAddress(f"redis+cluster://{','.join(places)}")


def opened(address: RedisAddress, shards: int) -> Any:
    return open_redis_queue(
        address,
        clock=SystemClock(),
        shards=shards,
        prefix="bench",
        lane_messages_max=50_000,
        messages_max=2_000_000,
    )


def fairness(address: RedisAddress, shards: int, *, backlog: int) -> list[Row]:
    """A hundred users, in each shard one with a backlog and the others with a tenth of it; one comes late."""
    big = [
        next(f"user-{n}" for n in range(USERS) if shard_of(f"user-{n}", shards) == one)
        for one in range(shards)
    ]
    users = [f"user-{n}" for n in range(USERS)]
    counts = {user: backlog if user in big else backlog // OTHERS for user in users}
    with opened(address, shards) as queue:
        for user, count in counts.items():
            for first in range(0, count, 1_000):
                queue.submit([message(user)] * min(1_000, count - first))
        served: Counter[str] = Counter()
        batch_max, batches, worst, late_after = 1, 0, 0.0, 0
        late_in = backlog // OTHERS // BATCH_MAX * USERS // 3
        while min(counts[user] - served[user] for user in users) > 0:
            (batch,) = queue.claim({"query"}, lanes_max=1, batch_max=BATCH_MAX, timeout_s=0)
            queue.finish(batch, [Done()] * len(batch.deliveries))
            batches += 1
            if batch.lane.user_id == "late":
                late_after = batches - late_in
                continue
            served[batch.lane.user_id] += len(batch.deliveries)
            batch_max = max(batch_max, len(batch.deliveries))
            if batches == late_in:
                queue.submit([message("late")])
            share = served.total() / USERS
            worst = max(worst, max(abs(served[user] - share) for user in users))
        queue.clear()
    where = f"{USERS} users, {len(big)} with {backlog} messages, the rest with {backlog // OTHERS}, batches of {BATCH_MAX}"
    name = f"shards_{shards}"
    return [
        Row(f"{name}_lag", worst, "messages", f"service - fair share, the worst of all moments; {where}"),
        Row(f"{name}_lag_batches", worst / batch_max, "full batches", f"of {batch_max}; bound 2"),
        Row(f"{name}_late", late_after, "batches", "of others before a late user's only message"),
    ]


def rates(address: RedisAddress, shards: int, *, count: int) -> tuple[float, float]:
    """Messages a second: submitted in calls of 500 of one user each, and claimed and settled."""
    with opened(address, shards) as queue:
        calls = [[message(f"user-{n % USERS}")] * 500 for n in range(count // 500)]
        begun = time.perf_counter()
        for call in calls:
            queue.submit(call)
        submitted = time.perf_counter()
        left = count
        while left:
            batches = queue.claim({"query"}, lanes_max=16, timeout_s=1)
            queue.finish_all([Finish(one, [Done()] * len(one.deliveries)) for one in batches])
            left -= sum(len(one.deliveries) for one in batches)
        ended = time.perf_counter()
    return count / (submitted - begun), count / (ended - submitted)


def throughput(places: dict[str, tuple[RedisAddress, int]], *, count: int) -> list[Row]:
    """Rounds take turns, so that what else the machine does meets all alike."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in places}
    for _ in range(ROUNDS):
        for name, (address, shards) in places.items():
            found[name].append(rates(address, shards, count=count))
    rows = []
    for place, what in enumerate(("submit", "drain")):
        first = [one[place] for one in found["one_shard"]]
        for name, own in found.items():
            ratios = [one[place] / base for one, base in zip(own, first, strict=True)]
            value = statistics.median(one[place] for one in own)
            rows.append(
                Row(f"{name}_{what}", value, "messages/s", f"{statistics.median(ratios):.2f} of one shard")
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="A queue in shards.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    backlog, count = (1_000, 5_000) if options.quick else (BACKLOG, 50_000)
    rows: list[Row] = []

    def show(some: list[Row]) -> None:
        rows.extend(some)
        for row in some:
            print(f"{row.name:<28} {row.value:>12,.1f} {row.unit:<14} {row.note}", flush=True)

    for shards in (1, options.shards):
        with single() as address:
            show(fairness(address, shards, backlog=backlog))
    with single() as one, single() as several, cluster() as nodes:
        show(
            [
                Row(f"cluster_{row.name}", row.value, row.unit, row.note)
                for row in fairness(nodes, options.shards, backlog=backlog)
            ]
        )
        places = {
            "one_shard": (one, 1),
            f"one_server_{options.shards}_shards": (several, options.shards),
            f"cluster_{options.shards}_shards": (nodes, options.shards),
        }
        show(throughput(places, count=count))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
