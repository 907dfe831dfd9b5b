"""A queue in shards on a Redis Cluster: nodes that die, slots that move, a replica that takes over. All private."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tests.services
from tests.conformance.redis_keys import check_queue

from memos.clock import SystemClock
from memos.errors import ConfigError, QueueError, QueueUnavailable, ShardsUnavailable
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Done, Finish
from memos.mem_scheduler.queues.redis_streams import (
    RedisAddress,
    RedisStreamsQueue,
    ShardedQueue,
    open_redis_queue,
)
from memos.mem_scheduler.queues.redis_streams.cluster import slot_of
from memos.mem_scheduler.queues.redis_streams.doctor import examine
from memos.mem_scheduler.queues.redis_streams.layout import Layout
from memos.mem_scheduler.queues.redis_streams.shards import shard_of
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.utils.status_tracker import TaskStatusTracker

pytestmark = pytest.mark.skipif(not tests.services.private_redis_is_there(), reason="no redis-server on PATH")
CLOCK = SystemClock()
USERS = [next(f"u{n}" for n in range(99) if shard_of(f"u{n}", 3) == number) for number in range(3)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[tests.services.PrivateCluster]:
    cluster = tests.services.PrivateCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(nodes: tests.services.PrivateCluster) -> tests.services.PrivateCluster:
    nodes.flush()
    return nodes


@pytest.fixture
def queue(cluster: tests.services.PrivateCluster) -> Iterator[ShardedQueue]:
    with opened(cluster) as built:
        yield built


def opened(cluster: tests.services.PrivateCluster, *, reconnect_s: float = 0.3) -> ShardedQueue:
    built = open_redis_queue(cluster.address, clock=CLOCK, shards=3, prefix="t", reconnect_s=reconnect_s)
    assert isinstance(built, ShardedQueue)
    return built


def message(user: str, *, content: str = "x") -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id=user, mem_cube_id="c", label="query", content=content)


def run_some(queue: Any, *, timeout_s: float = 0.0, lanes: int = 8) -> list[str]:
    """Claim once and settle; the contents that were settled."""
    batches = queue.claim({"query"}, lanes_max=lanes, timeout_s=timeout_s)
    answers = (
        queue.finish_all([Finish(one, [Done()] * len(one.deliveries)) for one in batches]) if batches else ()
    )
    return [
        delivery.message.content
        for batch, answer in zip(batches, answers, strict=True)
        if isinstance(answer, list)
        for delivery in batch.deliveries
    ]


def drained(queue: Any) -> list[str]:
    found: list[str] = []
    while some := run_some(queue):
        found += some
    return found


def node_of(
    cluster: tests.services.PrivateCluster, queue: ShardedQueue, number: int
) -> tests.services.PrivateRedis:
    assert queue.nodes is not None
    return cluster.node_at(queue.nodes.place_of(slot_of(f"{{{queue.tags[number]}}}"))[1])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_shard_is_on_a_node_of_its_own(
    cluster: tests.services.PrivateCluster, queue: ShardedQueue
) -> None:
    """Tags are chosen so, and what is queued for three users lies on three nodes, in order, and is run."""
    assert len({node_of(cluster, queue, number).port for number in range(3)}) == 3
    queue.submit([message(user, content=f"{user}{n}") for n in range(5) for user in USERS])
    for number in range(3):
        held = node_of(cluster, queue, number).client.keys("t:*:lane:*")
        assert [key.split(":lane:")[1] for key in held] == [f"{USERS[number]}/c/turn"]
    check_queue(queue)
    ran = drained(queue)
    for user in USERS:
        assert [one for one in ran if one.startswith(user)] == [f"{user}{n}" for n in range(5)]
    check_queue(queue)
    assert queue.depth().remaining == queue.depth().running == 0
    tracker = TaskStatusTracker(queue.shared_client, queue=queue)
    tracker.task_submitted("own", "somebody", "kind", "c")
    assert tracker.get_all_tasks_global()["somebody"]["own"]["status"] == "waiting"


def test_a_claim_that_waits_is_woken_by_any_shard(
    cluster: tests.services.PrivateCluster, queue: ShardedQueue
) -> None:
    """By the channel of the shard, on its node."""
    with opened(cluster) as other:
        for number, user in enumerate(USERS):
            ran: list[str] = []
            waiting = threading.Thread(target=lambda into=ran: into.extend(run_some(queue, timeout_s=15)))
            waiting.start()
            key, node = f"t:{{{queue.tags[number]}}}:waiting", node_of(cluster, queue, number)
            until(lambda node=node, key=key: node.client.exists(key) == 1)
            other.submit([message(user, content=user)])
            waiting.join(timeout=10)
            assert ran == [user]


def test_a_single_address_and_a_cluster_are_told_apart(cluster: tests.services.PrivateCluster) -> None:
    """The message says what to write."""
    port = cluster.nodes[0].port
    with pytest.raises(ConfigError, match=r"part of a cluster: write redis\+cluster"):
        RedisStreamsQueue(RedisAddress(f"redis://127.0.0.1:{port}/0"), clock=CLOCK)
    several = RedisAddress(f"redis://127.0.0.1:1,127.0.0.1:{port}", connect_timeout_s=1.0)
    with RedisStreamsQueue(several, clock=CLOCK, prefix="one") as one:
        one.submit([message("a", content="here")])
        assert drained(one) == ["here"]
    with pytest.raises(ConfigError, match="number 0 alone"):
        RedisStreamsQueue(RedisAddress(f"redis+cluster://127.0.0.1:{port}/1"), clock=CLOCK)
    with pytest.raises(QueueUnavailable):
        RedisStreamsQueue(RedisAddress("redis+cluster://127.0.0.1:1"), clock=CLOCK, reconnect_s=0.0)


def test_a_dead_node_holds_up_its_own_users_alone(
    cluster: tests.services.PrivateCluster, queue: ShardedQueue
) -> None:
    """The others' work is taken, renewed and settled; a lease there is not taken for lost; it all comes back."""
    queue.policies.put("query", TaskPolicy(ordered=True, concurrency=1, level=1, min_idle_ms=60_000))
    queue.submit([message(user, content=f"{user}{n}") for n in range(2) for user in USERS])
    batches = queue.claim({"query"}, lanes_max=3, batch_max=1, timeout_s=0)
    assert len(batches) == 3
    (held,) = [batch for batch in batches if batch.lane.user_id == USERS[1]]
    dead = node_of(cluster, queue, 1)
    other = opened(cluster)  # who did not claim does not wait for the length of the lease
    dead.kill()
    try:
        with pytest.raises(ShardsUnavailable) as caught:
            queue.renew(batches)
        assert (caught.value.lost, caught.value.unheard) == ((), (held,))
        answers = other.finish_all([Finish(one, [Done()]) for one in batches])
        assert [isinstance(answer, QueueUnavailable) for answer in answers] == [
            one is held for one in batches
        ]
        with pytest.raises(QueueUnavailable):
            queue.submit([message(USERS[1])])
        queue.submit([message(USERS[0], content="meanwhile")])
        assert sorted(drained(queue)) == sorted([f"{USERS[0]}1", "meanwhile", f"{USERS[2]}1"])
        assert run_some(queue, timeout_s=0.3) == []
        with pytest.raises(QueueUnavailable, match="shard 1"):
            queue.depth()
        queue.policies.put("written", TaskPolicy(concurrency=3))
        assert queue.away() == {1}
    finally:
        dead.start()
        other.close()
    until(lambda: not queue.away())
    assert queue.parts[1].read_policies()[1] == queue.parts[0].read_policies()[1]
    assert queue.renew([held]) == []
    queue.finish(held, [Done()])
    assert drained(queue) == [f"{USERS[1]}1"]
    assert queue.depth().remaining == 0
    check_queue(queue)


