"""A TCP proxy on the loopback that cuts connections and slows them down. One thread, no dependencies."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from types import TracebackType

CHUNK_BYTES = 65_536
LOOK_S = 0.05


class Proxy:
    """Listens on `port` of the loopback for the server `host:server_port`, from construction to `close`."""

    def __init__(self, host: str, server_port: int) -> None:
        self._server = (host, server_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._peers: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._cut = threading.Event()
        self._delay_s = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="memos-chaos-proxy", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close every connection that is open now; new ones are taken."""
        self._cut.set()

    def slow(self, delay_s: float) -> None:
        """Hold each piece back for so long from now on; 0: not at all."""
        self._delay_s = delay_s

    def close(self) -> None:
        self._closed = True
        self._thread.join(timeout=10.0)
        for one in (*self._peers, self._listener):
            one.close()
        self._selector.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(LOOK_S):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if one is self._listener:
                    self._accept()
                elif one in self._peers:
                    self._pass_on(one)
            if self._cut.is_set():
                self._cut.clear()
                for one in list(self._peers):
                    self._drop(one)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._server, timeout=1.0)
        except OSError:
            client.close()
            return
        server.settimeout(5.0)
        client.settimeout(5.0)
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, one: socket.socket) -> None:
        if self._delay_s:
            time.sleep(self._delay_s)
        try:
            piece = one.recv(CHUNK_BYTES)
            if piece:
                self._peers[one].sendall(piece)
                return
        except OSError:
            pass
        self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        other = self._peers.get(one)
        for end in (one, other):
            if end is not None and self._peers.pop(end, None) is not None:
                self._selector.unregister(end)
                with contextlib.suppress(OSError):
                    # A reset, not a polite end: what was under way is lost.
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                end.close()
