"""What of a queue that is cut anew goes with its users: the idempotency keys that were used, or a call repeated behind
the change would be carried out twice. The queue is empty; statuses and tokens stay where nobody looks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import unquote

import redis

from memos.mem_scheduler.queues.redis_streams.reading import names_under
from memos.mem_scheduler.queues.redis_streams.shards import shard_of

CHUNK = 500


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard on either side of the change. `base`: how its keys begin."""

    client: redis.Redis
    base: str


@dataclass(frozen=True, slots=True)
class _Used:
    scope: str
    said: str
    end: float  # by the server's clock


def carry_keys(before: Sequence[Shard], after: Sequence[Shard]) -> Callable[[], None]:
    """Copy the idempotency keys to where their users are looked for after the change; what that gives takes them
    out where they were, and is called when the change is noted. Raises what redis-py raises."""
    moved: list[tuple[Shard, list[str]]] = []
    for number, shard in enumerate(before):
        for page in _used(shard):
            going: dict[str, list[_Used]] = {}
            for one in page:
                user_id = unquote(one.scope.partition("/")[0])
                if shard_of(user_id, len(before)) != number:
                    continue  # left behind by an earlier change that was interrupted
                to = after[shard_of(user_id, len(after))]
                if to.base != shard.base:
                    going.setdefault(to.base, []).append(one)
            for to in after:
                if keys := going.get(to.base):
                    to.client.zadd(f"{to.base}idempotent_ends", {one.scope: one.end for one in keys})
                    to.client.hset(f"{to.base}idempotent", mapping={one.scope: one.said for one in keys})
                    moved.append((shard, [one.scope for one in keys]))

    def take_out() -> None:
        for shard, scopes in moved:
            shard.client.hdel(f"{shard.base}idempotent", *scopes)
            shard.client.zrem(f"{shard.base}idempotent_ends", *scopes)

    return take_out


def _used(shard: Shard) -> Iterator[list[_Used]]:
    client: Any = shard.client
    cursor = 0
    while True:
        cursor, page = client.hscan(f"{shard.base}idempotent", cursor, count=CHUNK)
        scopes = list(page)
        if scopes:
            ends = client.zmscore(f"{shard.base}idempotent_ends", scopes)
            yield [
                _Used(scope, page[scope], end)
                for scope, end in zip(scopes, ends, strict=True)
                if end is not None
            ]
        if not cursor:
            return


def drop(shard: Shard) -> None:
    """Remove all that stands in a shard that is none any more, or an erased user's statuses would stay there. Where
    somebody submitted to it behind the change, it stays for people to look at."""
    if float(shard.client.hget(f"{shard.base}counts", "held") or 0):
        return
    names = names_under(shard.client, shard.base)
    while some := list(islice(names, CHUNK)):
        shard.client.unlink(*some)
