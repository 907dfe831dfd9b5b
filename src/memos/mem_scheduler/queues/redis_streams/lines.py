"""Connections for the scripts: a list of idle ones, and nothing between them and the call.

What redis-py's client does around each command (retries, pools, events) costs as much as the command; a
script needs none of it, as the queue repeats lost calls itself. The connections are redis-py's own, made
as its pool makes them, so that TLS, users and Sentinel are what they are elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import Any

import redis


class Lines:
    """As many connections as there are calls at a time. Thread-safe; a forked child makes its own."""

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._idle: deque[Any] = deque()
        self._pid = os.getpid()

    def ask(self, *command: Any) -> Any:
        """Send one command and give its reply. Raises what redis-py raises; a broken connection is dropped,
        and the idle ones with it: what broke it (a restart, a failover) broke them too."""
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()
        try:
            line = self._idle.pop()
        except IndexError:
            line = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            line.send_command(*command)
            reply = line.read_response()
        except redis.exceptions.ResponseError:
            self._idle.append(line)  # the answer is an error, the connection is whole
            raise
        except BaseException:
            self._drop(line)
            self.close()
            raise
        self._idle.append(line)
        return reply

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
