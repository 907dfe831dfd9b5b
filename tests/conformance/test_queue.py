"""What every task queue promises, one test a promise. See `memos.mem_scheduler.queues.base`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from tests.conformance.queue_model import BACKENDS, message

from memos.errors import ConfigError, InvalidInput, LeaseLost, QueueFull, QueueUnavailable
from memos.mem_scheduler.orchestrator import BUILT_IN_CLASSES, TaskPolicy
from memos.mem_scheduler.queues.base import Batch, Dead, Done, Lane, Outcome, Release, Retry, TaskQueue
from memos.mem_scheduler.schemas.task_schemas import TaskPriorityLevel, TaskState
from memos.memory.store import Followup
from memos.testing import ManualClock

Make = Callable[..., TaskQueue]
TURN = BUILT_IN_CLASSES["turn"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=sorted(BACKENDS))
def make(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Make]:
    opened: list[TaskQueue] = []

    def build(**bounds: object) -> TaskQueue:
        opened.append(BACKENDS[request.param](clock, **bounds))
        return opened[-1]

    yield build
    for queue in opened:
        queue.close()


@pytest.fixture
def queue(make: Make) -> TaskQueue:
    return make()


def claim(queue: TaskQueue, *labels: str, lanes: int = 1, batch: int | None = None) -> list[Batch]:
    return queue.claim(set(labels or ("query",)), lanes_max=lanes, batch_max=batch, timeout_s=0)


def take(queue: TaskQueue, *labels: str) -> Batch:
    (batch,) = claim(queue, *labels)
    return batch


def settle(queue: TaskQueue, batch: Batch, outcome: Outcome | None = None) -> None:
    queue.finish(batch, [outcome or Done()] * len(batch.deliveries))


def drain(queue: TaskQueue, *labels: str) -> list[str]:
    """Run everything that is ready; the keys in the order they were taken."""
    keys: list[str] = []
    while batches := claim(queue, *labels, lanes=8):
        for batch in batches:
            keys += [delivery.key for delivery in batch.deliveries]
            settle(queue, batch)
    return keys


def followup(key: str, label: str = "query", *, user: str = "user", delay_s: float = 0.0) -> Followup:
    return Followup(key.ljust(26, "0"), "P" * 26, message(label, user=user), delay_s)


# -- submit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay_s", [float("inf"), float("-inf"), float("nan")])
def test_a_delay_without_end_is_refused(queue: TaskQueue, delay_s: float) -> None:
    """Of the call and of a chained message; nothing is queued."""
    with pytest.raises(InvalidInput, match="cannot be delayed"):
        queue.submit([message()], delay_s=delay_s)
    with pytest.raises(InvalidInput, match="cannot be delayed"):
        queue.submit([], followups=[followup("F", delay_s=delay_s)], inside_handler=True)
    assert queue.depth().remaining == 0 and not queue.statuses()


def test_keys_are_minted_in_rising_order_whatever_the_item_id_is(queue: TaskQueue) -> None:
    """Every accepted message has a key of its own, also when chained copies repeat the item_id."""
    keys = queue.submit([message(item="same")] * 300)
    assert len(set(keys)) == 300
    assert keys == sorted(keys)
    assert all(len(key) == 26 for key in keys)


def test_a_delivery_names_its_key_and_lane(queue: TaskQueue) -> None:
    """The documented fields of a delivered message are the key and the percent-encoded lane."""
    (key,) = queue.submit([message(user="a/b:c%", cube="🙂")])
    (delivery,) = take(queue).deliveries
    assert delivery.key == delivery.message.redis_message_id == key
    assert delivery.message.stream_key == "a%2Fb%3Ac%25/%F0%9F%99%82/turn"


def test_submit_overwrites_key_and_stream_that_a_chained_copy_brings(queue: TaskQueue) -> None:
    """`model_copy` carries the parent's key along; the child gets its own."""
    queue.submit([message()])
    parent = take(queue).deliveries[0].message
    (child_key,) = queue.submit([parent.model_copy(update={"label": "mem_update"})])
    (child,) = take(queue, "mem_update").deliveries
    assert child.message.redis_message_id == child_key != parent.redis_message_id
    assert child.message.stream_key == "user/cube/memory"


def test_messages_are_copied(queue: TaskQueue) -> None:
    """Neither the caller's nor a handler's later changes reach a second run."""
    original = message(content="as submitted")
    original.info = {"list": [1]}
    queue.submit([original])
    original.content = "changed by the caller"
    original.info["list"].append(2)
    batch = take(queue)
    delivered = batch.deliveries[0].message
    assert (delivered.content, delivered.info) == ("as submitted", {"list": [1]})
    delivered.content = "changed by the handler"
    delivered.info["list"].append(3)
    settle(queue, batch, Retry("again", 0.0))
    again = take(queue).deliveries[0].message
    assert (again.content, again.info) == ("as submitted", {"list": [1]})


def test_a_delivered_message_is_a_whole_message(queue: TaskQueue) -> None:
    """A delivery can be dumped, copied and sent on like any message."""
    sent = message(task="business", content="déjà vu")
    queue.submit([sent])
    got = take(queue).deliveries[0].message
    ours = {"redis_message_id", "stream_key"}
    assert got.model_dump(exclude=ours) == sent.model_dump(exclude=ours)
    assert got.model_copy(update={"label": "x"}).to_dict()["label"] == "x"
    assert type(got).from_json(got.to_json()).task_id == "business"


