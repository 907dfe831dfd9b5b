"""The rows that need Redis, under their names; each says so where there is none."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.queue.instances import rate_of
from benchmarks.queue.latency import urgent_ms, wake_ms
from benchmarks.queue.local import idle_percent
from benchmarks.queue.peers.drains import drain_rate, peers_python
from benchmarks.queue.redis_floors import Floor
from benchmarks.queue.redis_rates import Compared, measure_drain, measure_rates
from benchmarks.queue.redis_site import Site, redis_runtime, redis_site
from benchmarks.queue.workload import messages
from benchmarks.report import Bar, Options, Row
from memos.errors import ConfigError
from memos.mem_scheduler.queues.base import TaskQueue

PEERS = ("dramatiq", "taskiq")
BARS: dict[str, tuple[Bar, str]] = {
    "submit_batch": (Bar(">=", 0.5, 0.8), "of pipelined XADD"),
    "submit_single": (Bar(">=", 0.5, 0.7), "of single XADD"),
    "drain": (Bar(">=", 0.25, 0.45), "of XREADGROUP + XACK"),
    "cycle": (Bar(">=", 0.4, 0.8), "of the bare cycle"),
    "vs_dramatiq": (Bar(">=", 10, 20), "x theirs"),
    "vs_taskiq": (Bar(">=", 10, 20), "x theirs"),
    "idle_p50": (Bar("<=", 3, 2), "x BLOCK floor"),
    "idle_p99": (Bar("<=", 3, 2), "x BLOCK floor"),
    "urgent_10k": (Bar("<=", 3), "x idle p99"),
    "urgent_100k": (Bar("<=", 1.3), "x urgent_10k"),
    "instances_2": (Bar(">=", 1.7), "x one instance"),
    "instances_4": (Bar(">=", 3), "x one instance"),
    "instances_order": (Bar("<=", 0), "violations"),
    "idle_cpu_redis": (Bar("<=", 1), "% of a core"),
    "memory_after": (Bar("<=", 0), "keys of work left"),
}


def redis_rows(options: Options) -> list[Row]:
    """All of them, in the order of `BARS`."""
    with redis_site() as site:
        if isinstance(site, str):
            return [_left_out(name, site) for name in BARS]
        try:
            found = _measure(site, options)
        except ConfigError as error:
            return [_left_out(name, f"{error}"[:100]) for name in BARS]
    rows = [found.pop(name, None) or _left_out(name, "left out by --quick") for name in BARS]
    return [*rows, *found.values()]


def _measure(site: Site, options: Options) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    (one,) = messages(1, 1)
    with redis_runtime() as runtime:
        queue = runtime.queue
        floor = Floor(site.client, site.prefix, one.to_json().encode())
        rates = measure_rates(queue, floor, rounds=2 if options.quick else 9)
        for name in ("submit_batch", "submit_single", "cycle"):
            rows[name] = _compared(name, getattr(rates, name))
        few = rates.cycle_4_lanes
        rows["cycle_4_lanes"] = Row("cycle_4_lanes", None, few.share, BARS["cycle"][1], few.note)
        drained = measure_drain(floor, rounds=2 if options.quick else 9)
        through = f"{drained.note}; claim and finish alone {rates.drain_queue.share:.2f}"
        rows["drain"] = _row("drain", drained.share, f"{site.server}; {through}")
        _latencies(rows, queue, floor, options)
        queue.clear()
        floor.close()
        rows |= _instances(site, queue, options)
        rows["memory_after"] = _memory_after(site)
    if not options.quick:
        with redis_runtime(start=True) as runtime:
            idle = idle_percent(runtime, 20.0)
        rows["idle_cpu_redis"] = _row("idle_cpu_redis", idle, "whole runtime, 20 s")
    rows |= _peers(site, statistics.median(drained.ours), count=3_000 if options.quick else 20_000)
    return rows


def _latencies(rows: dict[str, Row], queue: TaskQueue, floor: Floor, options: Options) -> None:
    samples = 200 if options.quick else 2_000
    bare = statistics.quantiles(floor.wake_ms(samples), n=100)
    ours = statistics.quantiles(wake_ms(queue, samples), n=100)
    for name, at in (("idle_p50", 49), ("idle_p99", 98)):
        rows[name] = _row(name, ours[at] / bare[at], f"{ours[at]:.2f} ms, floor {bare[at]:.2f} ms")
    few = 100 if options.quick else 500
    urgent = statistics.quantiles(urgent_ms(queue, backlog=10_000, samples=few), n=100)
    rows["urgent_10k"] = _row(
        "urgent_10k", urgent[98] / ours[98], f"p50 {urgent[49]:.2f} ms, p99 {urgent[98]:.2f} ms"
    )
    if options.quick:
        return
    long = statistics.quantiles(urgent_ms(queue, backlog=100_000, samples=few), n=100)
    rows["urgent_100k"] = _row(
        "urgent_100k", long[98] / urgent[98], f"p50 {long[49]:.2f} ms, p99 {long[98]:.2f} ms"
    )


def _instances(site: Site, queue: TaskQueue, options: Options) -> dict[str, Row]:
    counts = (1, 2) if options.quick else (1, 2, 4)
    rates: dict[int, float] = {}
    violations = 0
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            rates[count], disorder = rate_of(
                count, queue, site, Path(folder), messages=2_000 if options.quick else 10_000
            )
            violations += disorder
    rows = {
        f"instances_{count}": _row(
            f"instances_{count}",
            rates[count] / rates[1],
            f"{rates[count]:,.0f} messages/s, one {rates[1]:,.0f}",
        )
        for count in counts[1:]
    }
    rows["instances_order"] = _row("instances_order", violations, "over all of these runs")
    return rows


def _memory_after(site: Site) -> Row:
    """Lanes, leases, delays and letters go with the last message; policies, marks and TTLs may stay."""
    left = [key.decode().removeprefix(site.prefix) for key in site.left()]
    work = [name for name in left if ":lane:" in name and site.client.type(site.prefix + name) == b"stream"]
    lasting = [name for name in left if site.client.ttl(site.prefix + name) == -1]
    size = sum(site.client.memory_usage(site.prefix + name) or 0 for name in left)
    return _row(
        "memory_after", len(work), f"{len(left)} keys, {len(lasting)} without a TTL, {size / 1024:,.0f} KiB"
    )


def _peers(site: Site, ours: float, *, count: int) -> dict[str, Row]:
    if peers_python() is None:
        return {f"vs_{peer}": _left_out(f"vs_{peer}", "`make bench-env` installs it") for peer in PEERS}
    rows = {}
    for peer in PEERS:
        theirs = drain_rate(peer, host=site.host, port=site.port, prefix=site.prefix, count=count)
        rows[f"vs_{peer}"] = _row(f"vs_{peer}", ours / theirs, f"{theirs:,.0f} tasks/s, ours {ours:,.0f}")
    return rows


def _compared(name: str, compared: Compared) -> Row:
    return _row(name, compared.share, compared.note)


def _row(name: str, measured: float, note: str) -> Row:
    bar, unit = BARS[name]
    return Row(name, bar, measured, unit, note)


def _left_out(name: str, why: str) -> Row:
    bar, unit = BARS[name]
    return Row(name, bar, None, unit, why)
