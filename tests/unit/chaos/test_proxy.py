"""The proxy passes bytes on, and does to connections what it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
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


def joined(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def received(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = connection.recv(count - len(found))
        if not piece:
            break
        found += piece
    return found


def is_reset(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_much_passes_whole_and_an_end_behind_it(echo: int) -> None:
    """A megabyte comes back in order, and the end of one side reaches the other after what was said before."""
    sent = bytes(range(256)) * 4_096
    with Proxy("127.0.0.1", echo) as proxy, joined(proxy.port) as connection:
        threading.Thread(target=connection.sendall, args=(sent,), daemon=True).start()
        assert received(connection, len(sent)) == sent
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


def test_a_stalled_line_takes_and_passes_on_later(echo: int) -> None:
    """While it stalls connections open and nothing comes back; what was sent meanwhile is not lost."""
    with Proxy("127.0.0.1", echo) as proxy, joined(proxy.port) as old:
        proxy.stall(True)
        with joined(proxy.port) as new:
            for one, text in ((old, b"old"), (new, b"new")):
                one.sendall(text)
                one.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    one.recv(100)
                one.settimeout(10)
            proxy.stall(False)
            assert (received(old, 3), received(new, 3)) == (b"old", b"new")


def test_a_slow_line_is_late_and_not_narrow(echo: int) -> None:
    """Each piece comes later by the delay of both directions, and pieces of two connections do not add up."""
    with Proxy("127.0.0.1", echo) as proxy, joined(proxy.port) as first, joined(proxy.port) as second:
        proxy.slow(0.1)
        began = time.monotonic()
        first.sendall(b"a")
        second.sendall(b"b")
        assert (first.recv(1), second.recv(1)) == (b"a", b"b")
        assert time.monotonic() - began >= 0.2
        proxy.slow(0.0)


def test_refusing_resets_what_comes(echo: int) -> None:
    """Open connections and new ones end until it is told otherwise."""
    with Proxy("127.0.0.1", echo) as proxy, joined(proxy.port) as old:
        proxy.refuse(True)
        assert is_reset(old)
        with joined(proxy.port) as new:
            assert is_reset(new)
        proxy.refuse(False)
        with joined(proxy.port) as again:
            again.sendall(b"c")
            assert again.recv(1) == b"c"


def heard(heard_by: list[bytes], listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError):
        while piece := connection.recv(100):
            heard_by.append(piece)
            connection.sendall(b"done")


def test_the_reply_to_one_request_is_lost(echo: int) -> None:
    """The server hears the request, the client does not hear the answer, other requests are answered."""
    listener = socket.create_server(("127.0.0.1", 0))
    heard_by: list[bytes] = []
    thread = threading.Thread(target=heard, args=(heard_by, listener), daemon=True)
    thread.start()
    with Proxy("127.0.0.1", listener.getsockname()[1]) as proxy, joined(proxy.port) as connection:
        lost = proxy.lose_reply(b"COMMIT")
        connection.sendall(b"INSERT")
        assert received(connection, 4) == b"done" and not lost.is_set()
        connection.sendall(b"COMMIT")
        assert is_reset(connection) and lost.wait(10)
        assert heard_by == [b"INSERT", b"COMMIT"]
    thread.join(10)
    listener.close()


def test_a_muted_server_hears_and_is_not_heard(echo: int) -> None:
    """Replies are lost while it lasts, and the connections end with it."""
    with Proxy("127.0.0.1", echo) as proxy, joined(proxy.port) as connection:
        proxy.mute(True)
        connection.sendall(b"x")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        connection.settimeout(10)
        proxy.mute(False)
        assert is_reset(connection)


def test_a_half_open_connection_is_silent(echo: int) -> None:
    """The server's end is gone, the client's takes what is written and says nothing."""
    with Proxy("127.0.0.1", echo) as proxy, joined(proxy.port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        proxy.half_open()
        connection.sendall(b"y")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(100)