def test_a_full_lane_refuses_the_whole_call(make: Make) -> None:
    """QueueFull takes none of the call's messages, also not those of lanes with room."""
    queue = make(lane_messages_max=3)
    queue.submit([message()] * 2)
    with pytest.raises(QueueFull, match=r"user/cube/turn holds 2 .* at most 3"):
        queue.submit([message(user="other"), message(), message()])
    assert queue.depth().remaining == 2
    queue.submit([message(), message(user="other")])
    assert queue.depth().remaining == 4


def test_a_full_queue_refuses_until_something_is_settled(make: Make) -> None:
    """Waiting and running messages count; a settled one makes room."""
    queue = make(messages_max=2)
    queue.submit([message(user="a"), message(user="b")])
    batch = take(queue)
    with pytest.raises(QueueFull, match="messages_max"):
        queue.submit([message(user="c")])
    settle(queue, batch)
    queue.submit([message(user="c")])
    assert queue.messages_max == 2


def test_work_chained_inside_a_handler_is_never_refused(make: Make) -> None:
    """A handler of a full queue can finish: its submits and followups neither block nor fail."""
    queue = make(messages_max=1, lane_messages_max=1)
    queue.submit([message()])
    batch = take(queue)
    queue.submit([message()] * 3, inside_handler=True)
    queue.finish(batch, [Done()], followups=[followup("F1"), followup("F2")])
    assert queue.depth().remaining == 5


def test_an_oversized_payload_is_refused(make: Make) -> None:
    """A content above the bound can never work, so it is InvalidInput, counted in bytes."""
    queue = make(payload_bytes_max=10)
    with pytest.raises(InvalidInput, match="payload_bytes_max"):
        queue.submit([message(content="ééééé"), message(content="éééééé")])
    assert queue.depth().remaining == 0
    queue.submit([message(content="ééééé")])


def test_a_repeated_token_is_queued_once(queue: TaskQueue) -> None:
    """A lost reply is repaired by the same call: same keys, nothing twice."""
    first = queue.submit([message(), message()], token="call-1")
    assert queue.submit([message(), message()], token="call-1") == first
    assert queue.submit([message()], token="call-2") != first[:1]
    assert queue.depth().remaining == 3


def test_a_live_followup_is_queued_once(queue: TaskQueue) -> None:
    """A repeated parent chains the same child: one that waits, runs or is dead is recognised."""
    child = followup("CHILD")
    queue.submit([], followups=[child, child])
    assert queue.depth().remaining == 1
    batch = take(queue)
    queue.submit([], followups=[child])
    assert queue.depth().remaining == 0
    settle(queue, batch, Dead("never"))
    queue.submit([], followups=[child])
    assert queue.depth().remaining == 0
    queue.dead.purge()
    queue.submit([], followups=[child])
    assert queue.depth().remaining == 1


def test_a_followup_keeps_its_key_and_parent(queue: TaskQueue) -> None:
    """The key of a chained message is the one that its parent derived."""
    assert queue.submit([message()], followups=[followup("CHILD")])[1] == "CHILD".ljust(26, "0")
    assert drain(queue)[1] == "CHILD".ljust(26, "0")
    queue.submit([], followups=[followup("OTHER")])
    assert take(queue).deliveries[0].parent_key == "P" * 26


def test_a_delayed_message_waits_and_does_not_hold_its_lane(queue: TaskQueue, clock: ManualClock) -> None:
    """A future message lets others of its lane pass (procrastinate#1599), then joins the end."""
    (late,) = queue.submit([message()], delay_s=5.0)
    (first,) = queue.submit([message()])
    assert queue.depth().delayed == 1
    assert drain(queue) == [first]
    clock.advance(4.9)
    assert drain(queue) == []
    clock.advance(0.1)
    assert drain(queue) == [late]


# -- lanes, classes, slots ------------------------------------------------------------------------


def test_an_ordered_lane_runs_strictly_in_order(queue: TaskQueue) -> None:
    """Labels of one class share one order; the next batch waits for the one that runs."""
    keys = queue.submit([message(label) for label in ("query", "answer", "add", "query")])
    seen: list[str] = []
    while batches := claim(queue, "query", "answer", "add", lanes=4):
        assert len(batches) == 1
        assert claim(queue, "query", "answer", "add", lanes=4) == []
        seen += [delivery.key for delivery in batches[0].deliveries]
        settle(queue, batches[0])
    assert seen == keys


def test_lanes_are_user_cube_and_class(queue: TaskQueue) -> None:
    """Another user, cube or class is another lane, which runs beside."""
    queue.submit(
        [message(), message(user="b"), message(cube="d"), message("mem_update"), message("mem_read")]
    )
    batches = claim(queue, "query", "mem_update", "mem_read", lanes=9)
    assert {batch.lane for batch in batches} == {
        Lane("user", "cube", "turn"),
        Lane("b", "cube", "turn"),
        Lane("user", "d", "turn"),
        Lane("user", "cube", "memory"),
        Lane("user", "cube", "background"),
    }


