"""How processes that share a queue file wake each other: a Unix datagram socket for each.

The sockets stand in a folder beside the file, so that whoever finds the file finds them, also in another
container. A ring says which labels have work; an empty one says "look at everything". A ring may be lost
(a process that died between its commit and the ring, a full buffer): therefore the listener also looks at
the file each second while somebody waits. Sockets that nobody listens to are removed by who rings them.

Where there are no such sockets (Windows, a file system without them) only the look is left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

LOOK_S = 1.0
RING_BYTES_MAX = 1_000
_PATH_BYTES_MAX = 100  # of a socket's address; 104 on the BSDs, 108 on Linux
_STOP = b"\0stop"
_TICK_NS = 1_000_000_000


class Doorbell:
    """Rings for others, and listens once `listen` was called. Thread-safe."""

    def __init__(
        self, folder: Path, *, on_ring: Callable[[frozenset[str]], None], on_look: Callable[[], None]
    ) -> None:
        """`on_ring` gets the labels that have work, none for "look"; both are called by the listener."""
        self._folder = folder
        self._on_ring = on_ring
        self._on_look = on_look
        self._lock = threading.Lock()
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._folder_fd: int | None = None
        self._listening: socket.socket | None = None
        self._ringing: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._peers: tuple[str, ...] = ()
        self._peers_at = -1

    def listen(self) -> None:
        """Be there for others' rings from now on. Cheap when it is so already."""
        if self._thread is not None or self._stopped.is_set():
            return
        with self._lock:
            if self._thread is not None:
                return
            with contextlib.suppress(OSError):
                self._listening = self._open()
            self._thread = threading.Thread(target=self._listen, name="memos-queue-bell", daemon=True)
            self._thread.start()

    def ring(self, labels: Collection[str]) -> None:
        """Tell the other processes that these labels have work; none: that there is something to see."""
        with self._lock, contextlib.suppress(OSError):
            peers = self._others()
            if not peers:
                return
            ring = "\0".join(sorted(labels)).encode()
            if len(ring) > RING_BYTES_MAX:
                ring = b""
            for name in peers:
                self._send(ring, name)

    def close(self) -> None:
        """Listen no more; the socket is removed. Safe to call twice."""
        self._stopped.set()
        with self._lock:
            thread = self._thread
            if self._listening is not None:
                with contextlib.suppress(OSError):
                    self._send(_STOP, self._name)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5 * LOOK_S)
        with self._lock:
            if self._listening is not None:
                with contextlib.suppress(OSError):
                    (self._folder / self._name).unlink()
            for one in (self._listening, self._ringing):
                if one is not None:
                    one.close()
            self._listening = self._ringing = None
            if self._folder_fd is not None:
                os.close(self._folder_fd)
                self._folder_fd = None

    def _listen(self) -> None:
        bell = self._listening
        while not self._stopped.is_set():
            if bell is None:
                self._stopped.wait(LOOK_S)
                rung = False
            else:
                rung = bool(select.select([bell], [], [], LOOK_S)[0])
            if self._stopped.is_set():
                return
            if not rung or bell is None:
                self._on_look()
                continue
            try:
                ring = bell.recv(RING_BYTES_MAX + 1)
            except OSError:
                continue
            self._on_ring(frozenset(ring.decode(errors="replace").split("\0")) if ring else frozenset())

    def _open(self) -> socket.socket:
        if sys.platform == "win32":
            raise OSError(errno.EAFNOSUPPORT, "no Unix sockets")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            bell.setblocking(False)
            bell.bind(self._address(self._name))
        except OSError:
            bell.close()
            raise
        return bell

    def _send(self, ring: bytes, name: str) -> None:
        if sys.platform == "win32":
            return
        if self._ringing is None:
            self._ringing = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._ringing.setblocking(False)
        try:
            self._ringing.sendto(ring, self._address(name))
        except ConnectionRefusedError:
            (self._folder / name).unlink(missing_ok=True)  # its process is gone
        except OSError:
            pass  # a full buffer has rings enough; whoever is not there needs none

    def _address(self, name: str) -> str:
        path = str(self._folder / name)
        if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
            return path
        if self._folder_fd is None:  # a short way to a long path (Linux)
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._folder_fd}/{name}"

    def _others(self) -> tuple[str, ...]:
        try:
            changed_at = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return ()
        if changed_at != self._peers_at:
            self._peers = tuple(one.name for one in self._folder.iterdir() if one.name != self._name)
            # A folder's time moves in ticks of some milliseconds: one that changed just now may change
            # again without showing it.
            self._peers_at = changed_at if time.time_ns() - changed_at > _TICK_NS else -1
        return self._peers
