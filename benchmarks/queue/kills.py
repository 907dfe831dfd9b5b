"""The rows about killed workers, taken from a run of `memos chaos` with leases of two seconds."""

from __future__ import annotations

from benchmarks.report import Bar, Options, Row
from memos.chaos.conductor import Wanted, conduct
from memos.chaos.plan import Backend
from memos.chaos.redis_server import find_server

KILLS, KILLS_QUICK = 100, 10
HEARTBEAT = 1 / 3  # of a lease


def kill_rows(options: Options) -> list[Row]:
    """On Redis where a redis-server can be started, otherwise on SQLite."""
    backend: Backend = "redis" if find_server() is not None else "sqlite"
    kills = KILLS_QUICK if options.quick else KILLS
    wanted = Wanted(backend, seconds=120.0, seed=1, kills=kills)
    found = conduct(wanted).verdict
    slowest = max(found.recoveries, default=None)
    beyond = None if slowest is None else slowest - wanted.lease_s * (1 + HEARTBEAT)
    note = f"{backend}, {found.kills} kills, {found.submitted:,} messages"
    return [
        Row("kill_redispatch", Bar("<=", 0.5), beyond, "s over lease + heartbeat", f"slowest of {note}"),
        Row("kill_lost", Bar("<=", 0), found.lost + found.wrongly_dead, "messages", note),
        Row("kill_effects_twice", Bar("<=", 0), found.effects_twice, "effects", f"of {found.effects:,}"),
        Row(
            "kill_rerun",
            Bar("<=", 0),
            max(0, found.repeats - found.in_flight) + found.repeats_unexplained,
            "beyond in flight",
            f"{found.repeats} repeats, {found.in_flight} in flight",
        ),
    ]
