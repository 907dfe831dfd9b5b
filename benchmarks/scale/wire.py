"""What a PostgreSQL server is sent, recorded on the wire and sent again by a client that costs next to nothing.

A program computes longer than the server that it asks, so two cores cannot show where the server's own knee is. Here the
program runs once through a `Recorder`, which keeps each round trip byte for byte, prepared statements included; `replay`
sends them again, many connections at once, tasks at the times it is given, and waits for each answer.

A `Stream` is what one serial caller did: its connections and its tasks in order. Streams of different callers may be
replayed side by side; one that writes only once, on a copy of the database as it was before. Connections are without TLS
and password, on the loopback.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

_READY = b"Z\x00\x00\x00\x05"  # ReadyForQuery, before the byte that is the transaction's state
_ENDS_ROUND = b"QS"  # Query and Sync: what the server answers with ReadyForQuery
_PROTOCOL = 196_608  # 3.0
_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Round:
    """Bytes to the server over one of the stream's connections, up to the answer that is waited for."""

    connection: int
    sent: bytes


@dataclass(slots=True)
class Stream:
    """What one caller did. The first `warm` tasks made its connections what they are in a running program."""

    connections: list[bytes] = field(default_factory=list)  # the parameters each was opened with
    tasks: list[list[Round]] = field(default_factory=list)
    answered_bytes: int = 0  # over all tasks


class Recorder:
    """Stands before a server from its construction to `close`; a context manager.

    `url` leads there through it. `end_task` closes what was recorded since the last call into a task; `end_stream` gives the
    stream back and begins another, whose caller must have made connections of its own.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        login, _, _ = parts.netloc.rpartition("@")
        here = f"{login}@127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(parts._replace(netloc=here, query="sslmode=disable&gssencmode=disable"))
        self._lock = threading.Lock()
        self._stream = Stream()
        self._rounds: list[Round] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def end_task(self) -> None:
        with self._lock:
            self._stream.tasks.append(self._rounds)
            self._rounds = []

    def end_stream(self) -> Stream:
        with self._lock:
            ended, self._stream, self._rounds = self._stream, Stream(), []
            return ended

    def close(self) -> None:
        self._listener.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._carry, args=(caller,), daemon=True).start()

    def _carry(self, caller: socket.socket) -> None:
        server = socket.create_connection(self._to)
        for end in (caller, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = caller.makefile("rb")
        opening = reader.read(4)
        if len(opening) < 4:
            return
        opening += reader.read(struct.unpack("!I", opening)[0] - 4)
        server.sendall(opening)
        with self._lock:
            stream, number = self._stream, len(self._stream.connections)
            stream.connections.append(opening[8:])
        threading.Thread(target=self._answer, args=(server, caller, stream), daemon=True).start()
        gathered = b""
        while len(head := reader.read(5)) == 5:
            message = head + reader.read(struct.unpack("!I", head[1:])[0] - 4)
            gathered += message
            if head[:1] in (b"Q", b"S"):
                with self._lock:
                    if stream is self._stream:
                        self._rounds.append(Round(number, gathered))
                gathered = b""
            server.sendall(message)
        server.close()

    def _answer(self, server: socket.socket, caller: socket.socket, stream: Stream) -> None:
        while True:
            try:
                piece = server.recv(_PIECE)
                stream.answered_bytes += len(piece)
                caller.sendall(piece)
            except OSError:
                return
            if not piece:
                caller.close()
                return


@dataclass(frozen=True, slots=True)
class Replayed:
    """Seconds from each task's arrival to its end, in order of arrival, and what the server answered."""

    took_s: list[float]
    waiting_max: int  # tasks that waited for a stream, at most
    lasted_s: float  # from the first arrival to the last end


