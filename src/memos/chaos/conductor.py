"""Carries a plan out over real processes, lets the rest drain in peace, and has the outcome judged.

The run has a folder of its own with store, queue file and ledger, and for Redis a key prefix of its own on
a private server (append-only file on) behind a proxy, or on the server that was named, which is then
neither killed nor flushed of its keys.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from memos.chaos import ledger
from memos.chaos.child import Order
from memos.chaos.ledger import Ledger, Stood, name_of, now
from memos.chaos.nursery import Nursery, alive
from memos.chaos.plan import OF_THE_SERVER, Backend, Fault, Kind, faults
from memos.chaos.proxy import Proxy
from memos.chaos.redis_server import PrivateRedis, ask, parts_of
from memos.chaos.verdict import Outcome, Verdict, judge
from memos.memory.item import ItemStatus
from memos.memory.store import ItemFilter
from memos.runtime import Runtime, build
from memos.settings import Settings

WORKERS, SUBMITTERS = 3, 2
DRAIN_S = 180.0
STOP_S = 30.0
LOOK_S = 0.02
SELF_KILL_CHANCE = 0.0005
SLOW_S = 0.02


@dataclass(frozen=True)
class Wanted:
    """One run. `kills` 0: as many as there are in `seconds`; `url` "": a private redis-server."""

    backend: Backend
    seconds: float = 60.0
    seed: int = 1
    kills: int = 0
    lease_s: float = 2.0
    gap_s: float = 0.25
    rate: float = 60.0
    url: str = ""
    shards: int = 1  # of a queue on Redis


@dataclass
class Progress:
    """What a run looks like while it goes on."""

    phase: str = "starting"
    seconds: float = 0.0
    kills: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    remaining: int = 0


@dataclass(frozen=True)
class Result:
    """What a run found. `drained` False: something was still waiting when time was up."""

    verdict: Verdict
    faults: dict[str, int]
    seconds: float
    drained: bool
    folder: Path | None = None  # ledger, store and queue of a run that broke something, to look into


Watcher = Callable[[Progress], None]


@dataclass
class _Place:
    """One role, filled by one process after the other."""

    name: str
    works: bool
    submits: bool
    pid: int = 0
    starts: int = 0
    paused_since: float = 0.0
    wake_at: float = 0.0
    stopping: bool = False  # it was asked to


@dataclass(frozen=True)
class _Server:
    """The Redis side of a run."""

    host: str
    port: int
    proxy: Proxy
    private: PrivateRedis | None


def conduct(wanted: Wanted, watch: Watcher = lambda _: None) -> Result:
    """Run it. Raises ConfigError when the backend cannot be run here."""
    folder = Path(tempfile.mkdtemp(prefix="memos-chaos-"))
    kept = False
    try:
        with _server_of(wanted) as server, Nursery() as nursery:
            result = _Run(wanted, folder, server, nursery, watch).go()
        kept = bool(result.verdict.broken) or not result.drained
        return replace(result, folder=folder if kept else None)
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _server_of(wanted: Wanted) -> Iterator[_Server | None]:
    if wanted.backend != "redis":
        yield None
        return
    with contextlib.ExitStack() as opened:
        private = None
        if wanted.url:
            host, port = parts_of(wanted.url)
        else:
            private = opened.enter_context(PrivateRedis(aof=True))
            host, port = "127.0.0.1", private.port
        yield _Server(host, port, opened.enter_context(Proxy(host, port)), private)


class _Run:
    def __init__(
        self, wanted: Wanted, folder: Path, server: _Server | None, nursery: Nursery, watch: Watcher
    ) -> None:
        self.wanted = wanted
        self.server = server
        self.nursery = nursery
        self.watch = watch
        self.progress = Progress()
        self.path = folder / "ledger.jsonl"
        self.ledger = Ledger(self.path)
        self.prefix = f"chaos-{uuid.uuid4().hex[:8]}"
        self.environment = self._environment(folder, server.proxy.port if server else 0)
        if wanted.backend == "local":
            self.places = [_Place("p", works=True, submits=True)]
        else:
            self.places = [_Place(f"w{n}", works=True, submits=False) for n in range(WORKERS)]
            self.places += [_Place(f"s{n}", works=False, submits=True) for n in range(SUBMITTERS)]

    def _environment(self, folder: Path, redis_port: int) -> dict[str, str]:
        settings = {
            "MEMOS_HOME": str(folder),
            "MEMOS_MODELS__EMBEDDER": "none",
            "MEMOS_SCHEDULER__WORKERS": "4",
            "MEMOS_MEMORY__LONG_TERM_CAPACITY": "10000000",
            "MEMOS_QUEUE__STATUS_ENTRIES_MAX": "1000000",
            "MEMOS_STORE__BUSY_TIMEOUT_S": "30",
            "MEMOS_LOG__LEVEL": "CRITICAL",
        }
        if self.wanted.backend == "redis":
            settings["MOS_SCHEDULER_USE_REDIS_QUEUE"] = "true"
            settings["MEMSCHEDULER_REDIS_HOST"] = "127.0.0.1"
            settings["MEMSCHEDULER_REDIS_PORT"] = str(redis_port)
            settings["MEMSCHEDULER_REDIS_STREAM_KEY_PREFIX"] = self.prefix
            settings["MEMOS_QUEUE__SHARDS"] = str(self.wanted.shards)
        else:
            settings["MEMOS_QUEUE__BACKEND"] = self.wanted.backend
        return settings

    def go(self) -> Result:
        begun = now()
        try:
            self._strike(begun)
            drained = self._drain()
        finally:
            for place in self.places:
                self._end(place)
        with self._runtime() as runtime:
            in_memory = self.wanted.backend == "local"
            outcome = Outcome(effects_of(runtime), None if in_memory else states_of(runtime))
        self._tell("judging", begun)
        events = ledger.read(self.path)
        verdict = judge(events, outcome, lease_s=self.wanted.lease_s)
        self._forget()
        return Result(verdict, dict(self.progress.faults), now() - begun, drained)

    # -- the storm -----------------------------------------------------------------------------------

    def _strike(self, begun: float) -> None:
        private = self.server is None or self.server.private is not None
        without: frozenset[Kind] = frozenset() if private else frozenset({"server_kill", "script_flush"})
        wanted = self.wanted
        plan = faults(
            wanted.backend, wanted.seed, gap_s=wanted.gap_s, lease_s=wanted.lease_s, without=without
        )
        for place in self.places:
            self._start(place)
        fault = next(plan)
        due = now() + 1.0 + fault.after_s
        while now() - begun < wanted.seconds and not 0 < wanted.kills <= self.progress.kills:
            self._look_after()
            if now() >= due:
                self._strike_once(fault)
                fault = next(plan)
                due = now() + fault.after_s
            self._tell("striking", begun)
            time.sleep(LOOK_S)

    def _strike_once(self, fault: Fault) -> None:
        awake = [place for place in self.places if place.pid and not place.paused_since]
        if fault.kind in OF_THE_SERVER:
            self._strike_server(fault)
        elif fault.kind == "pause":
            if len(awake) < (1 if self.wanted.backend == "local" else 2):
                return
            place = awake[fault.target % len(awake)]
            place.paused_since, place.wake_at = now(), now() + fault.length_s
            _signal(place.pid, signal.SIGSTOP)
        else:
            everyone = [place for place in self.places if place.pid]
            place = everyone[fault.target % len(everyone)]
            if fault.kind == "kill":
                self._kill(place)
                self._start(place)
            else:
                self._ask_to_stop(place)
        self.progress.faults[fault.kind] += 1

    def _strike_server(self, fault: Fault) -> None:
        assert self.server is not None
        server, begun = self.server, now()
        match fault.kind:
            case "cut":
                server.proxy.cut()
            case "slow":
                server.proxy.slow(SLOW_S)
                self._wait(fault.length_s)
                server.proxy.slow(0)
            case "client_kill":
                # Only connections through our proxy would be ours on a shared server: cut those instead.
                if server.private is None:
                    server.proxy.cut()
                else:
                    ask(server.host, server.port, "CLIENT KILL TYPE normal")
            case "script_flush":
                ask(server.host, server.port, "SCRIPT FLUSH")
                ask(server.host, server.port, "FUNCTION FLUSH")
            case "server_kill":
                assert server.private is not None
                server.private.kill()
                self._wait(fault.length_s)
                server.private.start()
        if fault.kind != "script_flush":
            # Until connections are made anew nobody can renew a lease or hear an answer.
            self.ledger.write(Stood(begun, now() + self.wanted.lease_s / 2, 0, fault.kind))

    def _wait(self, seconds: float) -> None:
        until = now() + seconds
        while now() < until:
            self._look_after()
            time.sleep(LOOK_S)

    # -- processes -----------------------------------------------------------------------------------

    def _order(self, place: _Place, *, calm: bool) -> Order:
        return Order(
            ledger=str(self.path),
            environment=self.environment,
            name=place.name,
            start=place.starts,
            seed=self.wanted.seed,
            lease_s=self.wanted.lease_s,
            works=place.works,
            submits=place.submits and not (calm and self.wanted.backend != "local"),
            in_memory=self.wanted.backend == "local",
            chance=0.0 if calm else SELF_KILL_CHANCE,
            rate=self.wanted.rate * (2 if self.wanted.backend == "local" else 1),
        )

    def _start(self, place: _Place, *, calm: bool = False) -> None:
        place.starts += 1
        place.paused_since = place.wake_at = 0.0
        place.stopping = False
        place.pid = self.nursery.spawn(self._order(place, calm=calm))

    def _kill(self, place: _Place) -> None:
        """SIGKILL, whether it is awake or not."""
        pid, place.pid = place.pid, 0
        if not alive(pid):
            self.progress.kills += not place.stopping  # it was quicker
            return
        if place.paused_since:  # its leases may have run out meanwhile, and others run what it held
            self.ledger.write(Stood(place.paused_since, now(), pid, "paused"))
            place.paused_since = 0.0
        self.ledger.write(ledger.Killed(now(), pid, "random"))
        _signal(pid, signal.SIGKILL)
        while alive(pid):
            time.sleep(0.001)
        self.progress.kills += 1

    def _look_after(self, *, calm: bool = False) -> None:
        """Wake who has slept enough; replace who killed itself."""
        for place in self.places:
            if place.paused_since and now() >= place.wake_at:
                self._wake(place)
            if place.pid and not alive(place.pid):
                self.progress.kills += not place.stopping
                self._start(place, calm=calm)

    def _wake(self, place: _Place) -> None:
        self.ledger.write(Stood(place.paused_since, now() + self.wanted.lease_s / 2, place.pid, "paused"))
        place.paused_since = 0.0
        _signal(place.pid, signal.SIGCONT)

    def _ask_to_stop(self, place: _Place) -> None:
        if place.paused_since:
            self._wake(place)
        place.stopping = True
        _signal(place.pid, signal.SIGTERM)

    def _end(self, place: _Place) -> None:
        """Ask it to stop, and wait; a process that does not stop is killed, which is written down."""
        if not place.pid:
            return
        self._ask_to_stop(place)
        pid = place.pid
        until = now() + STOP_S
        while alive(pid) and now() < until:
            time.sleep(LOOK_S)
        if alive(pid):
            self._kill(place)
        place.pid = 0

    # -- the calm ------------------------------------------------------------------------------------

    def _drain(self) -> bool:
        """No more faults: fresh processes work off what is left. Whether nothing is."""
        for place in self.places:
            if place.pid:
                self._ask_to_stop(place)
        for place in self.places:
            self._end(place)
        if self.wanted.backend == "local":  # a last process passes on what the dead ones had chained
            self._start(self.places[0], calm=True)
            time.sleep(1.0)
            self._end(self.places[0])
            return True
        workers = [place for place in self.places if place.works]
        for place in workers:
            self._start(place, calm=True)
        self.places = workers
        until = now() + DRAIN_S
        begun = now()
        with self._runtime() as runtime:
            while now() < until:
                self._look_after(calm=True)
                depth = runtime.queue.depth(lanes=False)
                self.progress.remaining = depth.remaining + depth.running
                if not self.progress.remaining and not runtime.store.pending_followups():
                    return True
                self._tell("draining", begun)
                time.sleep(0.1)
        return False

    def _runtime(self) -> Runtime:
        return build(Settings.load(self.environment), start=False)

    def _forget(self) -> None:
        """On a server that is not ours the run's keys go with the run."""
        if self.server is not None and self.server.private is None:
            with self._runtime() as runtime:
                runtime.queue.dead.purge()
                runtime.queue.clear()

    def _tell(self, phase: str, begun: float) -> None:
        self.progress.phase, self.progress.seconds = phase, now() - begun
        self.watch(self.progress)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def states_of(runtime: Runtime) -> dict[str, str]:
    """What the queue says of each message, by its name in the ledger."""
    states: dict[str, str] = {}
    for one in runtime.queue.statuses():
        name = name_of(one.label, one.item_id)
        # A repeated relay sends its copy again: what is done once is done.
        if states.get(name) != "completed":
            states[name] = str(one.state)
    return states


def effects_of(runtime: Runtime) -> Counter[str]:
    """How often each effect stands in the store; its text names the message."""
    counts: Counter[str] = Counter()
    wanted = ItemFilter(statuses=tuple(ItemStatus))
    cursor: str | None = None
    while True:
        page = runtime.store.find(wanted, limit=1_000, cursor=cursor)
        counts.update(item.memory for item in page.items)
        cursor = page.next_cursor
        if cursor is None:
            return counts


def fresh_seed() -> int:
    """A seed for a run that names none."""
    return random.SystemRandom().randrange(1, 1_000_000)
