"""A queue object that a fork takes along, and one that is closed."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tests.services

from memos.clock import SystemClock
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

pytestmark = [
    pytest.mark.skipif(not tests.services.redis_is_there(), reason="no Redis on loopback"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture
def queue() -> Iterator[RedisStreamsQueue]:
    address = tests.services.redis_address()
    prefix = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    with RedisStreamsQueue(address, clock=SystemClock(), prefix=prefix) as built:
        yield built
    tests.services.drop_keys(address, prefix)


def messages(number: int) -> list[ScheduleMessageItem]:
    return [
        ScheduleMessageItem(user_id="u", mem_cube_id="c", label="query", content="x") for _ in range(number)
    ]


def in_a_child(work: Callable[[], Any]) -> Any:
    """What `work` gives in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def test_a_forked_child_is_an_instance_of_its_own(queue: RedisStreamsQueue) -> None:
    """Parent and child cancel with the same number of calls behind them; each gets its own answer."""
    first, second = queue.submit(messages(2))
    assert in_a_child(lambda: queue.cancel([first])) == [first]
    assert queue.cancel([second]) == [second]


def test_a_child_that_closes_does_not_sign_its_parent_off(queue: RedisStreamsQueue) -> None:
    """The parent is still listed, and still takes work."""
    queue.claim(["query"], lanes_max=1, timeout_s=0)
    in_a_child(queue.close)
    assert [one.pid for one in queue.instances()] == [os.getpid()]
    queue.submit(messages(1))
    assert len(queue.claim(["query"], lanes_max=1, timeout_s=0)) == 1


def test_a_child_is_told_of_new_work(queue: RedisStreamsQueue) -> None:
    """The thread that listens stayed with the parent; a waiting claim of the child starts one."""
    queue.claim(["other"], lanes_max=1, timeout_s=0.001)
    assert queue._listener._thread is not None

    def wait() -> bool:
        queue.claim(["other"], lanes_max=1, timeout_s=0.001)
        thread = queue._listener._thread
        return thread is not None and thread.is_alive()

    assert in_a_child(wait) is True


def test_a_closed_queue_keeps_no_connection(queue: RedisStreamsQueue) -> None:
    """Idle ones go with it; a finish that comes later makes its own."""
    queue.submit(messages(1))
    queue.statuses()
    queue.close()
    assert not queue._server.lines._idle
    pool: Any = queue.client.connection_pool
    assert all(line._sock is None for line in pool._available_connections)
    assert queue.depth().remaining == 1