def test_an_unordered_lane_has_as_many_slots_as_its_policy_says(queue: TaskQueue) -> None:
    """A registered label runs four batches of a lane at a time, each in a slot of its own."""
    queue.submit([message("custom")] * 6)
    batches = claim(queue, "custom", lanes=9, batch=1)
    assert sorted(batch.slot for batch in batches) == [0, 1, 2, 3]
    settle(queue, batches[2])
    assert [batch.slot for batch in claim(queue, "custom", lanes=9, batch=1)] == [batches[2].slot]


def test_more_slots_take_effect_at_once(queue: TaskQueue) -> None:
    """A policy that raises the concurrency frees waiting messages; one that lowers it takes none away."""
    queue.policies.put("custom", TaskPolicy(concurrency=1))
    queue.submit([message("custom")] * 3)
    held = claim(queue, "custom", lanes=9, batch=1)
    assert len(held) == 1
    queue.policies.put("custom", TaskPolicy(concurrency=2))
    held += claim(queue, "custom", lanes=9, batch=1)
    assert len(held) == 2
    queue.policies.put("custom", TaskPolicy(concurrency=1))
    assert claim(queue, "custom", lanes=9, batch=1) == []
    for batch in held:
        settle(queue, batch)
    assert len(claim(queue, "custom", lanes=9, batch=1)) == 1


def test_batches_grow_while_they_are_fast_and_shrink_when_slow(queue: TaskQueue, clock: ManualClock) -> None:
    """1, 2, 4 … at most 256 while a batch takes under 50 ms; a slow handler keeps few in flight."""
    queue.submit([message()] * 1_100)
    sizes = []
    for _ in range(10):
        batch = take(queue)
        sizes.append(len(batch.deliveries))
        settle(queue, batch)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]
    batch = take(queue)
    clock.advance(10.0)
    settle(queue, batch)
    assert len(take(queue).deliveries) == 1


def test_a_batch_respects_the_policy_and_the_caller(queue: TaskQueue) -> None:
    """Neither batch_size_max of the label nor batch_max of the claim is exceeded."""
    queue.policies.put("custom", TaskPolicy(batch_size_max=3))
    queue.submit([message("custom")] * 40)
    for _ in range(4):
        settle(queue, take(queue, "custom"))
    assert len(take(queue, "custom").deliveries) == 3
    assert len(claim(queue, "custom", batch=2)[0].deliveries) == 2


@pytest.mark.parametrize(
    "wrong", [{"ordered": False}, {"concurrency": 2}, {"level": TaskPriorityLevel.LEVEL_3}]
)
def test_a_policy_must_agree_with_a_built_in_class(queue: TaskQueue, wrong: dict) -> None:
    """Order, concurrency and level of turn, memory and background cannot be changed label by label."""
    version = queue.policies.version
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        queue.policies.put("query", replace(TURN, **wrong))
    assert (queue.policies.version, queue.policies.labels()) == (version, [])
    queue.policies.put("query", replace(TURN, max_attempts=9))
    assert queue.policies.get("query").max_attempts == 9
    assert (queue.policies.version, queue.policies.labels()) == (version + 1, ["query"])


# -- who serves what ------------------------------------------------------------------------------


def test_a_claim_gets_only_labels_it_names(queue: TaskQueue) -> None:
    """A batch never holds a label that the claim did not ask for; the lane waits behind that head."""
    keys = queue.submit([message("query"), message("answer"), message("query")])
    assert [d.key for d in take(queue, "query").deliveries] == keys[:1]
    assert claim(queue, "query") == []


def test_work_of_an_unserved_label_is_parked_and_comes_back_in_order(
    queue: TaskQueue, clock: ManualClock
) -> None:
    """A lane whose head nobody serves waits whole, visible as parked, and is lost never."""
    keys = queue.submit([message("answer"), message("query"), message("answer")])
    assert claim(queue, "query") == []
    depth = queue.depth()
    assert (depth.parked, depth.queued, depth.remaining) == (3, 0, 3)
    assert depth.lanes[0].parked == {"answer": 2, "query": 1}
    clock.advance(3_600.0)
    assert drain(queue, "query", "answer") == keys


def test_a_lane_that_another_worker_serves_stays_ready(queue: TaskQueue) -> None:
    """Two workers with different labels do not park each other's work."""
    queue.submit([message("query"), message("custom", user="b")])
    held = take(queue, "custom")
    assert claim(queue, "other") == []
    claim(queue, "custom")
    depth = queue.depth()
    assert (depth.queued, depth.parked) == (0, 1)  # nobody asked for "query" yet
    assert len(claim(queue, "query", batch=1)) == 1
    settle(queue, held)


def test_labels_stay_served_while_their_worker_is_busy(queue: TaskQueue, clock: ManualClock) -> None:
    """A worker that is busy for an hour and claims nothing has not left: its lanes are not parked."""
    queue.submit([message(user="a"), message(user="b")])
    held = take(queue)
    for _ in range(180):
        clock.advance(20.0)
        assert queue.renew([held]) == []
    assert queue.depth().queued == 1
    settle(queue, held)
    assert queue.depth().parked == 1


# -- finish ---------------------------------------------------------------------------------------


