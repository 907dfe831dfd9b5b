"""Calls whose request or reply is lost on the way: each happens once, however often it is sent."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import tests.services

from memos.clock import SystemClock
from memos.errors import LeaseLost, QueueFull, QueueUnavailable
from memos.mem_scheduler.queues.base import Batch, Dead, Done, Retry
from memos.mem_scheduler.queues.redis_streams import RedisAddress, RedisStreamsQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.store import Followup

pytestmark = pytest.mark.skipif(not tests.services.redis_is_there(), reason="no Redis on loopback")


class Wire:
    """Stands between a queue and its server, and loses what it is told to."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask
        self.lose: list[str] = []  # "request" or "reply", for the next calls

    def ask(self, *command: Any) -> Any:
        what = self.lose.pop(0) if self.lose else ""
        if what == "request":
            raise redis.exceptions.ConnectionError("the request was lost")
        answer = self._ask(*command)
        if what == "reply":
            raise redis.exceptions.TimeoutError("the reply was lost")
        return answer


@pytest.fixture
def queue() -> Iterator[RedisStreamsQueue]:
    address = tests.services.redis_address()
    prefix = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    with RedisStreamsQueue(address, clock=SystemClock(), prefix=prefix, reconnect_s=20.0) as built:
        yield built
    tests.services.drop_keys(address, prefix)


@pytest.fixture
def wire(queue: RedisStreamsQueue) -> Wire:
    queue.depth()  # every script the tests use is known to the server before anything is lost
    made = Wire(queue._server.lines.ask)
    queue._server.lines.ask = made.ask  # type: ignore[method-assign]
    return made


def message(label: str = "query", item: str = "item") -> ScheduleMessageItem:
    return ScheduleMessageItem(item_id=item, user_id="u", mem_cube_id="c", label=label, content="x")


def claim(queue: RedisStreamsQueue, *labels: str) -> list[Batch]:
    return queue.claim(set(labels or ("query",)), lanes_max=4, timeout_s=0)


LOSSES = [["reply"], ["request"], ["reply", "reply"], ["request", "reply"], ["reply", "request", "reply"]]


@pytest.mark.parametrize("lost", LOSSES)
def test_a_submit_is_queued_once(queue: RedisStreamsQueue, wire: Wire, lost: list[str]) -> None:
    """The keys that come back are those that are queued, each once, followups too."""
    chained = Followup("F" * 26, "P" * 26, message("add"))
    wire.lose = list(lost)
    keys = queue.submit([message(), message()], followups=[chained])
    assert queue.depth().remaining == 3
    assert queue.live(keys) == set(keys) and keys[-1] == "F" * 26


@pytest.mark.parametrize("lost", LOSSES)
def test_a_claim_is_leased_once(queue: RedisStreamsQueue, wire: Wire, lost: list[str]) -> None:
    """The batches of a lost reply are given to the repeat, under the same epochs."""
    keys = queue.submit([message(), message("custom")])
    wire.lose = list(lost)
    batches = claim(queue, "query", "custom")
    assert sorted(d.key for batch in batches for d in batch.deliveries) == sorted(keys)
    assert len(queue.leases()) == len(batches) == 2
    for batch in batches:
        queue.finish(batch, [Done()])
    assert claim(queue, "query", "custom") == []


@pytest.mark.parametrize("lost", LOSSES)
def test_a_finish_counts_once(queue: RedisStreamsQueue, wire: Wire, lost: list[str]) -> None:
    """A repeat is given what the first one did: no LeaseLost, no attempt counted twice, one followup."""
    queue.submit([message()])
    (batch,) = claim(queue)
    wire.lose = list(lost)
    (settled,) = queue.finish(
        batch, [Retry("no", 0.0)], followups=[Followup("F" * 26, batch.deliveries[0].key, message("add"))]
    )
    assert (settled.state, settled.error) == ("retrying", "no")
    assert queue.depth().remaining == 2
    batches = claim(queue)
    assert [d.attempts for b in batches for d in b.deliveries] == [1]


