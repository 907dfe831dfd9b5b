"""A TCP proxy on the loopback that does to connections what networks do. One thread, no dependencies.

* `cut` resets what is open, `refuse` also what comes until it is told otherwise: a cable that is out;
* `slow` brings each piece later, in both directions: a line that is far away;
* `stall` takes connections and bytes and passes nothing on: a black hole, noticed by time-outs alone. What was
  taken is passed on when it ends;
* `mute` loses the replies alone, `lose_reply` that to one request: what was asked for is done and nobody knows;
* `half_open` ends the connections to the server and leaves the client's open and silent: a server that is gone
  without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

CHUNK_BYTES = 65_536
PIECES_MAX = 64  # under way in one direction of a connection
CONNECT_S = 2.0
JOIN_S = 10.0
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Link:
    """One connection of a client, and the one to the server that stands for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    deaf: bool = False  # its server is gone, and nobody said so
    loses: bool = False  # with its next reply it ends


class Proxy:
    """Listens on `port` of the loopback for the server `host:server_port`, from construction to `close`."""

    def __init__(self, host: str, server_port: int) -> None:
        self._server = (host, server_port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._links: set[_Link] = set()
        self._delay_s = 0.0
        self._refusing = False
        self._muted = False
        self._after: bytes = b""
        self._lost = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="memos-chaos-proxy", daemon=True)
        self._thread.start()

    # -- what it does to connections --------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection that is open now; new ones are taken."""
        self._told(self._reset_all)

    def refuse(self, refusing: bool) -> None:
        """Reset what is open, and every new connection until `refuse(False)`."""

        def tell() -> None:
            self._refusing = refusing
            if refusing:
                self._reset_all()

        self._told(tell)

    def slow(self, delay_s: float) -> None:
        """Bring each piece that much later from now on; 0: at once."""
        self._delay_s = delay_s

    def stall(self, stalled: bool) -> None:
        """Take connections and bytes, and pass nothing on until `stall(False)`."""
        self._told(self._flows.clear if stalled else self._flows.set)

    def mute(self, muted: bool) -> None:
        """Lose what the server says. Ending it resets what is open: what was lost would be missed."""

        def tell() -> None:
            self._muted = muted
            if not muted:
                self._reset_all()

        self._told(tell)

    def lose_reply(self, after: bytes) -> threading.Event:
        """The next request that holds `after` is passed on, its reply is not, and the connection is reset. The
        event is set when that has happened."""
        happened = threading.Event()

        def tell() -> None:
            self._after, self._lost = after, happened

        self._told(tell)
        return happened

    def half_open(self) -> None:
        """End the connections to the server; their clients are not told."""

        def tell() -> None:
            for link in self._links:
                link.deaf = True
                _reset(link.server)

        self._told(tell)

    @property
    def open_links(self) -> int:
        """Connections that pass through now."""
        return len(self._links)

    # -- its thread ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Reset everything and stop. Safe to call twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(timeout=JOIN_S)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _told(self, tell: Callable[[], object]) -> None:
        """Carry it out on the loop's thread and wait until it is done."""
        done = threading.Event()

        def carried_out() -> None:
            tell()
            done.set()

        self._loop.call_soon_threadsafe(carried_out)
        done.wait(JOIN_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        serving = await asyncio.start_server(self._take, sock=self._listener)
        await self._stopped.wait()
        serving.close()
        self._reset_all()
        ours = asyncio.current_task()
        rest = [task for task in asyncio.all_tasks() if task is not ours]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for _ in range(3):  # transports close a turn of the loop later
            await asyncio.sleep(0)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        try:
            opening = asyncio.open_connection(*self._server)
            answers, requests = await asyncio.wait_for(opening, CONNECT_S)
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        link = _Link(writer, requests)
        for end in (writer, requests):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._refusing:  # it was told so while the server answered
            self._reset(link)
            return
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pass(link, reader, requests, replies=False),
                self._pass(link, answers, writer, replies=True),
            )
        except asyncio.CancelledError:
            pass  # it is closed; a cancelled task would be reported as a fault of its own
        finally:
            self._links.discard(link)
            writer.close()
            requests.close()

    async def _pass(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        """What comes from one end goes to the other, until one of them ends; then the other ends like it."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_MAX)
        sending = self._loop.create_task(self._send(link, under_way, sink, replies=replies))
        try:
            while piece := await source.read(CHUNK_BYTES):
                await under_way.put((self._loop.time() + self._delay_s, piece))
            if not (link.deaf and replies):
                await under_way.put((0.0, b""))
                await sending
                sink.close()
        except OSError:
            self._reset(link)
        finally:
            sending.cancel()

    async def _send(
        self,
        link: _Link,
        under_way: asyncio.Queue[tuple[float, bytes]],
        sink: asyncio.StreamWriter,
        *,
        replies: bool,
    ) -> None:
        while True:
            due, piece = await under_way.get()
            if not piece:
                return
            late = due - self._loop.time()
            if late > 0:
                await asyncio.sleep(late)
            await self._flows.wait()
            if replies and link.loses:
                self._lost.set()
                self._reset(link)
                return
            if link.deaf or (replies and self._muted):
                continue
            if not replies and self._after and self._after in piece:
                self._after, link.loses = b"", True
            sink.write(piece)
            await sink.drain()

    def _reset_all(self) -> None:
        for link in list(self._links):
            self._reset(link)

    def _reset(self, link: _Link) -> None:
        self._links.discard(link)
        _reset(link.client)
        _reset(link.server)


def _reset(end: asyncio.StreamWriter) -> None:
    """A reset, not a polite end: what was under way is lost."""
    transport: Any = end.transport
    found = transport.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