def test_one_finish_settles_a_mixed_batch(queue: TaskQueue) -> None:
    """Each message has its own outcome; the answer names what became of it."""
    queue.policies.put("custom", TaskPolicy(batch_size_max=8))
    queue.submit([message("custom")] * 7)
    for _ in range(2):
        settle(queue, take(queue, "custom"))
    batch = take(queue, "custom")
    assert len(batch.deliveries) == 4
    settled = queue.finish(batch, [Done(), Retry("flaky", 9.0), Dead("bad"), Release()])
    assert [one.state for one in settled] == [
        TaskState.COMPLETED,
        TaskState.RETRYING,
        TaskState.FAILED,
        TaskState.WAITING,
    ]
    assert [one.error for one in settled] == ["", "flaky", "bad", ""]
    depth = queue.depth()
    assert (depth.running, depth.queued, depth.delayed, depth.dead) == (0, 1, 1, 1)


@pytest.mark.parametrize("outcomes", [[], [Done(), Done()], ["done"]])
def test_a_finish_that_does_not_fit_the_batch_changes_nothing(queue: TaskQueue, outcomes: list) -> None:
    """A wrong number or kind of outcomes is refused and the batch stays held."""
    queue.submit([message()])
    batch = take(queue)
    with pytest.raises(InvalidInput):
        queue.finish(batch, outcomes)
    assert queue.depth().running == 1
    settle(queue, batch)


def test_followups_are_queued_in_the_step_that_finishes_their_parent(queue: TaskQueue) -> None:
    """There is no moment at which the parent is done and the child not there."""
    queue.submit([message()])
    queue.finish(take(queue), [Done()], followups=[followup("C", "mem_update")])
    depth = queue.depth()
    assert (depth.running, depth.remaining) == (0, 1)
    assert take(queue, "mem_update").deliveries[0].key == "C".ljust(26, "0")


def test_a_strict_retry_blocks_its_lane_until_it_is_due(queue: TaskQueue, clock: ManualClock) -> None:
    """The failed head stays first; nothing of its lane overtakes it, other lanes go on."""
    keys = queue.submit([message(), message()])
    other = queue.submit([message(user="b")])
    (batch,) = [b for b in claim(queue, lanes=2, batch=1) if b.lane.user_id == "user"]
    settle(queue, batch, Retry("down", 5.0))
    assert drain(queue) == []
    clock.advance(5.0)
    assert drain(queue) == keys
    assert not queue.live(keys) and queue.live(other)


def test_an_aside_retry_lets_its_lane_pass(queue: TaskQueue, clock: ManualClock) -> None:
    """With retry_order=aside the failed message joins the end when due."""
    queue.policies.put("query", replace(TURN, retry_order="aside"))
    keys = queue.submit([message(), message()])
    settle(queue, take(queue), Retry("down", 5.0))
    assert drain(queue) == keys[1:]
    clock.advance(5.0)
    assert drain(queue) == keys[:1]


def test_a_batch_handed_back_in_parts_keeps_its_order(queue: TaskQueue) -> None:
    """After a failure in the middle the rest of an ordered batch runs again behind it, in order."""
    keys = queue.submit([message()] * 7)
    settle(queue, take(queue))
    settle(queue, take(queue))
    batch = take(queue)
    queue.finish(batch, [Done(), Retry("x", 0.0), Release(), Release()])
    assert drain(queue) == keys[4:]


def test_failures_are_bounded_by_max_attempts(queue: TaskQueue) -> None:
    """A message that always fails is dead after max_attempts runs, with its last error."""
    queue.policies.put("query", replace(TURN, max_attempts=3))
    (key,) = queue.submit([message()])
    for run in range(3):
        batch = take(queue)
        assert batch.deliveries[0].attempts == run
        settle(queue, batch, Retry(f"error {run}", 0.0))
    letter = queue.dead.show(key)
    assert (letter.attempts, letter.error) == (3, "error 2")
    assert claim(queue) == []


def test_asking_for_later_is_not_a_failure(queue: TaskQueue, clock: ManualClock) -> None:
    """Retry(counts=False) spends no attempt."""
    queue.policies.put("custom", TaskPolicy(max_attempts=1))
    queue.submit([message("custom")])
    for _ in range(5):
        settle(queue, take(queue, "custom"), Retry("not yet", 1.0, counts=False))
        clock.advance(1.0)
    assert take(queue, "custom").deliveries[0].attempts == 0


def test_a_strict_retry_blocks_its_lane_for_at_most_block_s_max(queue: TaskQueue, clock: ManualClock) -> None:
    """However long the handler asks for, the lane goes on after block_s_max, without the head."""
    queue.policies.put("query", replace(TURN, block_s_max=60.0, max_attempts=99))
    first, second = queue.submit([message(), message()])
    settle(queue, take(queue), Retry("down", 3_600.0))
    clock.advance(59.0)
    assert claim(queue) == []
    clock.advance(1.0)
    settle(queue, claim(queue, batch=1)[0], Retry("still down", 3_600.0))
    assert queue.dead.show(first).error.startswith("still down (it blocked its lane")
    assert drain(queue) == [second]


def test_backoff_is_random_and_bounded(queue: TaskQueue, clock: ManualClock) -> None:
    """Without a delay of its own a retry comes within min(max, base * 2^attempts), not always late."""
    queue.policies.put(
        "custom", TaskPolicy(backoff_base_s=1.0, backoff_max_s=3.0, max_attempts=2, concurrency=999)
    )
    queue.submit([message("custom")] * 200)
    for batch in claim(queue, "custom", lanes=200, batch=1):
        settle(queue, batch, Retry("flaky"))
    due_by = []
    for _ in range(4):
        clock.advance(0.5)
        due_by.append(len(claim(queue, "custom", lanes=200, batch=1)))
    assert sum(due_by) == 200
    assert all(20 < count < 90 for count in due_by)


