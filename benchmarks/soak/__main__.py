"""A soak: servers and workers under load for minutes, with faults, and an audit of everything at the end.

    python -m benchmarks.soak [--minutes 15] [--rate R | --share 0.7] [--seed N] [--quick] [--json FILE]

PostgreSQL (fsync on) and Redis (appendfsync always), two servers and two workers start privately on this machine, with
the program's defaults but for leases of 5 s and no limit of requests. A ramp finds the knee: the highest rate at which
what is offered is served, the 99th percentile of an add stays under a second and the queue does not grow. Then
`--share` of it is offered at random (open loop) while faults strike at random. Users are many, each says what nobody
else says; an add is repeated under its message id until it is acknowledged. Exits with 1 when anything acknowledged is
missing, anything was applied twice, a text was seen by somebody else, a task was given up or is left over.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Bar, Row, conditions, table
from benchmarks.soak import strikes
from benchmarks.soak.audit import Findings, audit, left, settled
from benchmarks.soak.clients import Answered, Ledger
from benchmarks.soak.offer import Offer
from benchmarks.soak.site import Site, until
from benchmarks.soak.watch import Watch, sparkline

USERS = 40
LEASE_S = 5.0
RAMP_FROM, RAMP_BY = 8.0, 1.4
RAMP_STEPS_MAX = 12
KNEE_P99_S = 1.0
SERVED_MIN = 0.9  # of what is offered
BACKLOG_S = 2.0  # of tasks, at the end of a step, for a queue that does not grow
SETTLE_S = 300.0
CALM_SHARE = 0.5  # of the time between two faults, at least
SETTINGS = {"MEMOS_API__RATE_PER_MINUTE": "0", "MEMOS_LOG__LEVEL": "ERROR"}


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault: when it began, ended and was over, in seconds of the monotonic clock."""

    name: str
    began: float
    healed: float
    recovered: float


