"""Policies and dead letters of a queue in several shards, as one table each."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeAlias

from memos.errors import InvalidInput, QueueUnavailable
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import DeadLetter
from memos.mem_scheduler.queues.redis_streams.queue import RedisStreamsQueue

Letters: TypeAlias = list[DeadLetter]  # `list` is the name of a method below


class ShardedPolicies:
    """Policies by label. The first shard's table is the truth, the others have a copy: whoever writes one writes it
    there first, then to the others, until nobody has written meanwhile. Thread-safe; `get` asks no server."""

    def __init__(
        self, parts: Sequence[RedisStreamsQueue], *, on_missed: Callable[[int, Exception], None]
    ) -> None:
        """`on_missed`: a shard did not answer; `copy_to` is to be called when it does again."""
        self._parts = parts
        self._on_missed = on_missed
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        return self._parts[0].policies.version

    def get(self, label: str) -> TaskPolicy:
        return self._parts[0].policies.get(label)

    def labels(self) -> list[str]:
        return self._parts[0].policies.labels()

    def put(self, label: str, policy: TaskPolicy) -> None:
        self._parts[0].policies.put(label, policy)
        for number in range(1, len(self._parts)):
            try:
                self.copy_to(number)
            except QueueUnavailable as error:
                self._on_missed(number, error)

    def copy_to(self, number: int) -> None:
        """Give a shard what the first one has. Raises QueueUnavailable."""
        first, part = self._parts[0], self._parts[number]
        with self._lock:
            while True:
                version, texts = first.read_policies()
                there, known = part.read_policies()
                for label, text in texts.items():
                    if known.get(label) != text:
                        there = part.write_policy(label, text)
                part.policies.follow(there)
                if first.read_policies()[0] == version:
                    return


class ShardedDeadLetters:
    """The letters of all shards. Thread-safe."""

    def __init__(self, parts: Sequence[RedisStreamsQueue], *, on_change: Callable[[], None]) -> None:
        self._parts = parts
        self._on_change = on_change

    def list(self, *, label: str | None = None, user_id: str | None = None, limit: int = 100) -> Letters:
        found = [part.dead.list(label=label, user_id=user_id, limit=limit) for part in self._parts]
        return list(islice(heapq.merge(*found, key=lambda one: one.died_at, reverse=True), limit))

    def show(self, key: str) -> DeadLetter:
        return self._place_of(key).dead.show(key)

    def edit(self, key: str, content: str) -> DeadLetter:
        return self._place_of(key).dead.edit(key, content)

    def retry(self, keys: Sequence[str] | None = None) -> int:
        try:
            return sum(part.dead.retry(keys) for part in self._parts)
        finally:
            self._on_change()

    def purge(self, keys: Sequence[str] | None = None) -> int:
        return sum(part.dead.purge(keys) for part in self._parts)

    def _place_of(self, key: str) -> RedisStreamsQueue:
        for part in self._parts[:-1]:
            try:
                part.dead.show(key)
            except InvalidInput:
                continue
            return part
        return self._parts[-1]