# -- leases ---------------------------------------------------------------------------------------


def test_a_lost_lease_is_claimed_again_and_the_late_finish_changes_nothing(
    queue: TaskQueue, clock: ManualClock
) -> None:
    """Who lost a lease is told so: neither its outcome nor its followups count."""
    (key,) = queue.submit([message()])
    stale = take(queue)
    clock.advance(30.0)
    fresh = take(queue)
    assert fresh.deliveries[0].key == key
    assert fresh.deliveries[0].recoveries == 1
    assert fresh.epoch > stale.epoch and fresh.slot == stale.slot
    with pytest.raises(LeaseLost):
        queue.finish(stale, [Dead("late")], followups=[followup("GHOST")])
    assert queue.depth().remaining == 0
    assert queue.renew([stale, fresh]) == [stale]
    settle(queue, fresh)
    assert queue.statuses()[0].state is TaskState.COMPLETED
    assert queue.dead.list() == []


def test_a_renewed_lease_is_never_started_twice(queue: TaskQueue, clock: ManualClock) -> None:
    """A long task that renews is not reclaimed, however old it is (taskiq-redis#101, celery#5935)."""
    queue.submit([message()])
    batch = take(queue)
    for _ in range(100):
        clock.advance(25.0)
        assert queue.renew([batch]) == []
        assert claim(queue) == []
    settle(queue, batch)


def test_a_result_that_arrives_before_anybody_took_over_counts(queue: TaskQueue, clock: ManualClock) -> None:
    """Rescue does not overwrite a job that completed meanwhile (river#1302)."""
    queue.submit([message()])
    batch = take(queue)
    clock.advance(31.0)
    settle(queue, batch)
    assert claim(queue) == []
    assert queue.statuses()[0].state is TaskState.COMPLETED


def test_after_a_lost_lease_the_poison_message_alone_is_blamed(queue: TaskQueue, clock: ManualClock) -> None:
    """The lane goes on one message at a time; who kills its worker again and again is dead."""
    queue.policies.put("query", replace(TURN, max_recoveries=2))
    keys = queue.submit([message()] * 7)
    settle(queue, take(queue))
    settle(queue, take(queue))
    batch = take(queue)
    assert len(batch.deliveries) == 4
    poison = batch.deliveries[1].key
    clock.advance(30.0)
    done = []
    while batches := claim(queue):
        (delivery,) = batches[0].deliveries
        if delivery.key == poison:
            clock.advance(30.0)
        else:
            done.append(delivery.key)
            settle(queue, batches[0])
    assert done == [key for key in keys[3:] if key != poison]
    assert [letter.key for letter in queue.dead.list()] == [poison]
    assert queue.dead.show(poison).recoveries == 3


def test_a_suspect_goes_alone_until_it_is_settled(queue: TaskQueue, clock: ManualClock) -> None:
    """Also after a retry, when batches grow again, nothing else shares its batch."""
    keys = queue.submit([message()] * 3)
    take(queue)
    clock.advance(30.0)
    for _ in range(3):
        batch = take(queue)
        assert [delivery.key for delivery in batch.deliveries] == keys[:1]
        settle(queue, batch, Retry("again", 0.0))
    settle(queue, take(queue))
    assert [delivery.key for delivery in take(queue).deliveries] == keys[1:]


def test_lease_lengths_follow_the_policy_at_once(queue: TaskQueue, clock: ManualClock) -> None:
    """A shorter min_idle_ms shortens leases that are held, a longer one prolongs them."""
    queue.submit([message("custom"), message("other")])
    take(queue, "custom")
    other = take(queue, "other")
    queue.policies.put("custom", TaskPolicy(min_idle_ms=5_000))
    queue.policies.put("other", TaskPolicy(min_idle_ms=100_000))
    clock.advance(5.0)
    assert len(claim(queue, "custom", "other", lanes=2)) == 1
    clock.advance(90.0)
    assert [b.lane.task_class for b in claim(queue, "custom", "other", lanes=2)] == ["custom"]
    settle(queue, other)


def test_the_lease_of_a_batch_is_the_shortest_of_its_labels(queue: TaskQueue, clock: ManualClock) -> None:
    """A batch of several labels is watched as closely as its strictest label asks."""
    queue.policies.put("answer", replace(TURN, min_idle_ms=2_000))
    queue.submit([message("query"), message("query"), message("answer")])
    settle(queue, take(queue, "query", "answer"))
    queue.submit([message("query")])
    batch = take(queue, "query", "answer")
    assert batch.expires_at == clock.now() + (2.0 if len(batch.deliveries) > 1 else 30.0)
    settle(queue, batch)
    batch = take(queue, "query", "answer")
    assert batch.deliveries[0].message.label == "answer"
    assert batch.expires_at == clock.now() + 2.0


def test_a_step_of_the_wall_clock_loses_no_lease(queue: TaskQueue, clock: ManualClock) -> None:
    """Leases and delays do not run on a clock that an operator may set."""
    queue.submit([message()])
    queue.submit([message(user="later")], delay_s=10.0)
    batch = take(queue)
    clock.step_wall(86_400.0)
    assert claim(queue) == []
    clock.step_wall(-2 * 86_400.0)
    clock.advance(10.0)
    assert [b.lane.user_id for b in claim(queue, lanes=2)] == ["later"]
    settle(queue, batch)