def main() -> None:
    """Read the command line, run, print, exit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="how long, the ramp not included")
    parser.add_argument("--rate", type=float, help="requests a second; the ramp is left out")
    parser.add_argument("--share", type=float, default=0.7, help="of the knee that the ramp finds")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals and faults")
    parser.add_argument("--embedder", default="minilm", choices=("minilm", "none"))
    parser.add_argument("--quick", action="store_true", help="a ramp of short steps and half a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    given = parser.parse_args()
    before = conditions()
    settings = {**SETTINGS, "MEMOS_MODELS__EMBEDDER": given.embedder}
    with Site(settings=settings, lease_s=LEASE_S, fsync=True, concurrency=8) as site:
        rows, broken = run(
            site,
            minutes=0.5 if given.quick else given.minutes,
            rate=given.rate,
            share=given.share,
            seed=given.seed,
            step_s=3.0 if given.quick else 10.0,
        )
    print("; ".join(f"{name} {value}" for name, value in before.items()))
    print(f"settings: seed={given.seed}, embedder={given.embedder}, users={USERS}, lease={LEASE_S:g} s")
    print(table(rows))
    if given.json is not None:
        document = {"rows": [row.as_json() for row in rows], "conditions": before}
        given.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if broken or any(row.ok is False for row in rows) else 0)


def run(
    site: Site, *, minutes: float, rate: float | None, share: float, seed: int, step_s: float
) -> tuple[list[Row], bool]:
    """The rows, and whether a promise was broken."""
    rows: list[Row] = []
    if rate is None:
        knee, held = knee_of(site, seed=seed, step_s=step_s)
        note = f"steps of {step_s:g} s" if held else "the lowest rate of the ramp, and not carried"
        rows.append(Row("knee", None, knee, "requests/s", note))
        rate = share * knee
    offer = Offer(site.servers, [f"u{n}" for n in range(USERS)], rate=rate, seed=seed)
    seconds = 60.0 * minutes
    with Watch(site) as watch:
        began = time.monotonic()
        with offer:
            struck = list(strike(site, offer.ledger, until_s=began + seconds, seed=seed))
            time.sleep(max(0.0, began + seconds - time.monotonic()))
            took = time.monotonic() - began
            offered = offer.offered
        with site.runtime() as runtime:
            try:
                settling = until(lambda: settled(runtime), lambda: left(runtime), SETTLE_S)
                leftover = ""
            except AssertionError as error:
                settling, leftover = SETTLE_S, str(error)
            found = audit(runtime, offer.ledger)
    rows += [
        Row("offered", None, offered / took, "requests/s", f"for {took:.0f} s, {rate:.1f} wanted"),
        Row(
            "served",
            None,
            sum(one.ok for one in offer.ledger.answered) / took,
            "requests/s",
            f"{offer.dropped} were never taken up" if offer.dropped else "",
        ),
        *client_rows(offer.ledger),
        *latency_rows(offer.ledger, struck),
        *fault_rows(struck),
        *promise_rows(found, leftover, settling),
        *process_rows(watch),
    ]
    for example in found.examples:
        print(example)
    return rows, bool(found.broken or leftover)


# -- the load -----------------------------------------------------------------------------------------


def knee_of(site: Site, *, seed: int, step_s: float) -> tuple[float, bool]:
    """The highest rate of the ramp that is carried, which goes down from where it begins if it must; the lowest
    one, and False, where none is."""
    rate = carried = RAMP_FROM
    held = down = False
    for step in range(RAMP_STEPS_MAX):
        with site.runtime() as runtime:
            with Offer(site.servers, [f"r{step}n{n}" for n in range(USERS)], rate=rate, seed=seed) as offer:
                time.sleep(step_s)
                waiting = offer.waiting
                depth = runtime.queue.depth(lanes=False)
                served = sum(one.ok for one in list(offer.ledger.answered))
                offered = offer.offered
            adds = sorted(one.took_s for one in offer.ledger.answered if one.kind == "add")
            p99 = quantile(adds, 0.99)
            backlog = depth.remaining + depth.running
            until(lambda: settled(runtime), lambda: left(runtime), SETTLE_S)
        holds = (
            p99 <= KNEE_P99_S
            and served >= SERVED_MIN * offered - 1
            and backlog <= BACKLOG_S * rate
            and waiting <= rate
        )
        print(
            f"ramp: {rate:.1f}/s offered, {served / step_s:.1f}/s served, add p99 {1_000 * p99:.0f} ms, "
            f"{backlog} tasks waiting: {'carried' if holds else 'too much'}",
            flush=True,
        )
        if not holds and held:
            break
        carried, held, down = rate, holds, down or not holds
        if holds and down:
            break
        rate = rate / RAMP_BY if down else rate * RAMP_BY
    return carried, held


def strike(site: Site, ledger: Ledger, *, until_s: float, seed: int) -> Iterator[Struck]:
    """Every kind of fault in random order, again and again; between two of them at least half of the time is calm."""
    source = random.Random(seed)
    kinds: list[strikes.Named] = []
    longest = max(10.0, (until_s - time.monotonic()) / 20)
    while True:
        pause = min(longest, 3.0 + source.expovariate(1 / (longest / 2)))
        if time.monotonic() + pause + longest > until_s:
            return
        time.sleep(pause)
        if not kinds:
            kinds = source.sample(strikes.ALL, len(strikes.ALL))
        kind = kinds.pop()
        length = source.uniform(8.0, 12.0) if "stall" in kind.name else source.uniform(0.5, 5.0)
        began = time.monotonic()
        try:
            kind.strike(site, length)
        except AssertionError as error:  # nothing was under way that it could have struck
            print(f"{kind.name}: not struck, {error}", flush=True)
            continue
        healed = time.monotonic()
        recovered = recovery(site, ledger, healed)
        one = Struck(kind.name, began, healed, recovered)
        print(f"{kind.name}: {healed - began:.1f} s, recovered after {recovered - healed:.1f} s", flush=True)
        yield one
        time.sleep(CALM_SHARE * (recovered - began))


def recovery(site: Site, ledger: Ledger, healed: float) -> float:
    """When every server says that it is ready, and an add that was wanted after the fault is acknowledged."""
    until(lambda: all(one.status_of("/ready") == 200 for one in site.servers), "ready again")
    ready = time.monotonic()

    def answered() -> bool:
        return any(one.ok and one.kind == "add" and one.wanted_at > healed for one in ledger.answered[-500:])

    until(answered, "an add after the fault")
    return max(ready, time.monotonic())


# -- the report ---------------------------------------------------------------------------------------


def client_rows(ledger: Ledger) -> list[Row]:
    ended = Counter((one.kind, one.ok) for one in ledger.answered)
    rows = [
        Row(f"{kind}s answered", None, ended[kind, True], "requests", f"{ended[kind, False]} given up")
        for kind in ("add", "search", "chat")
    ]
    tries = sum(one.tries for one in ledger.answered)
    kinds = ", ".join(f"{name} {count}" for name, count in ledger.errors.most_common())
    rows.append(
        Row(
            "errors before retries",
            None,
            100 * sum(ledger.errors.values()) / max(1, tries),
            "% of tries",
            kinds,
        )
    )
    kinds = ", ".join(f"{name} {count}" for name, count in ledger.given_up.most_common())
    share = 100 * sum(ledger.given_up.values()) / max(1, len(ledger.answered))
    rows.append(Row("errors after retries", None, share, "% of requests", kinds))
    return rows


def latency_rows(ledger: Ledger, struck: Sequence[Struck]) -> list[Row]:
    """Of what was answered: apart whatever touched a fault, from its begin to the recovery."""

    def inside(one: Answered) -> bool:
        return any(
            one.wanted_at < fault.recovered and one.wanted_at + one.took_s > fault.began for fault in struck
        )

    rows = []
    for kind in ("add", "search"):
        for where, wanted in (("calm", False), ("at a fault", True)):
            times = sorted(
                one.took_s for one in ledger.answered if one.ok and one.kind == kind and inside(one) is wanted
            )
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                measured = 1_000 * quantile(times, share) if times else None
                rows.append(Row(f"{kind}, {where}, {name}", None, measured, "ms", f"{len(times)} requests"))
    return rows


def fault_rows(struck: Sequence[Struck]) -> list[Row]:
    rows = []
    for name in sorted({one.name for one in struck}):
        took = [one.recovered - one.healed for one in struck if one.name == name]
        lasted = sum(one.healed - one.began for one in struck if one.name == name) / len(took)
        rows.append(
            Row(f"recovery, {name}", None, max(took), "s", f"longest of {len(took)}, {lasted:.1f} s each")
        )
    return rows


def promise_rows(found: Findings, leftover: str, settling_s: float) -> list[Row]:
    """Each with its bar of none."""
    none = Bar("<=", 0)
    broken = Counter(found.broken)
    lost = broken.pop("acknowledged and lost", 0)
    foreign = broken.pop("foreign texts in answers", 0) + broken.pop("foreign texts stored", 0)
    letters = broken.pop("dead letters", 0)
    twice = sum(broken.pop(name) for name in list(broken) if name.endswith("twice"))
    return [
        Row(
            "acknowledged adds",
            None,
            found.acknowledged,
            "adds",
            f"{found.stored} stored, {found.facts} facts",
        ),
        Row("acknowledged and lost", none, lost, "adds"),
        Row("applied twice", none, twice, "effects", f"{found.facts} facts and {found.uses} uses counted"),
        Row("foreign texts", none, foreign, "texts"),
        Row("dead letters", none, letters, "tasks"),
        Row("anything else", none, sum(broken.values()), "", ", ".join(broken)),
        Row("left over", none, float(bool(leftover)), "", leftover),
        Row("settled after the end", None, settling_s, "s"),
    ]


def process_rows(watch: Watch) -> list[Row]:
    rows = []
    for name, memory in watch.memory.items():
        if memory.lives:
            _, first, last = memory.lives[-1]
            note = f"from {first:.0f} MiB" + (
                f", started {len(memory.lives)} times" if len(memory.lives) > 1 else ""
            )
            rows.append(Row(f"memory, {name}", None, last, "MiB", note))
    depths = [depth for _, depth in watch.depths]
    known = [depth for depth in depths if depth is not None]
    rows.append(Row("queue depth", None, max(known, default=0), "tasks at most", sparkline(depths)))
    rows.append(Row("connections to PostgreSQL", None, watch.links_max, "at most"))
    rows.append(Row("connections to Redis", None, watch.server_links_max, "at most"))
    return rows


def quantile(ordered: Sequence[float], share: float) -> float:
    """0 of nothing."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


if __name__ == "__main__":
    main()