class Player:
    """Streams opened against a server and brought as far as a running program is; a context manager."""

    def __init__(self, url: str, streams: Sequence[Stream], *, warm: int) -> None:
        """`warm`: tasks of each stream that are played at once, so that statements are prepared."""
        parts = urlsplit(url)
        self._where = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._database = parts.path.lstrip("/").encode()
        self._playing = [_Playing([self._open(one) for one in stream.connections]) for stream in streams]
        self._streams = streams
        self._warm = warm
        for stream, playing in zip(streams, self._playing, strict=True):
            for task in stream.tasks[:warm]:
                for one in task:
                    self._say(playing.sockets[one.connection], one.sent)

    def _open(self, parameters: bytes) -> socket.socket:
        words = parameters.rstrip(b"\x00").split(b"\x00")
        given = dict(zip(words[::2], words[1::2], strict=True)) | {b"database": self._database}
        body = struct.pack("!I", _PROTOCOL)
        body += b"".join(name + b"\x00" + value + b"\x00" for name, value in given.items()) + b"\x00"
        opened = socket.create_connection(self._where)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._say(opened, struct.pack("!I", len(body) + 4) + body)
        return opened

    @staticmethod
    def _say(opened: socket.socket, sent: bytes) -> None:
        opened.sendall(sent)
        end = b""
        while end[-6:-1] != _READY:
            piece = opened.recv(_PIECE)
            if not piece:
                raise ConnectionError("the server closed the connection: " + repr(end[-200:]))
            end = end[-6:] + piece

    def replay(self, arrivals: Sequence[float], *, again: bool) -> Replayed:
        """Play tasks that arrive at these seconds from now on, each on a stream that is free, else when one is.

        `again`: a stream that is through begins anew, for tasks that change nothing. Else there must be tasks enough.
        """
        ended = [0.0] * len(arrivals)
        waiting: deque[int] = deque()
        free = deque(self._playing)
        for playing in self._playing:
            playing.queue = list(self._streams[self._playing.index(playing)].tasks[self._warm :])
            playing.next = 0
        highest, running, number = 0, 0, 0
        with selectors.DefaultSelector() as ready:
            for playing in self._playing:
                for one in playing.sockets:
                    ready.register(one, selectors.EVENT_READ, playing)
            began = time.perf_counter()
            while number < len(arrivals) or waiting or running:
                now = time.perf_counter() - began
                while number < len(arrivals) and arrivals[number] <= now:
                    waiting.append(number)
                    number += 1
                while waiting and free:
                    playing = free.popleft()
                    if again or playing.next < len(playing.queue):
                        playing.begin(waiting.popleft())
                        running += 1
                    elif not free and not running:
                        raise ValueError("the streams have too few tasks")
                highest = max(highest, len(waiting))
                until = max(0.0, arrivals[number] - now) if number < len(arrivals) else 1.0
                for key, _ in ready.select(0 if waiting and free else until):
                    playing = key.data
                    if playing.hear(key.fileobj):
                        ended[playing.task] = time.perf_counter() - began
                        running -= 1
                        free.append(playing)
        took = [end - start for start, end in zip(arrivals, ended, strict=True)]
        return Replayed(took, highest, max(ended) - arrivals[0])

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for playing in self._playing:
            for one in playing.sockets:
                one.close()


class _Playing:
    """One stream while it is played: at most one task at a time, at most one round of it on the way."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        self.queue: list[list[Round]] = []
        self.next = 0
        self.task = -1
        self._rounds: deque[Round] = deque()
        self._end = b""

    def begin(self, number: int) -> None:
        self.task = number
        self._rounds = deque(self.queue[self.next % len(self.queue)])
        self.next += 1
        self._send()

    def _send(self) -> None:
        one = self._rounds.popleft()
        self._end = b""
        self.sockets[one.connection].sendall(one.sent)

    def hear(self, opened: socket.socket) -> bool:
        """Take what has come; whether the task is at its end."""
        piece = opened.recv(_PIECE)
        if not piece:
            raise ConnectionError("the server closed a connection")
        self._end = self._end[-6:] + piece
        if self._end[-6:-1] != _READY:
            return False
        if self._rounds:
            self._send()
            return False
        return True