def test_released_messages_are_untouched(queue: TaskQueue) -> None:
    """A graceful stop hands back: same order, no attempt, no recovery, ready at once."""
    keys = queue.submit([message()] * 3)
    settle(queue, take(queue))
    settle(queue, take(queue), Release())
    batch = take(queue)
    assert [delivery.key for delivery in batch.deliveries] == keys[1:]
    assert all((d.attempts, d.recoveries) == (0, 0) for d in batch.deliveries)


# -- cancel, clear --------------------------------------------------------------------------------


def test_cancel_takes_out_what_waits_and_flags_what_runs(queue: TaskQueue) -> None:
    """A cancelled waiting message never runs; a running one can see that it was asked to stop."""
    running, queued, kept = queue.submit([message()] * 3)
    (delayed,) = queue.submit([message()], delay_s=5.0)
    batch = take(queue)
    assert queue.cancel([running, queued, delayed, "unknown"]) == [queued, delayed]
    assert [queue.is_cancelled(key) for key in (running, queued, kept)] == [True, True, False]
    assert queue.finish(batch, [Retry("stopped half-way", 0.0)])[0].state is TaskState.CANCELLED
    assert drain(queue) == [kept]
    assert queue.depth().remaining == 0


def test_a_key_may_be_named_twice(queue: TaskQueue) -> None:
    """Cancel, retry and purge take what is named once, however often it is named."""
    waiting, other = queue.submit([message(), message()])
    (later,) = queue.submit([message()], delay_s=5.0)
    assert sorted(queue.cancel([waiting, later, waiting, later])) == sorted([waiting, later])
    settle(queue, take(queue), Dead("x"))
    assert queue.dead.retry([other, other]) == 1
    settle(queue, take(queue), Dead("x"))
    assert queue.dead.purge([other, other]) == 1
    assert (queue.depth().remaining, queue.depth().dead) == (0, 0)


def test_what_was_handed_back_and_cancelled_stands_in_nobodys_way(queue: TaskQueue) -> None:
    """The lane goes on with what comes after it, while another batch of it still runs."""
    queue.policies.put("free", TaskPolicy(concurrency=2, batch_size_max=1))
    _, second = queue.submit([message("free"), message("free")])
    running, handed_back = claim(queue, "free", lanes=2)
    settle(queue, handed_back, Release())
    assert queue.cancel([second]) == [second]
    (third,) = queue.submit([message("free")])
    assert [delivery.key for delivery in take(queue, "free").deliveries] == [third]
    settle(queue, running)
    assert (queue.depth().remaining, queue.depth().running) == (0, 1)


def test_clear_drops_waiting_work_and_fences_running_work(queue: TaskQueue) -> None:
    """Everything is marked cancelled, a late finish is refused, dead letters stay, ids work again."""
    settle_dead = queue.submit([message()])
    settle(queue, take(queue), Dead("x"))
    keys = queue.submit([message(item="0"), message(item="1")], token="t")
    keys += queue.submit([message(item="2")], delay_s=9.0)
    batch = take(queue)
    assert queue.clear() == 3
    with pytest.raises(LeaseLost):
        settle(queue, batch)
    assert queue.renew([batch]) == [batch]
    assert {row.state for row in queue.statuses() if row.key in keys} == {TaskState.CANCELLED}
    assert all(queue.is_cancelled(key) for key in keys)
    assert queue.live([*keys, *settle_dead]) == set(settle_dead)
    again = queue.submit([message(item="0")], token="t")
    assert not set(again) & set(keys)
    assert drain(queue) == again


# -- dead letters ---------------------------------------------------------------------------------


def bury(queue: TaskQueue, *messages: object) -> list[str]:
    keys = queue.submit(list(messages))
    labels = {one.label for one in messages}
    while batches := queue.claim(labels, lanes_max=9, timeout_s=0):
        for batch in batches:
            settle(queue, batch, Dead("because"))
    return keys


def test_dead_letters_are_listed_newest_first_and_filtered(queue: TaskQueue, clock: ManualClock) -> None:
    """A letter keeps its message, its error and its times."""
    (a,) = bury(queue, message("query", user="a", content="payload"))
    clock.advance(1.0)
    (b,) = bury(queue, message("custom", user="b"))
    assert [letter.key for letter in queue.dead.list()] == [b, a]
    assert [letter.key for letter in queue.dead.list(label="query")] == [a]
    assert [letter.key for letter in queue.dead.list(user_id="b")] == [b]
    assert [letter.key for letter in queue.dead.list(limit=1)] == [b]
    letter = queue.dead.show(a)
    assert (letter.message.content, letter.error) == ("payload", "because")
    assert letter.died_at == letter.first_at == clock.now() - 1.0
    with pytest.raises(InvalidInput, match="no dead letter 'nope'"):
        queue.dead.show("nope")


def test_a_dead_letter_is_edited_and_retried_with_fresh_budgets(queue: TaskQueue) -> None:
    """It joins the end of its lane, with the new payload and no attempts spent."""
    (dead,) = bury(queue, message(content="brokn"))
    assert queue.dead.edit(dead, "fixed").message.content == "fixed"
    (waiting,) = queue.submit([message()])
    assert queue.dead.retry([dead, "unknown"]) == 1
    assert queue.depth().dead == 0
    first, second = take(queue).deliveries
    assert first.key == waiting
    assert (second.key, second.message.content, second.attempts) == (dead, "fixed", 0)


