"""A primary and a replica of a test's own: what a failover takes with it, and what WAIT keeps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.services import PrivateRedis, private_redis_is_there
from tests.unit.mem_scheduler.parts import assembled, message
from tests.unit.mem_scheduler.test_unread import write

from memos.chaos.proxy import Proxy
from memos.clock import SystemClock
from memos.errors import ConfigError, QueueUnavailable
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue
from memos.memory.store import ItemFilter
from memos.settings import Settings

pytestmark = pytest.mark.skipif(not private_redis_is_there(), reason="no redis-server on PATH")
HELD_S = 1.0


@dataclass
class Pair:
    """`link` is the line from the replica to the primary."""

    primary: PrivateRedis
    replica: PrivateRedis
    link: Proxy

    def queue(self, server: PrivateRedis, *, wait_replicas: int = 0) -> RedisStreamsQueue:
        return RedisStreamsQueue(
            server.address,
            clock=SystemClock(),
            reconnect_s=0.2,
            wait_replicas=wait_replicas,
            wait_replicas_s=HELD_S,
        )

    def fail_over(self) -> None:
        """The primary is gone, the replica takes over with what it has."""
        self.primary.kill()
        assert self.replica.ask("REPLICAOF NO ONE") == "+OK"

    def until_in_step(self) -> None:
        for _ in range(500):
            if self.primary.ask("WAIT 1 20") == ":1" and self.replica.ask("ROLE"):
                return
            time.sleep(0.02)
        raise AssertionError("the replica does not follow")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as opened:
        quick = ("--repl-diskless-sync-delay", "0")
        primary = opened.enter_context(PrivateRedis(aof=True, options=quick))
        link = opened.enter_context(Proxy("127.0.0.1", primary.port))
        follow = ("--replicaof", "127.0.0.1", str(link.port))
        replica = opened.enter_context(PrivateRedis(aof=True, options=follow))
        made = Pair(primary, replica, link)
        made.until_in_step()
        yield made


def waiting(queue: RedisStreamsQueue) -> int:
    return queue.depth(lanes=False).remaining


def test_what_a_replica_holds_survives_a_failover(pair: Pair) -> None:
    """A submit that waited for the replica is there after the primary died the moment it returned."""
    with pair.queue(pair.primary, wait_replicas=1) as queue:
        for _ in range(20):
            queue.submit([message("query", "x")])
        pair.fail_over()
    with pair.queue(pair.replica) as queue:
        assert waiting(queue) == 20


def test_without_waiting_a_failover_loses_what_was_answered(pair: Pair) -> None:
    """What this test shows to be lost is why there is a setting."""
    with pair.queue(pair.primary) as queue:
        queue.submit([message("query", "x")])
        pair.until_in_step()
        pair.link.stall(True)
        queue.submit([message("query", "y")])
        pair.fail_over()
    with pair.queue(pair.replica) as queue:
        assert waiting(queue) == 1


def test_too_few_replicas_are_told_and_the_message_is_kept(pair: Pair) -> None:
    """The error says what holds; a repeat under the same idempotency key queues nothing twice."""
    with pair.queue(pair.primary, wait_replicas=1) as queue:
        queue.submit([message("query", "x")], idempotency_key="first")
        pair.link.stall(True)
        for _ in range(2):
            with pytest.raises(QueueUnavailable, match="0 of 1 replicas hold it"):
                queue.submit([message("query", "y")], idempotency_key="second")
        assert waiting(queue) == 2
        pair.link.stall(False)
        pair.until_in_step()
        queue.submit([message("query", "y")], idempotency_key="second")
        assert waiting(queue) == 2


def test_a_submit_whose_reply_was_lost_waits_for_the_replica_all_the_same(pair: Pair) -> None:
    """The repeat, which finds the message there, is not content with what an unused connection says."""
    with Proxy("127.0.0.1", pair.primary.port) as line:
        address = replace(pair.primary.address, url=f"redis://127.0.0.1:{line.port}/0")
        with RedisStreamsQueue(
            address, clock=SystemClock(), reconnect_s=5.0, wait_replicas=1, wait_replicas_s=HELD_S
        ) as queue:
            queue.submit([message("query", "x")])
            pair.link.stall(True)
            lost = line.lose_reply(b"FCALL")
            with pytest.raises(QueueUnavailable, match="0 of 1"):
                queue.submit([message("query", "y")])
            assert lost.is_set() and waiting(queue) == 2


def test_reading_that_a_failover_lost_is_queued_again(pair: Pair, tmp_path: Path) -> None:
    """The turn is in the store: whoever starts over the promoted replica reads it, once."""
    clock = SystemClock()
    with pair.queue(pair.primary) as queue, assembled(tmp_path, clock=clock, queue=queue) as parts:
        pair.link.stall(True)
        write(parts, "I live in Paris.")
        assert waiting(queue) == 1
        pair.fail_over()
    with pair.queue(pair.replica) as queue, assembled(tmp_path, clock=clock, queue=queue) as parts:
        assert waiting(queue) == 0
        parts.scheduler.keep_house()
        parts.drain()
        parts.scheduler.keep_house()
        parts.drain()
        facts = parts.store.find(ItemFilter(raw=False)).items
        assert [item.memory for item in facts] == ["The user lives in Paris."]


def test_a_wait_that_no_answer_outlasts_is_refused() -> None:
    """The time-out of an answer would end it first."""
    with pytest.raises(ConfigError, match="redis_wait_replicas_s"):
        Settings.load({"MEMOS_QUEUE__REDIS_WAIT_REPLICAS": "1", "MEMOS_QUEUE__REDIS_WAIT_REPLICAS_S": "5"})
