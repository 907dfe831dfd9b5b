"""A queue in several shards of one server: what holds between the shards, and the note of how it is cut."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import tests.services
from tests.conformance.redis_keys import check_queue

from memos.clock import SystemClock
from memos.errors import ConfigError, LeaseLost, QueueFull
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Dead, Done, Finish
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue, ShardedQueue, open_redis_queue
from memos.mem_scheduler.queues.redis_streams.layout import Layout, spread
from memos.mem_scheduler.queues.redis_streams.reading import everything_under
from memos.mem_scheduler.queues.redis_streams.shard_order import ShardOrder
from memos.mem_scheduler.queues.redis_streams.shards import shard_of
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.store import Followup

pytestmark = pytest.mark.skipif(not tests.services.redis_is_there(), reason="no Redis on loopback")
CLOCK = SystemClock()
USERS = [next(f"u{n}" for n in range(99) if shard_of(f"u{n}", 3) == number) for number in range(3)]


@pytest.fixture
def prefix() -> Iterator[str]:
    own = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    yield own
    tests.services.drop_keys(tests.services.redis_address(), own)


def opened(prefix: str, shards: int | None = 3, **bounds: Any) -> Any:
    return open_redis_queue(
        tests.services.redis_address(), clock=CLOCK, prefix=prefix, shards=shards, **bounds
    )


@pytest.fixture
def queue(prefix: str) -> Iterator[ShardedQueue]:
    with opened(prefix) as built:
        assert isinstance(built, ShardedQueue)
        yield built


def message(user: str, label: str = "query", *, content: str = "x") -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id=user, mem_cube_id="c", label=label, content=content)


def drain(queue: Any) -> int:
    count = 0
    while batches := queue.claim({"query"}, lanes_max=16, timeout_s=0):
        queue.finish_all([Finish(one, [Done()] * len(one.deliveries)) for one in batches])
        count += sum(len(one.deliveries) for one in batches)
    return count


# -- how it is cut --------------------------------------------------------------------------------


def test_a_user_is_in_the_same_shard_for_ever() -> None:
    """Another release must find what this one left: the places are part of the format."""
    assert [shard_of(user, 3) for user in ("alice", "bob", "Ünï/cödé", "")] == [1, 1, 0, 0]
    counts = Counter(shard_of(f"user-{n}", 8) for n in range(8_000))
    assert min(counts.values()) > 900 and max(counts.values()) < 1_100


def test_another_number_of_shards_is_refused(prefix: str) -> None:
    """Whoever would look for a user elsewhere does not start; the note is found where nothing is said."""
    opened(prefix, 3).close()
    for wrong in (1, 2, 4):
        with pytest.raises(ConfigError, match="is cut into 3 shards"):
            opened(prefix, wrong)
    with opened(prefix, None) as found:
        assert found.tags == ("ms:0", "ms:1", "ms:2")


def test_a_queue_in_one_shard_stays_one_while_it_holds_anything(prefix: str) -> None:
    """One from before there were shards has no note: its messages say so."""
    with RedisStreamsQueue(tests.services.redis_address(), clock=CLOCK, prefix=prefix) as old:
        old.submit([message("a")])
    with pytest.raises(ConfigError, match="1 messages and dead letters"):
        opened(prefix, 3)
    with opened(prefix, 1) as one:
        assert isinstance(one, RedisStreamsQueue)
        assert drain(one) == 1
    with pytest.raises(ConfigError, match="is cut into 1 shards"):
        opened(prefix, 3)


def test_an_empty_queue_is_cut_anew(prefix: str) -> None:
    """Not while a message, a dead letter or a worker is in any of its shards."""
    with opened(prefix, 2) as queue, Layout(queue.address, clock=CLOCK, prefix=prefix) as layout:
        user = next(f"u{n}" for n in range(99) if shard_of(f"u{n}", 2) == 1)
        queue.bind_store("store-1")
        queue.submit([message(user)])
        with pytest.raises(ConfigError, match="holds 1 messages and dead letters"):
            layout.change(4)
        (batch,) = queue.claim({"query"}, lanes_max=1, timeout_s=0)
        queue.finish(batch, [Dead("never")])
        with pytest.raises(ConfigError, match="holds 1 messages and dead letters"):
            layout.change(4)
        queue.dead.purge()
        with pytest.raises(ConfigError, match=r"holds 0 messages and dead letters, and 1 workers.*shards 4`"):
            layout.change(4)
    with Layout(queue.address, clock=CLOCK, prefix=prefix) as layout:
        assert layout.change(4) == ["ms:0", "ms:1", "ms:2", "ms:3"]
    with opened(prefix, 4) as queue:
        queue.bind_store("store-1")
        with pytest.raises(ConfigError, match="belongs to the memory store store-1"):
            queue.bind_store("store-2")


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2)])
def test_a_user_who_moved_is_known_and_forgotten_all_the_same(prefix: str, before: int, after: int) -> None:
    """A queue that was cut anew still answers a call under its idempotency key, and an erased user leaves nothing
    in the shard where he was."""
    users = [f"user-{n}" for n in range(8)]
    with opened(prefix, before) as queue:
        first = {user: queue.submit([message(user)], idempotency_key="once") for user in users}
        assert drain(queue) == 8
    with Layout(queue.address, clock=CLOCK, prefix=prefix) as layout:
        layout.change(after)
    with opened(prefix, after) as queue:
        assert {user: queue.submit([message(user)], idempotency_key="once") for user in users} == first
        assert queue.depth(lanes=False).remaining == 0
        for user in users:
            queue.forget(user)
        client = tests.services.redis_address()
        with RedisStreamsQueue(client, clock=CLOCK, prefix=prefix) as plain:
            left = [one for one, text in everything_under(plain.client, (f"{prefix}:",)) if b"user-" in text]
        assert left == []


def test_a_queue_from_before_there_were_shards_keeps_its_idempotency_keys(prefix: str) -> None:
    """It has no note: the first process that asks for shards cuts it, as it is empty."""
    users = [f"user-{n}" for n in range(8)]
    with RedisStreamsQueue(tests.services.redis_address(), clock=CLOCK, prefix=prefix) as old:
        first = {user: old.submit([message(user)], idempotency_key="once") for user in users}
        assert drain(old) == 8
    with opened(prefix, 3) as queue:
        assert {user: queue.submit([message(user)], idempotency_key="once") for user in users} == first


def test_tags_are_chosen_to_spread() -> None:
    """Where the plain names of all shards fall on one node, others are taken; the first keeps its own."""
    places = {f"ms:{n}": "a" for n in range(6)}

    def place_of(tag: str) -> str:
        return places.get(tag, "abc"[hash_of(tag) % 3])

    def hash_of(tag: str) -> int:
        return sum(map(ord, tag))

    tags = spread([f"ms:{n}" for n in range(6)], place_of)
    assert tags[0] == "ms:0" and len(set(tags)) == 6
    assert Counter(map(place_of, tags)) == {"a": 2, "b": 2, "c": 2}


# -- between shards -------------------------------------------------------------------------------


def test_a_call_for_users_of_all_shards_is_taken_whole_or_not(prefix: str) -> None:
    """One full lane in one shard refuses what the others would have taken; the whole queue's bound counts all."""
    with opened(prefix, messages_max=10, lane_messages_max=4) as queue:
        queue.submit([message(USERS[2])] * 4)
        with pytest.raises(QueueFull, match="lane"):
            queue.submit([message(user) for user in USERS])
        assert queue.depth().remaining == 4
        keys = queue.submit([message(USERS[n % 2], content=f"{n}") for n in range(6)])
        assert [one.message.content for one in queue.get(keys)] == [f"{n}" for n in range(6)]
        with pytest.raises(QueueFull, match="the queue holds"):
            queue.submit([message(USERS[0])])
        with pytest.raises(QueueFull, match="the queue holds"):
            queue.submit([message("someone"), message("else")])
        check_queue(queue)