class Move:
    """A slot on its way from one node to another."""

    def __init__(self, cluster: tests.services.PrivateCluster, slot: int, source: int, target: int) -> None:
        self._cluster, self._slot = cluster, slot
        self._source, self._target = cluster.node_at(source), cluster.node_at(target)
        self._ids = [str(one.client.execute_command("CLUSTER MYID")) for one in (self._source, self._target)]

    def begin(self) -> None:
        self._target.client.execute_command("CLUSTER SETSLOT", self._slot, "IMPORTING", self._ids[0])
        self._source.client.execute_command("CLUSTER SETSLOT", self._slot, "MIGRATING", self._ids[1])

    def keys(self, count: int) -> int:
        """Move so many keys; how many there were."""
        keys = self._source.client.execute_command("CLUSTER GETKEYSINSLOT", self._slot, count)
        if keys:
            self._source.client.execute_command(
                "MIGRATE", "127.0.0.1", self._target.port, "", 0, 5_000, "KEYS", *keys
            )
        return len(keys)

    def end(self) -> None:
        for node in (self._target, self._source, *self._cluster.nodes):
            node.client.execute_command("CLUSTER SETSLOT", self._slot, "NODE", self._ids[1])


def a_move(cluster: tests.services.PrivateCluster, queue: ShardedQueue, number: int) -> Move:
    source = node_of(cluster, queue, number).port
    target = next(node.port for node in cluster.nodes if node.port != source)
    return Move(cluster, slot_of(f"{{{queue.tags[number]}}}"), source, target)