def test_purged_letters_are_gone_for_good(queue: TaskQueue) -> None:
    """They are no longer live, but their status still says failed."""
    keys = bury(queue, message(user="a"), message(user="b"))
    assert queue.dead.purge(keys[:1]) == 1
    assert queue.dead.purge() == 1
    assert queue.live(keys) == set()
    assert {row.state for row in queue.statuses()} == {TaskState.FAILED}


def test_dead_letters_are_bounded(make: Make) -> None:
    """The oldest leave first; of one user, as a queue in shards counts those of each shard."""
    queue = make(dead_letters_max=2)
    keys = [bury(queue, message(cube=str(n)))[0] for n in range(3)]
    assert [letter.key for letter in queue.dead.list()] == keys[:0:-1]
    assert queue.depth().dead == 2


# -- status ---------------------------------------------------------------------------------------


def test_status_follows_a_message_through_its_life(queue: TaskQueue, clock: ManualClock) -> None:
    """waiting, in_progress, retrying, in_progress, completed: with the times of each."""
    queue.submit([message(item="i", task="t")])

    def status() -> tuple[TaskState, float, float | None, float | None, int, str]:
        (row,) = queue.statuses(item_id="i")
        start = clock.now() - clock.monotonic()
        times = [None if at is None else at - start for at in (row.started_at, row.finished_at)]
        return (row.state, row.submitted_at - start, *times, row.attempts, row.error)

    assert status() == (TaskState.WAITING, 0.0, None, None, 0, "")
    clock.advance(1.0)
    batch = take(queue)
    assert status() == (TaskState.IN_PROGRESS, 0.0, 1.0, None, 0, "")
    clock.advance(1.0)
    settle(queue, batch, Retry("oops", 1.0))
    assert status() == (TaskState.RETRYING, 0.0, 1.0, None, 1, "oops")
    clock.advance(1.0)
    batch = take(queue)
    clock.advance(1.0)
    settle(queue, batch)
    assert status() == (TaskState.COMPLETED, 0.0, 3.0, 4.0, 1, "")


def test_statuses_are_found_by_user_item_and_business_task(queue: TaskQueue) -> None:
    """Newest submit first; an item_id that several messages share gives all of them."""
    keys = queue.submit(
        [
            message(user="a", item="1", task="T"),
            message(user="b", item="1", task="T"),
            message(user="a", item="2"),
        ]
    )
    assert [row.key for row in queue.statuses()] == keys[::-1]
    assert [row.key for row in queue.statuses(limit=1)] == keys[2:]
    assert [row.key for row in queue.statuses(item_id="1")] == [keys[1], keys[0]]
    assert [row.key for row in queue.statuses(item_id="1", user_id="a")] == [keys[0]]
    assert [row.key for row in queue.statuses(task_id="T", user_id="b")] == [keys[1]]
    assert [row.key for row in queue.statuses(user_id="a")] == [keys[2], keys[0]]
    assert queue.statuses(user_id="nobody") == queue.statuses(task_id="none") == []


def test_statuses_are_bounded_by_number_and_age(make: Make, clock: ManualClock) -> None:
    """Settled rows leave, the oldest first, after 7 days at the latest; live ones never."""
    queue = make(status_entries_max=3)
    (live,) = queue.submit([message("unserved")])
    keys = queue.submit([message(cube=str(n)) for n in range(5)])
    drain(queue)
    assert [row.key for row in queue.statuses()] == [*keys[:1:-1], live]
    clock.advance(7 * 86_400.0)
    assert [row.key for row in queue.statuses()] == [live]


def test_depth_tells_labels_and_times(queue: TaskQueue, clock: ManualClock) -> None:
    """Per lane and label what waits, is delayed and runs; per label how long it waited and ran."""
    queue.submit([message("query"), message("answer"), message("answer")])
    queue.submit([message("add")], delay_s=60.0)
    clock.advance(2.0)
    batch = take(queue, "query", "answer", "add")
    clock.advance(3.0)
    (lane,) = queue.depth().lanes
    assert lane.lane == Lane("user", "cube", "turn")
    assert (lane.running, lane.queued, lane.delayed) == ({"query": 1}, {"answer": 2}, {"add": 1})
    totals = queue.depth(lanes=False)
    assert (totals.lanes, totals.running, totals.remaining) == ((), 1, 3)
    settle(queue, batch)
    times = queue.depth().times["query"]
    assert (times.waiting_p50, times.waiting_p95, times.running_p50, times.running_p95) == (2, 2, 3, 3)


def test_live_messages_can_be_read_back(queue: TaskQueue) -> None:
    """`get` gives waiting and running messages, not settled, dead or unknown ones."""
    (dead,) = bury(queue, message(user="z"))
    running, waiting = queue.submit([message(content="r"), message(content="w")])
    batch = take(queue)
    found = queue.get([waiting, dead, "unknown", running])
    assert [(d.key, d.message.content) for d in found] == [(waiting, "w"), (running, "r")]
    settle(queue, batch)
    assert queue.get([running]) == []


# -- coalescing -----------------------------------------------------------------------------------


@pytest.fixture
def merging(queue: TaskQueue) -> TaskQueue:
    queue.policies.put("mem_update", replace(BUILT_IN_CLASSES["memory"], coalesce=True))
    return queue


