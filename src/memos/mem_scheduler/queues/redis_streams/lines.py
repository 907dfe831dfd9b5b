"""Connections for the scripts: a list of idle ones, and nothing between them and the call.

What redis-py's client does around each command (retries, pools, events) costs as much as the command; a
script needs none of it, as the queue repeats lost calls itself. The connections are redis-py's own, made
as its pool makes them, so that TLS, users and Sentinel are what they are elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from dataclasses import dataclass
from typing import Any

import redis


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many have to hold what a call wrote, and for how long to wait for them. `key`: something to write, for
    a connection that has not written yet: WAIT is about what its own connection wrote."""

    number: int
    wait_s: float
    key: str = ""


class NotReplicated(Exception):
    """The call was carried out, and too few replicas have said so."""

    def __init__(self, held: int) -> None:
        super().__init__(held)
        self.held = held


class Lines:
    """As many connections as there are calls at a time. Thread-safe; a forked child makes its own."""

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._idle: deque[Any] = deque()
        self._pid = os.getpid()

    def ask(self, *command: Any, replicas: Replicas | None = None) -> Any:
        """Send one command and give its reply. Raises what redis-py raises; a broken connection is dropped,
        and the idle ones with it: what broke it (a restart, a failover) broke them too.

        `replicas`: give the reply when so many have it; NotReplicated when they do not in time."""
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()
        try:
            line = self._idle.pop()
        except IndexError:
            line = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            line.send_command(*command)
            reply = line.read_response()
            held = 0 if replicas is None else self._held(line, replicas)
        except redis.exceptions.ResponseError:
            self._idle.append(line)  # the answer is an error, the connection is whole
            raise
        except BaseException:
            self._drop(line)
            self.close()
            raise
        self._idle.append(line)
        if replicas is not None and held < replicas.number:
            raise NotReplicated(held)
        return reply

    @staticmethod
    def _held(line: Any, replicas: Replicas) -> int:
        """How many replicas hold what this connection wrote."""
        if replicas.key:
            line.send_command("SET", replicas.key, "", "EX", 60)
            line.read_response()
        line.send_command("WAIT", replicas.number, max(1, round(1_000 * replicas.wait_s)))
        return int(line.read_response())

    def close(self) -> None:
        """Drop the idle connections. Calls go on with new ones."""
        while True:
            try:
                self._drop(self._idle.pop())
            except IndexError:
                return

    @staticmethod
    def _drop(line: Any) -> None:
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            line.disconnect()