def test_a_token_completes_what_was_half_done(queue: ShardedQueue) -> None:
    """A call that reached one shard of three is repeated: the keys of that one, new ones for the others."""
    ones = [message(user) for user in USERS]
    (first,) = queue.parts[0].submit(ones[:1], token="t")
    keys = queue.submit(ones, token="t")
    assert keys[0] == first
    assert queue.submit(ones, token="t") == keys
    assert queue.depth().remaining == 3


def test_followups_of_another_users_shard_are_queued_once(queue: ShardedQueue) -> None:
    """Whatever shard a chained message belongs to; a lost lease chains nothing; a repeat finds what is there."""
    queue.policies.put("query", TaskPolicy(ordered=True, concurrency=1, level=1, min_idle_ms=1_000))
    queue.submit([message(USERS[0])])
    (batch,) = queue.claim({"query"}, lanes_max=1, timeout_s=0)
    chained = [
        Followup(letter * 26, batch.deliveries[0].key, message(user))
        for letter, user in zip("ABC", USERS, strict=True)
    ]
    queue.submit([], followups=chained[:2], inside_handler=True)
    queue.finish(batch, [Done()], followups=chained)
    assert queue.live([one.key for one in chained]) == {one.key for one in chained}
    assert queue.depth().remaining == 3
    with pytest.raises(LeaseLost):
        queue.finish(batch, [Done()], followups=[Followup("D" * 26, "", message(USERS[1]))])
    assert queue.live(["D" * 26]) == set()
    assert drain(queue) == 3
    check_queue(queue)


