"""What the Redis queue leaves in Redis."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
import tests.services

from memos.clock import SystemClock
from memos.errors import ConfigError, QueueError
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Dead, Done, Retry
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue
from memos.mem_scheduler.queues.redis_streams.doctor import examine
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

pytestmark = pytest.mark.skipif(not tests.services.redis_is_there(), reason="no Redis on loopback")


@pytest.fixture
def queue() -> Iterator[RedisStreamsQueue]:
    address = tests.services.redis_address()
    prefix = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    with RedisStreamsQueue(address, clock=SystemClock(), prefix=prefix, status_entries_max=50) as built:
        yield built
    tests.services.drop_keys(address, prefix)


def message(
    label: str = "query", *, user: str = "u", cube: str = "c", task: str | None = None
) -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id=user, mem_cube_id=cube, label=label, content="x", task_id=task)


def drain(queue: RedisStreamsQueue, *labels: str) -> int:
    count = 0
    while batches := queue.claim(labels, lanes_max=16, timeout_s=0):
        for batch in batches:
            queue.finish(batch, [Done()] * len(batch.deliveries))
            count += len(batch.deliveries)
    return count


def kinds(queue: RedisStreamsQueue) -> dict[str, int]:
    """The first parts of the keys that are there, and how many of each."""
    found: dict[str, int] = {}
    base = f"{queue.prefix}:{{ms:0}}:"
    for key in queue.client.scan_iter(f"{queue.prefix}:*", count=1_000):
        kind = key.removeprefix(base).split(":")[0]
        found[kind] = found.get(kind, 0) + 1
    return found


def test_after_a_drain_no_key_holds_work(queue: RedisStreamsQueue) -> None:
    """Streams, lane records, ready orders and places are gone; what stays is bounded or has a TTL."""
    queue.policies.put("mem_update", TaskPolicy(ordered=True, concurrency=1, level=2, coalesce=True))
    labels = ("query", "mem_update", "custom")
    for n in range(60):
        queue.submit([message(label, user=f"u{n % 7}", cube=f"c{n % 3}") for label in labels])
    queue.submit([message("custom", user="late")], delay_s=0.01)
    (batch, *_) = queue.claim(labels, lanes_max=1, timeout_s=0)
    queue.finish(batch, [Retry("once", 0.0)] * len(batch.deliveries))
    while queue.depth().remaining:
        drain(queue, *labels)
    left = set(kinds(queue))
    assert left <= {
        *("info", "rows", "counts", "settled", "epoch", "policy", "served", "times", "timed"),
        *("finished", "instances", "instances_seen", "reply"),
    }
    base = f"{queue.prefix}:{{ms:0}}:"
    rows = queue.client.llen(f"{base}settled")
    kept = [name for key in queue.client.scan_iter(f"{base}info:*") for name in queue.client.hkeys(key)]
    assert rows and 0 < sum(not name.startswith("=") for name in kept) <= 50
    assert {name.lstrip("=") for name in kept} == {name for name in kept if not name.startswith("=")}
    for key in queue.client.scan_iter(f"{base}*"):
        kind = key.removeprefix(base).split(":")[0]
        assert kind not in ("info", "times", "finished", "reply") or queue.client.ttl(key) > 0


def test_a_thousand_rounds_leave_as_much_as_ten(queue: RedisStreamsQueue) -> None:
    """Nothing grows with the number of messages that went through, beyond the bound on statuses."""
    sizes = []
    for rounds in (10, 200):
        for n in range(rounds):
            queue.submit([message(user=f"u{n % 5}"), message("custom", user=f"u{n % 5}")])
            drain(queue, "query", "custom")
        sizes.append(
            sum(queue.client.memory_usage(key) or 0 for key in queue.client.scan_iter(f"{queue.prefix}:*"))
        )
    assert sizes[1] < 6 * sizes[0]


def test_a_business_task_is_found_without_reading_the_users_rows(queue: RedisStreamsQueue) -> None:
    """The index names exactly the messages of the task, whatever characters its id has."""
    for task in ("a/b:c%", "other", None):
        queue.submit([message(task=task), message("custom", cube="d", task=task)])
    found = queue.statuses(user_id="u", task_id="a/b:c%")
    assert [(row.label, row.task_id) for row in found] == [("custom", "a/b:c%"), ("query", "a/b:c%")]
    assert queue.statuses(user_id="v", task_id="a/b:c%") == []
    assert len(queue.statuses(task_id="other")) == 2


def test_doctor_refuses_a_server_that_evicts() -> None:
    """Any policy but noeviction may throw work away; durability is told as it is."""
    if not tests.services.private_redis_is_there():
        pytest.skip("no redis-server on PATH")
    server = tests.services.PrivateRedis()
    try:
        with RedisStreamsQueue(server.address, clock=SystemClock()) as queue:
            assert "noeviction, append-only file on" in examine(queue)
            server.client.config_set("appendonly", "no")
            assert "no append-only file" in examine(queue)
            server.client.config_set("maxmemory-policy", "allkeys-lru")
            with pytest.raises(QueueError, match="maxmemory-policy allkeys-lru"):
                examine(queue)
    finally:
        server.close()


def test_a_dead_letter_keeps_its_message_while_its_lane_is_gone(queue: RedisStreamsQueue) -> None:
    """The lane's stream goes with its last message; the letter has all that a retry needs."""
    queue.submit([message("custom")])
    (batch,) = queue.claim({"custom"}, lanes_max=1, timeout_s=0)
    queue.finish(batch, [Dead("x")])
    assert "lane" not in kinds(queue)
    assert queue.dead.retry() == 1
    assert drain(queue, "custom") == 1


def test_a_queue_is_bound_to_the_first_store(queue: RedisStreamsQueue) -> None:
    """The same id is welcome again, another is refused."""
    queue.bind_store("one")
    queue.bind_store("one")
    with pytest.raises(ConfigError, match="belongs to the memory store one"):
        queue.bind_store("two")
