"""Into which shards a queue is cut: noted beside it, the same for every process, and changed only while it is empty.

The note is a list of tags under the tag that every queue has. The first shard has that tag too, so a queue of one
shard is what it always was, and a process that would cut it otherwise finds the note and is refused.

    tags           what the keys of a shard have between braces; where it is (`cluster`) is where they hash to
    <prefix>:{ms:0}:shards    the note, JSON

The tags of neighbours hash anywhere, and three may well end on one node. So for a new queue on a cluster each tag is
chosen among a few, that shards spread over the nodes that there are then.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from memos.clock import Clock
from memos.errors import ConfigError, QueueFull
from memos.mem_scheduler.queues.redis_streams.cluster import Nodes, slot_of
from memos.mem_scheduler.queues.redis_streams.connection import RedisAddress, translated
from memos.mem_scheduler.queues.redis_streams.moves import Shard, carry_keys, drop
from memos.mem_scheduler.queues.redis_streams.queue import PREFIX, TAG, RedisStreamsQueue
from memos.mem_scheduler.queues.redis_streams.shards import ShardedQueue

SHARDS_MAX = 64
_SPELLINGS = 50  # of one tag

AnyRedisQueue = RedisStreamsQueue | ShardedQueue


def open_redis_queue(
    address: RedisAddress, *, clock: Clock, shards: int | None, prefix: str = PREFIX, **rest: Any
) -> AnyRedisQueue:
    """The queue under `prefix`, in `shards` shards (None: as it was cut, one where nothing is noted).

    The other arguments are those of `RedisStreamsQueue`. Raises ConfigError where it was cut otherwise,
    QueueUnavailable where a shard does not answer.
    """
    with Layout(address, clock=clock, prefix=prefix) as layout:
        tags = layout.tags() if shards is None else layout.agreed(shards)
    if tags is None or len(tags) == 1:
        return RedisStreamsQueue(address, clock=clock, prefix=prefix, **rest)
    return ShardedQueue(address, clock=clock, prefix=prefix, tags=tags, **rest)


@dataclass(frozen=True, slots=True)
class Row:
    """One shard. `node` is "" on a single server."""

    tag: str
    slot: int
    node: str
    held: int
    dead: int


class Layout:
    """The note of one queue. A context manager; every call may raise QueueUnavailable."""

    def __init__(self, address: RedisAddress, *, clock: Clock, prefix: str = PREFIX) -> None:
        """Raises QueueUnavailable, ConfigError."""
        self._address, self._clock, self._prefix = address, clock, prefix
        self._nodes = Nodes(address) if address.is_cluster else None
        self._first = self._queue(TAG)
        self._client: redis.Redis = self._first.client
        self._key = f"{prefix}:{{{TAG}}}:shards"

    def tags(self) -> list[str] | None:
        """The tags that are noted; None: nothing is."""
        text = self._asked(lambda: self._client.get(self._key))
        return None if text is None else [str(tag) for tag in json.loads(text)]

    def agreed(self, count: int) -> list[str]:
        """The tags of a queue in `count` shards: as noted, or noted now. Raises ConfigError."""
        if not 1 <= count <= SHARDS_MAX:
            raise ConfigError(f"a queue has 1 to {SHARDS_MAX} shards, not {count}")
        noted = self.tags()
        if noted is None:
            noted = self._first_noted(count)
        if len(noted) != count:
            raise ConfigError(
                f"the queue {self._prefix!r} at {self._address} is cut into {len(noted)} shards, and "
                f"MEMOS_QUEUE__SHARDS asks for {count}: set it to {len(noted)}, or change the queue once it is "
                f"empty and its processes are stopped: memos queue shards {count}"
            )
        return noted

    def _first_noted(self, count: int) -> list[str]:
        if count > 1:
            try:
                self._refuse_used(
                    [TAG], count, f"it was used in one shard; MEMOS_QUEUE__SHARDS asks for {count}"
                )
            except ConfigError:
                noted = self.tags()  # by a process that started at the same time, and works already
                if noted is None:
                    raise
                return noted
        chosen = self._chosen(count)
        with (
            ExitStack() as opened
        ):  # it may be from before there were shards, with idempotency keys in the first
            shards = self._shards(chosen, opened)
            take_out = self._asked(lambda: carry_keys([shards[TAG]], list(shards.values())))
            noted = self._noted_once(chosen)
            if noted == chosen:
                self._asked(take_out)
        return noted

    def change(self, count: int) -> list[str]:
        """Cut the queue anew. Raises ConfigError while it holds anything, or somebody claims from it."""
        if not 1 <= count <= SHARDS_MAX:
            raise ConfigError(f"a queue has 1 to {SHARDS_MAX} shards, not {count}")
        noted = self.tags() or [TAG]
        if len(noted) == count:
            return noted
        self._refuse_used(noted, count, f"it cannot be cut into {count} shards now")
        chosen = self._chosen(count)
        store = self._asked(lambda: self._client.get(f"{self._prefix}:{{{TAG}}}:store"))
        with ExitStack() as opened:
            shards = self._shards((*noted, *chosen), opened)
            before, after = [shards[tag] for tag in noted], [shards[tag] for tag in chosen]
            take_out = self._asked(lambda: carry_keys(before, after))
            self._asked(lambda: self._client.set(self._key, json.dumps(chosen)))
            self._asked(take_out)
            for tag in noted:
                if tag not in chosen:
                    self._asked(partial(drop, shards[tag]))
            if store is not None:  # one may have been bound to another store before
                for shard in after[1:]:
                    self._asked(partial(shard.client.set, f"{shard.base}store", store))
        return chosen

    def rows(self, tags: Sequence[str]) -> list[Row]:
        """The shards as people look at them."""
        found = []
        for tag in tags:
            slot = slot_of(f"{{{tag}}}")
            with self._of(tag) as part:
                depth = part.depth(lanes=False)
            node = "" if self._nodes is None else self._place_of(slot)
            found.append(Row(tag, slot, node, depth.remaining + depth.running, depth.dead))
        return found

    def __enter__(self) -> Layout:
        return self

    def __exit__(self, *_: object) -> None:
        self._first.close()

    def _queue(self, tag: str) -> RedisStreamsQueue:
        return RedisStreamsQueue(
            self._address, clock=self._clock, prefix=self._prefix, tag=tag, reconnect_s=0.0
        )

    def _shards(self, tags: Sequence[str], opened: ExitStack) -> dict[str, Shard]:
        """By tag, in their order, as long as `opened` is."""
        parts = {tag: opened.enter_context(self._of(tag)) for tag in dict.fromkeys(tags)}
        return {tag: Shard(part.client, f"{self._prefix}:{{{tag}}}:") for tag, part in parts.items()}

    def _of(self, tag: str) -> AbstractContextManager[RedisStreamsQueue]:
        return nullcontext(self._first) if tag == TAG else self._queue(tag)

    def _refuse_used(self, tags: Sequence[str], count: int, why: str) -> None:
        left, names = 0, set()
        for tag in tags:
            with self._of(tag) as part:
                depth, instances = part.depth(lanes=False), part.instances()
            left += depth.remaining + depth.running + depth.dead
            names |= {one.name for one in instances}
        if left or names:
            raise ConfigError(
                f"the queue {self._prefix!r} at {self._address} holds {left} messages and dead letters, and "
                f"{len(names)} workers claim from it: {why}. Let it run empty (`memos status`, `memos dead list`), "
                f"stop all its processes, wait a minute, and say `memos queue shards {count}`"
            )

    def _noted_once(self, chosen: list[str]) -> list[str]:
        text = json.dumps(chosen)
        try:
            self._asked(lambda: self._client.set(self._key, text, nx=True))
        except QueueFull:
            if len(chosen) > 1:
                raise
            return chosen  # a server that is full must start, to be drained: noted the next time
        return self.tags() or chosen

    def _chosen(self, count: int) -> list[str]:
        tags = [f"ms:{number}" for number in range(count)]
        if self._nodes is None:
            return tags
        return spread(tags, lambda tag: self._place_of(slot_of(f"{{{tag}}}")))

    def _place_of(self, slot: int) -> str:
        assert self._nodes is not None
        nodes = self._nodes
        host, port = self._asked(lambda: nodes.place_of(slot))
        return f"{host}:{port}"

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except (redis.exceptions.RedisError, OSError) as error:
            raise translated(error, self._address) from error


def spread(tags: Sequence[str], place_of: Callable[[str], str]) -> list[str]:
    """The tags, all but the first spelt so that no place has many more of them than another, where that is found."""
    chosen: list[str] = []
    counts: Counter[str] = Counter()
    for tag in tags:
        spellings = [tag, *(f"{tag}.{number}" for number in range(1, _SPELLINGS))] if chosen else [tag]
        best = min(spellings, key=lambda one: counts[place_of(one)])
        counts[place_of(best)] += 1
        chosen.append(best)
    return chosen
