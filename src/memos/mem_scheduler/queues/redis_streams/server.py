"""Asking the server: scripts by name, calls that are repeated when their reply was lost.

A call waits for a server that is away, with growing pauses and full jitter, and is then sent again with the
same names; what is not passing (a refused user, a command that fails) is told at once.
"""

from __future__ import annotations

import contextlib
import random as random_module
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import redis

from memos import log
from memos.clock import Clock
from memos.errors import QueueUnavailable
from memos.mem_scheduler.queues.redis_streams.cluster import Nodes
from memos.mem_scheduler.queues.redis_streams.connection import (
    RedisAddress,
    connect,
    is_passing,
    translated,
)
from memos.mem_scheduler.queues.redis_streams.lines import Lines, NotReplicated, Replicas
from memos.mem_scheduler.queues.redis_streams.scripts import Scripts

logger = log.get_logger(__name__)

PAUSE_MIN_S = 0.02
PAUSE_MAX_S = 1.0


class Repeated:
    """Whether a call was repeated, so that the server may have answered before."""

    __slots__ = ("happened",)

    def __init__(self) -> None:
        self.happened = False

    def __bool__(self) -> bool:
        return self.happened


class Server:
    """One queue's way to its server. Thread-safe."""

    def __init__(
        self,
        address: RedisAddress,
        scripts: Scripts,
        *,
        clock: Clock,
        server_time: bool,
        reconnect_s: float,
        source: random_module.Random,
        user_batches_max: int,
        base: str,
        nodes: Nodes | None = None,
    ) -> None:
        """`server_time=False` sends the time of `clock` with each script. On a cluster the server is the node that
        has the keys which begin with `base`; `nodes` knows which one that is."""
        if nodes is None and address.is_cluster:
            nodes = Nodes(address)
        self.nodes = nodes
        self.client = connect(address) if nodes is None else nodes.client_of(base)
        self.lines = Lines(self.client)
        self._address = address
        self._scripts = scripts
        self._clock = clock
        self._server_time = server_time
        self._reconnect_s = reconnect_s
        self._random = source
        self._user_batches_max = user_batches_max
        self._lock = threading.Lock()
        self._calls = 0
        self._closing = threading.Event()

    def new_call(self, instance: str) -> str:
        """The name of one call: a repeat of it after a lost reply is recognised by it."""
        with self._lock:
            self._calls += 1
            return f"{instance}:{self._calls}"

    def run(
        self,
        name: str,
        *args: Any,
        again: int | None = None,
        wait_s: float = 0.0,
        repeated: Repeated | None = None,
        replicas: Replicas | None = None,
        patience_s: float | None = None,
    ) -> Any:
        """Run a script. `again`: the argument that becomes "1" when the call is repeated. `replicas`: those that
        have to hold it; QueueUnavailable when they do not, although the script ran."""
        wanted = None if replicas is None else replace(replicas, key="")
        arguments = [self._user_batches_max, *args]

        def once() -> Any:
            time = "" if self._server_time else f"{self._clock.monotonic()!r} {self._clock.now()!r}"
            return self._scripts.run(self.lines.ask if wanted is None else held, name, time, *arguments)

        def held(*command: Any) -> Any:
            # Only what runs the call is waited for: a library that has to be sent before is not it.
            return self.lines.ask(*command, replicas=None if command[0] == "FUNCTION" else wanted)

        def on_repeat() -> None:
            nonlocal wanted
            wanted = replicas  # the script may find that it ran, and write nothing
            if again is not None:
                arguments[1 + again] = "1"
            if repeated is not None:
                repeated.happened = True

        try:
            return self.ask(once, wait_s=wait_s, on_repeat=on_repeat, patience_s=patience_s)
        except NotReplicated as few:
            assert replicas is not None
            raise QueueUnavailable(
                f"the Redis at {self._address} took the call, but {few.held} of {replicas.number} replicas hold it "
                f"after {replicas.wait_s:g} s (redis_wait_replicas): it is carried out, unless the server fails "
                "before they do"
            ) from few

    def ask(
        self,
        ask: Callable[[], Any],
        *,
        wait_s: float = 0.0,
        on_repeat: Callable[[], None] = lambda: None,
        patience_s: float | None = None,
    ) -> Any:
        """Ask the server; wait for one that is away, at most `reconnect_s` or `wait_s`, whichever is more, or
        `patience_s` where that is given."""
        deadline: float | None = None
        pause_s = PAUSE_MIN_S
        while True:
            try:
                return ask()
            except (redis.exceptions.RedisError, OSError) as error:
                now = self._clock.monotonic()
                if deadline is None:
                    limit_s = max(self._reconnect_s, wait_s) if patience_s is None else patience_s
                    deadline = now + limit_s
                if self.nodes is not None:
                    self._find_again(error)
                if not is_passing(error) or now >= deadline or self._closing.is_set():
                    raise translated(error, self._address) from error
                logger.warning("queue.away", error=type(error).__name__, again_in_s=round(pause_s, 3))
                self._closing.wait(pause_s * self._random.uniform(0.5, 1.0))
                pause_s = min(PAUSE_MAX_S, pause_s * 2)
                on_repeat()

    def _find_again(self, error: Exception) -> None:
        """The node may be another one now: connections are made anew, to where the cluster says."""
        assert self.nodes is not None
        self.nodes.look_again(error)
        self.hang_up()

    def stop_waiting(self) -> None:
        """Calls no longer wait for a server that is away."""
        self._closing.set()

    def hang_up(self) -> None:
        """Drop the connections that nobody uses; a late finish opens one anew."""
        self.lines.close()
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            self.client.connection_pool.disconnect(inuse_connections=False)

    def after_fork(self, *, closed: bool) -> None:
        """In the child: what a thread of the parent held locked stays so, hence anew."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        if closed:
            self._closing.set()