def test_half_a_shard_is_never_seen(cluster: tests.services.PrivateCluster) -> None:
    """While some keys are here and some there every call is refused before it does anything; then it goes on."""
    with opened(cluster, reconnect_s=0.0) as queue:
        half_moved(cluster, queue)


def half_moved(cluster: tests.services.PrivateCluster, queue: ShardedQueue) -> None:
    queue.submit([message(USERS[1], content=f"{n}") for n in range(40)])
    (batch,) = queue.claim({"query"}, lanes_max=1, batch_max=1, timeout_s=0)
    move = a_move(cluster, queue, 1)
    before = node_of(cluster, queue, 1)
    move.begin()
    settled: list[Any] = []
    finishing = threading.Thread(target=lambda: settled.extend(queue.finish(batch, [Done()])))
    finishing.start()  # waits for as long as its lease: its handler has run
    while move.keys(5):
        for call in (
            lambda: queue.submit([message(USERS[1])]),
            lambda: queue.parts[1].look(frozenset({"query"}), 1, None, 0.0, patience_s=0.0),
            lambda: queue.cancel([batch.deliveries[0].key]),
            queue.clear,
        ):
            with pytest.raises(QueueUnavailable):
                call()
    move.end()
    finishing.join(timeout=20)
    assert len(settled) == 1
    until(lambda: not queue.away())
    assert node_of(cluster, queue, 1) is not before
    check_queue(queue)
    assert ["0", *drained(queue)] == [f"{n}" for n in range(40)]
    check_queue(queue)


def test_a_slot_that_moves_under_load_loses_and_repeats_nothing(
    cluster: tests.services.PrivateCluster, queue: ShardedQueue
) -> None:
    """There and back while messages are submitted and run; each runs once, in order, and its channel moves with it."""
    stop = threading.Event()
    accepted: dict[str, list[str]] = {user: [] for user in USERS}
    ran: list[str] = []

    def work() -> None:
        while not stop.is_set() or queue.depth(lanes=False).remaining:
            ran.extend(run_some(queue, timeout_s=0.5))

    worker = threading.Thread(target=work)
    worker.start()
    with open_redis_queue(cluster.address, clock=CLOCK, shards=3, prefix="t", reconnect_s=20.0) as other:
        submitter = threading.Thread(target=submit_until, args=(other, stop, accepted))
        submitter.start()
        for _ in range(2):
            time.sleep(0.3)
            move = a_move(cluster, queue, 1)
            move.begin()
            while move.keys(3):
                time.sleep(0.01)
            move.end()
        time.sleep(0.3)
        stop.set()
        submitter.join(timeout=30)
        worker.join(timeout=30)
    assert not worker.is_alive() and not submitter.is_alive()
    for user in USERS:
        assert len(accepted[user]) > 3
        assert [one for one in ran if one.startswith(f"{user}:")] == accepted[user]
    check_queue(queue)


def submit_until(queue: Any, stop: threading.Event, accepted: dict[str, list[str]]) -> None:
    number = 0
    while not stop.is_set():
        for user in USERS:
            content = f"{user}:{number}"
            queue.submit([message(user, content=content)])
            accepted[user].append(content)
        number += 1


def test_scripts_that_a_node_does_not_know_are_sent_again(
    cluster: tests.services.PrivateCluster, queue: ShardedQueue
) -> None:
    """After a SCRIPT FLUSH, as on a node that a slot has moved to."""
    queue.submit([message(user, content=user) for user in USERS])
    for node in cluster.nodes:
        node.client.script_flush()
    assert sorted(drained(queue)) == sorted(USERS)


