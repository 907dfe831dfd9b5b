"""How the instances of a queue wake each other: one channel, one listening thread an instance.

The scripts publish the labels that have work, or that something is due earlier than before, and only
while some claim waits. A message may be lost (the connection broke): whoever listens again looks at
everything once.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections.abc import Callable
from typing import Any

import redis

from memos import log

logger = log.get_logger(__name__)

READ_S = 5.0  # how long a read waits; a stop is told through the channel and does not wait for it
RECONNECT_MAX_S = 2.0
SUBSCRIBE_S = 2.0


class WakeListener:
    """Listens once `listen` was called. Thread-safe."""

    def __init__(
        self,
        client: redis.Redis,
        channel: str,
        *,
        own: str,
        on_work: Callable[[list[str]], None],
        on_look: Callable[[], None],
        sharded: bool = False,
    ) -> None:
        """`own`: the channel of this instance alone. `on_work` gets labels; `on_look`: look at everything.
        `sharded`: on a cluster, where a channel is with the keys of its tag (Redis 7) and moves with them."""
        self._client = client
        self._channel = channel
        self._own = own
        self._on_work = on_work
        self._on_look = on_look
        self._sharded = sharded
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._subscribed = threading.Event()

    def listen(self) -> None:
        """Be there for wake-ups from now on; returns when the server knows, or after `SUBSCRIBE_S`."""
        if self._subscribed.is_set():
            return
        with self._lock:
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="memos-queue-wakes", daemon=True)
                self._thread.start()
        self._subscribed.wait(SUBSCRIBE_S)

    def close(self) -> None:
        """Listen no more. Safe to call twice."""
        self._stopped.set()
        with self._lock:
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            self._client.execute_command("SPUBLISH" if self._sharded else "PUBLISH", self._own, "stop")
            thread.join(timeout=READ_S)

    def _run(self) -> None:
        pause_s = 0.05
        while not self._stopped.is_set():
            pubsub = self._client.pubsub()
            try:
                subscribe = pubsub.ssubscribe if self._sharded else pubsub.subscribe
                subscribe(self._channel, self._own)
                while not self._stopped.is_set():
                    message = pubsub.get_message(timeout=READ_S)
                    if message is not None:
                        self._take(message)
                        pause_s = 0.05
            except (redis.exceptions.RedisError, OSError) as error:
                self._subscribed.clear()
                if not self._stopped.is_set():
                    logger.warning("queue.wakes_lost", error=type(error).__name__)
                    self._on_look()
                    self._stopped.wait(pause_s * random.uniform(0.5, 1.0))
                    pause_s = min(RECONNECT_MAX_S, pause_s * 2)
            finally:
                with contextlib.suppress(redis.exceptions.RedisError, OSError):
                    pubsub.close()

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"].removeprefix("s") if self._sharded else message["type"]
        if kind == "unsubscribe":
            raise redis.exceptions.ConnectionError("the channel has moved to another node")
        if kind == "subscribe":
            if message["channel"] == self._channel:
                self._on_look()  # what was published before is lost
                self._subscribed.set()
        elif kind == "message" and message["channel"] == self._channel:
            told = json.loads(message["data"])
            if told["due"]:
                self._on_look()
            elif told["labels"]:
                self._on_work(list(told["labels"]))
