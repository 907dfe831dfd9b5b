"""A server that forgets: restarted without a file, or a replica that took over and lacked the last writes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import tests.services
from tests.conformance.redis_keys import check_keys

from memos.clock import SystemClock
from memos.errors import LeaseLost, QueueUnavailable
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Batch, Done, Retry
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.testing import ManualClock

pytestmark = pytest.mark.skipif(not tests.services.redis_is_there(), reason="no Redis on loopback")


@pytest.fixture
def prefix() -> Iterator[str]:
    made = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    yield made
    tests.services.drop_keys(tests.services.redis_address(), made)


@pytest.fixture
def queue(prefix: str) -> Iterator[RedisStreamsQueue]:
    with RedisStreamsQueue(tests.services.redis_address(), clock=SystemClock(), prefix=prefix) as built:
        yield built


def message(label: str = "query") -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id="u", mem_cube_id="c", label=label, content="x")


def claim(queue: RedisStreamsQueue, label: str = "query") -> Batch:
    (batch,) = queue.claim([label], lanes_max=1, timeout_s=0)
    return batch


def test_an_old_epoch_never_proves_a_new_lease(queue: RedisStreamsQueue, prefix: str) -> None:
    """Epochs begin again after the loss; who holds one from before can neither finish nor renew."""
    queue.submit([message()])
    before = claim(queue)
    tests.services.drop_keys(queue.address, prefix)
    with RedisStreamsQueue(queue.address, clock=SystemClock(), prefix=prefix) as other:
        for holder in (other, queue):  # another instance, and the same one
            holder.submit([message()])
            after = claim(holder)
            assert (after.lane, after.slot) == (before.lane, before.slot)
            assert queue.renew([before]) == [before]
            with pytest.raises(LeaseLost):
                queue.finish(before, [Done()])
            assert holder.renew([after]) == []
            holder.finish(after, [Done()])
            tests.services.drop_keys(queue.address, prefix)


def test_a_repeated_finish_is_not_given_the_answer_of_another(queue: RedisStreamsQueue, prefix: str) -> None:
    """The remembered answer of an epoch belongs to the claim that held it."""
    queue.submit([message()])
    before = claim(queue)
    tests.services.drop_keys(queue.address, prefix)
    queue.submit([message()])
    after = claim(queue)
    assert after.epoch == before.epoch
    queue.finish(after, [Done()])
    ask, lost = queue._server.lines.ask, [True]

    def lose_first_reply(*command: Any) -> Any:
        reply = ask(*command)
        if lost.pop() if lost else False:
            raise ConnectionError("the reply was lost")
        return reply

    queue._server.lines.ask = lose_first_reply  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        queue.finish(before, [Done()])


def test_policies_are_written_again(queue: RedisStreamsQueue, prefix: str) -> None:
    """An ordered label stays ordered on a server that lost the table."""
    policy = TaskPolicy(ordered=True, concurrency=1, batch_size_max=1)
    queue.policies.put("mine", policy)
    tests.services.drop_keys(queue.address, prefix)
    queue.submit([message("mine"), message("mine")])
    assert queue.policies.get("mine") == policy
    assert len(queue.claim(["mine"], lanes_max=4, timeout_s=0)) == 1
    with RedisStreamsQueue(queue.address, clock=SystemClock(), prefix=prefix) as other:
        assert other.policies.get("mine") == policy


def test_a_call_that_was_done_is_not_undone_by_its_policies(
    queue: RedisStreamsQueue, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away between a claim and the reading of new policies: the batch is given all the same."""
    with RedisStreamsQueue(queue.address, clock=SystemClock(), prefix=prefix) as other:
        policy = TaskPolicy(batch_size_max=7)
        other.policies.put("mine", policy)

        def away() -> tuple[int, dict[str, str]]:
            raise QueueUnavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(queue.policies, "_read", away)
            queue.submit([message()])
            batch = claim(queue)
        queue.finish(batch, [Done()])
        assert queue.policies.get("mine") == policy


class _Stepping(ManualClock):
    """Time that may also go back, as a server's clock may when somebody sets it."""

    back_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() - self.back_s

    def now(self) -> float:
        return super().now() - self.back_s


def test_a_servers_clock_may_go_back(prefix: str) -> None:
    """A head that was due is not due any more: claims go on, and it runs when its time has come again."""
    clock = _Stepping()
    with RedisStreamsQueue(
        tests.services.redis_address(), clock=clock, prefix=prefix, server_time=False
    ) as queue:
        queue.submit([message()])
        queue.finish(claim(queue), [Retry("again", 5.0)])
        clock.advance(6.0)
        assert queue.claim(["other"], lanes_max=1, timeout_s=0) == []  # sees that the head is due
        clock.back_s = 3.0
        queue.submit([message("answer"), message("other")])
        taken = queue.claim(["query", "other"], lanes_max=4, timeout_s=0)
        assert [batch.deliveries[0].message.label for batch in taken] == ["other"]
        check_keys(queue)
        assert queue.claim(["query"], lanes_max=1, timeout_s=0) == []
        clock.back_s = 0.0
        assert claim(queue).deliveries[0].attempts == 1
        check_keys(queue)


def test_a_short_wait_does_not_hide_a_long_one(queue: RedisStreamsQueue) -> None:
    """Of two claims of one instance that wait, the longer one is told of new work until its end."""
    for wait_s in (60.0, 0.001):
        queue.look(frozenset({"query"}), 1, None, wait_s)
    (until,) = [score for _, score in queue.client.zrange(f"{queue._base}waiting", 0, -1, withscores=True)]
    assert until > SystemClock().now() + 30
