"""The proxy passes bytes on, and a cut ends the connections that are open."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from memos.chaos.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it is sent; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while piece := connection.recv(1_000):
                    connection.sendall(piece)
            except OSError:
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_bytes_pass_and_a_cut_ends_the_connection(echo: int) -> None:
    """What goes through comes back; after a cut the old connection is dead and a new one works."""
    with Proxy("127.0.0.1", echo) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as first:
            first.sendall(b"one")
            assert first.recv(100) == b"one"
            proxy.cut()
            with pytest.raises(OSError):
                if first.recv(100) == b"":
                    raise ConnectionResetError
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as second:
            second.sendall(b"two")
            assert second.recv(100) == b"two"


def test_a_server_that_is_away_refuses(echo: int) -> None:
    """A connection to a dead server is closed at once, and the proxy goes on."""
    probe = socket.create_server(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    with (
        Proxy("127.0.0.1", port) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client,
    ):
        assert client.recv(100) == b""