def test_a_cluster_that_wants_every_slot_is_away_while_it_has_not(
    cluster: tests.services.PrivateCluster, queue: ShardedQueue
) -> None:
    """A node that refuses all because another is lost is waited for, told as away, and taken back in."""
    for node in cluster.nodes:
        node.client.config_set("cluster-require-full-coverage", "yes")
    dead = node_of(cluster, queue, 1)
    living = [node for node in cluster.nodes if node is not dead]

    def says(node: tests.services.PrivateRedis) -> Any:
        return node.client.execute_command("CLUSTER INFO")["cluster_state"]

    dead.kill()
    try:
        cluster.wait(lambda: all(says(node) == "fail" for node in living))
        with pytest.raises(QueueUnavailable, match="cluster-require-full-coverage"):
            queue.submit([message(USERS[0])])
        with pytest.raises(QueueUnavailable):
            queue.claim({"query"}, lanes_max=3, timeout_s=0)
        with pytest.raises(QueueUnavailable):
            opened(cluster)
        with pytest.raises(QueueUnavailable):
            Layout(cluster.address, clock=CLOCK, prefix="t")
    finally:
        dead.start()
        for node in cluster.nodes:
            node.client.config_set("cluster-require-full-coverage", "no")
    cluster.wait(lambda: all(says(node) == "ok" for node in cluster.nodes))
    until(lambda: not queue.away())
    queue.submit([message(user, content=user) for user in USERS])
    assert sorted(drained(queue)) == sorted(USERS)


def test_where_its_shards_are(cluster: tests.services.PrivateCluster, queue: ShardedQueue) -> None:
    """Of each the tag, the slot, the node that has it, and what it holds."""
    queue.submit([message(USERS[2])] * 3)
    with Layout(cluster.address, clock=CLOCK, prefix="t") as layout:
        rows = layout.rows(queue.tags)
    assert [(one.tag, one.held) for one in rows] == [
        *zip(queue.tags[:2], (0, 0), strict=True),
        (queue.tags[2], 3),
    ]
    for number, one in enumerate(rows):
        assert one.node == f"127.0.0.1:{node_of(cluster, queue, number).port}"


def test_a_replica_takes_over(tmp_path: object) -> None:
    """The primary of a shard is killed for good: its replica goes on with what it was sent."""
    cluster = tests.services.PrivateCluster(replicas=True)
    try:
        with open_redis_queue(cluster.address, clock=CLOCK, shards=3, prefix="t", reconnect_s=20.0) as queue:
            assert isinstance(queue, ShardedQueue)
            queue.submit([message(user, content=f"{user}{n}") for n in range(3) for user in USERS])
            batches = queue.claim({"query"}, lanes_max=3, batch_max=1, timeout_s=0)
            dead = node_of(cluster, queue, 1)
            assert dead.client.execute_command("WAIT", 1, 5_000) == 1
            dead.kill()
            answers = queue.finish_all([Finish(one, [Done()]) for one in batches])
            assert all(isinstance(answer, list) for answer in answers)
            queue.submit([message(USERS[1], content=f"{USERS[1]}3")])
            until(lambda: not queue.away())
            assert node_of(cluster, queue, 1) is not dead
            counts = Counter(drained(queue))
            assert counts == Counter(f"{user}{n}" for user in USERS for n in (1, 2, 3) if (user, n) in _LEFT)
            check_queue(queue)
    finally:
        cluster.close()


_LEFT = {(user, n) for user in USERS for n in (1, 2)} | {(USERS[1], 3)}


def test_the_doctor_looks_at_every_node(cluster: tests.services.PrivateCluster, queue: ShardedQueue) -> None:
    """Shards, slots and nodes are shown; one node that would evict is refused, whichever it is."""
    said = examine(queue)
    assert said.startswith("3 shards on 3 of 3 nodes of redis+cluster://")
    for number, tag in enumerate(queue.tags):
        node = node_of(cluster, queue, number)
        assert (
            f"{tag} (slot {slot_of(f'{{{tag}}}')}): Redis 7" in said
            and f"127.0.0.1:{node.port}, noeviction" in said
        )
        node.client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(QueueError, match=f"127.0.0.1:{node.port} has maxmemory-policy allkeys-lru"):
            examine(queue)
        node.client.config_set("maxmemory-policy", "noeviction")
    cluster.nodes[0].client.config_set("cluster-require-full-coverage", "yes")
    assert examine(queue).count("cluster-require-full-coverage yes") == 1
    cluster.nodes[0].client.config_set("cluster-require-full-coverage", "no")