def test_the_newest_of_coalesced_messages_runs_for_all(merging: TaskQueue) -> None:
    """The older ones do not run; they are done when the newest is."""
    keys = merging.submit([message("mem_update", content=text) for text in ("old", "older", "newest")])
    assert merging.depth().remaining == 1
    assert merging.live(keys) == set(keys)
    batch = take(merging, "mem_update")
    assert [delivery.message.content for delivery in batch.deliveries] == ["newest"]
    assert {row.state for row in merging.statuses()} == {TaskState.IN_PROGRESS}
    settle(merging, batch)
    assert {row.state for row in merging.statuses()} == {TaskState.COMPLETED}
    assert claim(merging, "mem_update") == []


def test_coalescing_keeps_the_order_of_the_lane_and_spares_running_work(merging: TaskQueue) -> None:
    """The survivor stands where it was submitted; what runs or was tried is left alone."""
    merging.submit([message("mem_update", content="running")])
    batch = take(merging, "mem_update")
    merging.submit(
        [
            message("mem_update", content="a"),
            message("pref_add", content="p"),
            message("mem_update", content="b"),
            message("mem_update", user="other", content="o"),
        ]
    )
    settle(merging, batch, Retry("again", 0.0))
    seen = []
    while batches := claim(merging, "mem_update", "pref_add", batch=1):
        seen += [d.message.content for d in batches[0].deliveries if batches[0].lane.user_id == "user"]
        settle(merging, batches[0])
    assert seen == ["running", "p", "b"]


def test_cancelling_the_survivor_brings_the_next_back(merging: TaskQueue) -> None:
    """What was coalesced is not lost with the message that would have run for it."""
    old, middle, newest = merging.submit([message("mem_update", content=c) for c in ("o", "m", "n")])
    assert merging.cancel([newest]) == [newest]
    assert merging.cancel([old]) == [old]
    assert [d.message.content for d in take(merging, "mem_update").deliveries] == ["m"]
    assert merging.live([old, middle, newest]) == {middle}


def test_coalesced_messages_share_the_survivors_dead_letter(merging: TaskQueue) -> None:
    """They fail with it and come back with it."""
    keys = merging.submit([message("mem_update"), message("mem_update")])
    settle(merging, take(merging, "mem_update"), Dead("x"))
    assert {row.state for row in merging.statuses()} == {TaskState.FAILED}
    assert merging.live(keys) == set(keys)
    merging.dead.retry()
    settle(merging, take(merging, "mem_update"))
    assert {row.state for row in merging.statuses()} == {TaskState.COMPLETED}


def test_nobody_is_put_off_without_end(merging: TaskQueue) -> None:
    """One message runs for a bounded number of others; then a new one stands beside it."""
    merging.submit([message("mem_update")] * 100)
    assert merging.depth().remaining == 2


def test_clear_leaves_what_waits_with_a_dead_letter(merging: TaskQueue) -> None:
    """It is part of the letter: not counted as cleared, and it comes back with a retry."""
    keys = merging.submit([message("mem_update"), message("mem_update")])
    settle(merging, take(merging, "mem_update"), Dead("x"))
    merging.submit([message("mem_update", cube="other")])
    assert merging.clear() == 1
    assert merging.live(keys) == set(keys)
    assert [row.state for row in merging.statuses() if row.key in keys] == [TaskState.FAILED] * 2
    merging.dead.retry()
    (delivery,) = take(merging, "mem_update").deliveries
    assert [one.redis_message_id for one in delivery.absorbed] == keys[:1]


def test_a_label_may_stop_coalescing_and_begin_again(merging: TaskQueue) -> None:
    """What came while it did not keeps its place before what is coalesced later."""
    whole = replace(BUILT_IN_CLASSES["memory"], batch_size_max=1)
    merging.submit([message("mem_update", content="first")])
    merging.policies.put("mem_update", replace(whole, coalesce=False))
    merging.submit([message("mem_update", content="alone")])
    merging.policies.put("mem_update", replace(whole, coalesce=True))
    merging.submit([message("mem_update", content="last")])
    seen: list[str] = []
    while batches := claim(merging, "mem_update", batch=1):
        for delivery in batches[0].deliveries:
            seen += [one.content for one in (*delivery.absorbed, delivery.message)]
        settle(merging, batches[0])
    assert seen == ["first", "alone", "last"]


# -- closing --------------------------------------------------------------------------------------


def test_a_closed_queue_takes_no_work_and_lets_running_work_end(queue: TaskQueue) -> None:
    """submit and claim raise QueueUnavailable; a finish still counts."""
    queue.submit([message()])
    batch = take(queue)
    queue.close()
    with pytest.raises(QueueUnavailable):
        queue.submit([message()])
    with pytest.raises(QueueUnavailable):
        claim(queue)
    settle(queue, batch)
    assert queue.statuses()[0].state is TaskState.COMPLETED


@pytest.mark.parametrize("bad", [{"lanes_max": 0}, {"lanes_max": 1, "batch_max": 0}])
def test_a_claim_of_nothing_is_refused(queue: TaskQueue, bad: dict) -> None:
    """A claim that could never return work names the value."""
    with pytest.raises(InvalidInput, match="at least 1"):
        queue.claim({"query"}, timeout_s=0, **bad)