def test_a_finish_of_a_lost_lease_is_refused_also_after_a_lost_reply(
    queue: RedisStreamsQueue, wire: Wire
) -> None:
    """Nothing was settled by this holder: the repeat says so."""
    queue.submit([message()])
    (batch,) = claim(queue)
    queue.clear()
    wire.lose = ["reply"]
    with pytest.raises(LeaseLost):
        queue.finish(batch, [Done()])


@pytest.mark.parametrize("lost", LOSSES)
def test_operators_calls_answer_what_they_did(queue: RedisStreamsQueue, wire: Wire, lost: list[str]) -> None:
    """cancel, clear and the dead letters' retry and purge tell the first call's answer."""
    keys = queue.submit([message(), message(item="2")])
    wire.lose = list(lost)
    assert queue.cancel(keys) == keys
    for change in (queue.dead.retry, queue.dead.purge):
        queue.clear()
        queue.submit([message()])
        (batch,) = claim(queue)
        queue.finish(batch, [Dead("x")])
        wire.lose = list(lost)
        assert change() == 1
    queue.submit([message()] * 3)
    wire.lose = list(lost)
    assert queue.clear() == 3


def test_a_server_that_stays_away_is_told(queue: RedisStreamsQueue, wire: Wire) -> None:
    """After `reconnect_s` the call raises QueueUnavailable; a closing queue does not wait for it."""
    queue.close()
    wire.lose = ["request"] * 1_000
    with pytest.raises(QueueUnavailable, match="does not answer"):
        queue.depth()


@pytest.mark.skipif(not tests.services.private_redis_is_there(), reason="no redis-server on PATH")
@pytest.mark.parametrize("user", ["all", "no functions", "no loading"])
def test_scripts_that_the_server_forgot_are_sent_again(user: str) -> None:
    """A flush of functions and scripts between two calls is not seen by anybody, whether functions may be used
    or not."""
    with tests.services.PrivateRedis() as server:
        refused = {"all": (), "no functions": ("-fcall", "-function"), "no loading": ("-function",)}[user]
        operator = redis.Redis.from_url(server.address.url)
        operator.execute_command(
            "ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all", "-@admin", *refused
        )
        url = server.address.url.replace("redis://", "redis://worker:secret@")
        with RedisStreamsQueue(RedisAddress(url), clock=SystemClock()) as queue:
            queue.submit([message()])
            for _ in range(3):
                operator.script_flush()
                operator.execute_command("FUNCTION", "FLUSH")
                (batch,) = claim(queue)
                operator.script_flush()
                operator.execute_command("FUNCTION", "FLUSH")
                queue.finish(batch, [Retry("again", 0.0)])
            assert queue.depth().remaining == 1
        libraries: Any = operator.execute_command("FUNCTION", "LIST")
        assert len(libraries) == (user == "all")


@pytest.mark.skipif(not tests.services.private_redis_is_there(), reason="no redis-server on PATH")
def test_a_full_server_that_forgot_everything_is_drained() -> None:
    """A server without memory takes no library of functions; its work is claimed and finished all the same."""
    with (
        tests.services.PrivateRedis() as server,
        RedisStreamsQueue(server.address, clock=SystemClock()) as queue,
    ):
        queue.submit([message()])
        operator = redis.Redis.from_url(server.address.url)
        operator.execute_command("FUNCTION", "FLUSH")
        operator.config_set("maxmemory", "1")
        (batch,) = claim(queue)
        queue.finish(batch, [Done()])
        assert queue.depth().running == queue.depth().remaining == 0
        with pytest.raises(QueueFull):
            queue.submit([message()])
        operator.config_set("maxmemory", "0")
        queue.submit([message()])
        assert queue.depth().remaining == 1
        assert len(operator.execute_command("FUNCTION", "LIST")) == 1  # type: ignore[arg-type]


def test_a_full_lane_is_told_after_a_lost_request(queue: RedisStreamsQueue, wire: Wire) -> None:
    """A refusal is an answer like any other: it is not repeated, and nothing is queued."""
    small = RedisStreamsQueue(
        queue.address, clock=SystemClock(), prefix=f"{queue.prefix}:small", lane_messages_max=1
    )
    with small:
        small.submit([message()])
        with pytest.raises(QueueFull):
            small.submit([message()])
        assert small.depth().remaining == 1