def test_letters_statuses_and_times_of_all_shards(queue: ShardedQueue) -> None:
    """Newest first, whatever shard they are in; each is shown, mended and retried by its key alone."""
    keys = []
    for user in (*USERS, *reversed(USERS)):
        keys += queue.submit([message(user)])
        (batch,) = queue.claim({"query"}, lanes_max=1, timeout_s=0)
        queue.finish(batch, [Dead(f"of {user}")])
    assert [letter.key for letter in queue.dead.list()] == keys[::-1]
    assert [letter.key for letter in queue.dead.list(limit=2)] == keys[:3:-1]
    assert [row.key for row in queue.statuses()] == keys[::-1]
    assert [row.key for row in queue.statuses(user_id=USERS[1])] == [keys[4], keys[1]]
    for key in keys:
        assert (
            queue.dead.edit(key, "mended").message.content == "mended" == queue.dead.show(key).message.content
        )
    assert queue.dead.retry(keys[:2]) == 2
    assert queue.dead.purge() == 4
    assert drain(queue) == 2
    assert set(queue.depth().times) == {"query"}


def test_a_policy_is_the_same_in_every_shard(prefix: str) -> None:
    """Whoever wrote it, and in a shard that lost it while nobody looked."""
    with opened(prefix) as here, opened(prefix) as there:
        here.policies.put("query", TaskPolicy(ordered=True, concurrency=1, level=1, min_idle_ms=7_000))
        there.policies.put("free", TaskPolicy(concurrency=3))
        texts = [part.read_policies()[1] for part in here.parts]
        assert set(texts[0]) == {"query", "free"}
        assert texts[1] == texts[2] == texts[0]
        here.client.delete(f"{prefix}:{{ms:2}}:policy")
    with opened(prefix) as again:
        assert again.parts[2].read_policies()[1] == texts[0]
        assert again.policies.get("query").min_idle_ms == 7_000


# -- whose turn it is -----------------------------------------------------------------------------


def test_shards_are_served_by_the_service_of_their_users() -> None:
    """One with a single user against one with nine: each user gets a tenth."""
    order, tags, users = ShardOrder(2), [0.0, 0.0], [1, 9]
    counts: Counter[int] = Counter()
    for number in (0, 1):
        order.told(number, {"turn": tags[number]})
    for _ in range(1_000):
        choice = order.choose([["turn"]], 1)
        assert choice is not None
        order.took(choice.shard, "turn", 1)
        counts[choice.shard] += 1
        tags[choice.shard] += 1 / users[choice.shard]
        order.told(choice.shard, {"turn": tags[choice.shard]})
    assert abs(counts[0] - 100) <= 2


def test_a_shard_that_paused_saves_up_no_credit() -> None:
    """It comes in where the others are, however far its own tags are behind or ahead."""
    for tag in (0.0, 1e9):
        order = ShardOrder(2)
        order.told(1, {"turn": tag})
        order.told(1, {})
        for n in range(500):
            order.told(0, {"turn": float(n)})
            choice = order.choose([["turn"]], 1)
            assert choice is not None and choice.shard == 0
            order.took(0, "turn", 1)
        order.told(1, {"turn": tag + 1.0})
        order.told(0, {"turn": 500.0})
        counts: Counter[int] = Counter()
        now = [500.0, tag + 1.0]
        for _ in range(100):
            choice = order.choose([["turn"]], 1)
            assert choice is not None
            order.took(choice.shard, "turn", 1)
            counts[choice.shard] += 1
            now[choice.shard] += 1.0
            order.told(choice.shard, {"turn": now[choice.shard]})
        assert abs(counts[0] - counts[1]) <= 2
