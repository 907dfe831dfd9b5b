"""How a server stops under load: the listener closes, what was asked is answered, and clients are told to leave.

A client that keeps its connection may send its next request in the very moment in which the server closes it, and
sees a broken connection instead of an answer. So from the signal on every answer says `connection: close`, and a
connection that is kept open has IDLE_S for one more request. New connections are refused, which tells a client, or
who balances between servers, that nothing was done.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

IDLE_S = 1.0  # that a kept connection has for one more request
LOOK_S = 0.02


class Drain:
    """Whether the server stops: set once, read by every answer."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False


class DrainingServer(uvicorn.Server):
    """Serves until a signal, then drains; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, let connections go, then what uvicorn does."""
        await asyncio.sleep(0)  # connections that wait at the listener are taken in before it closes
        self._drain.begun = True
        for server in self.servers:
            server.close()
        until = asyncio.get_running_loop().time() + IDLE_S
        while self._connected() and not self.force_exit and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(LOOK_S)
        await super().shutdown(sockets)

    def _connected(self) -> bool:
        return bool(self.server_state.connections)


def serve(app: FastAPI, drain: Drain, *, host: str, port: int, grace_s: float) -> None:
    """Serve until interrupted or told to stop; then the process ends with 0. Streams that are still open `grace_s` after that are cut: a client that waits for
    an hour must not hold up a stop."""
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=max(1, round(grace_s))
    )
    # uvicorn raises the signal again when it is done, for whoever handled it before.
    signal.signal(signal.SIGTERM, _end)
    with contextlib.suppress(KeyboardInterrupt):
        DrainingServer(config, drain).run()


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
