"""The documented `memos_message_queue`."""

from __future__ import annotations

import pytest

from memos.errors import InvalidInput, LeaseLost
from memos.mem_scheduler.queues.facade import ScheduleTaskQueue
from memos.mem_scheduler.queues.local import LocalQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.testing import ManualClock


def message(label: str = "custom", *, user: str = "user", item: str = "i") -> ScheduleMessageItem:
    return ScheduleMessageItem(item_id=item, user_id=user, mem_cube_id="cube", label=label, content="text")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def queue(clock: ManualClock) -> LocalQueue:
    return LocalQueue(clock=clock)


@pytest.fixture
def face(queue: LocalQueue) -> ScheduleTaskQueue:
    return ScheduleTaskQueue(queue)


def test_messages_take_the_schedulers_way_in(queue: LocalQueue) -> None:
    """One message or several are handed to the `submit` that the scheduler gave."""
    taken: list[list[ScheduleMessageItem]] = []
    face = ScheduleTaskQueue(queue, submit=taken.append)
    one = message()
    face.submit_messages(one)
    face.submit_messages([one, one])
    assert taken == [[one], [one, one]]


def test_without_a_scheduler_messages_are_validated_here(face: ScheduleTaskQueue) -> None:
    """What can never work is refused, all or none."""
    with pytest.raises(InvalidInput, match="user_id"):
        face.submit_messages([message(), message(user="")])
    assert face.qsize() == {"total_size": 0}


def test_sizes(face: ScheduleTaskQueue) -> None:
    """`qsize` counts what waits, by stream and in all; what runs is unfinished, not waiting."""
    assert face.maxsize == 200_000
    assert face.empty()
    face.submit_messages([message(), message(), message("query"), message(user="b")])
    assert face.qsize() == {
        "user/cube/custom": 2,
        "user/cube/turn": 1,
        "b/cube/custom": 1,
        "total_size": 4,
    }
    assert face.get_stream_keys() == ["b/cube/custom", "user/cube/custom", "user/cube/turn"]
    taken = face.get_messages(1)
    assert len(taken) == 1
    assert face.qsize()["total_size"] == 3
    assert face.unfinished_tasks == 4
    assert not face.empty()
    assert not face.full()


def test_messages_taken_by_hand_are_done_when_acknowledged(
    face: ScheduleTaskQueue, queue: LocalQueue
) -> None:
    """get, work, acknowledge: by the documented arguments or by the message itself."""
    face.submit_messages([message(item=f"{n}", user=f"{n}") for n in range(3)])
    taken = face.get_messages(10)
    assert sorted(one.item_id for one in taken) == ["0", "1", "2"]
    assert face.get_messages(10) == []
    for one in taken[:2]:
        face.ack_message(one.user_id, one.mem_cube_id, one.label, one.redis_message_id)
    face.ack_message(message=taken[2])
    assert {row.state for row in queue.statuses()} == {TaskState.COMPLETED}
    assert face.unfinished_tasks == 0


def test_what_is_not_acknowledged_in_time_comes_back(face: ScheduleTaskQueue, clock: ManualClock) -> None:
    """A late acknowledgement says that the message may run again."""
    face.submit_messages(message())
    (late,) = face.get_messages()
    clock.advance(31.0)
    (again,) = face.get_messages()
    assert again.redis_message_id == late.redis_message_id
    face.ack_message(message=again)
    with pytest.raises(LeaseLost):
        face.ack_message(message=late)
    assert face.empty()


def test_a_batch_is_settled_with_its_last_acknowledgement(face: ScheduleTaskQueue, queue: LocalQueue) -> None:
    """Messages that were leased together are finished together."""
    face.submit_messages([message("query") for _ in range(3)])
    for one in face.get_messages(1):
        face.ack_message(message=one)
    first, second = face.get_messages(2)
    face.ack_message(message=first)
    assert queue.depth().running == 2
    face.ack_message(message=second)
    assert queue.depth().running == 0


def test_wrong_calls_name_the_value(face: ScheduleTaskQueue) -> None:
    """A batch of nothing, an acknowledgement of nothing or of what is not held."""
    with pytest.raises(InvalidInput, match="batch_size"):
        face.get_messages(0)
    with pytest.raises(InvalidInput, match="redis_message_id"):
        face.ack_message("user", "cube", "custom")
    with pytest.raises(LeaseLost, match="nope"):
        face.ack_message(redis_message_id="nope")


def test_clear_says_how_many_were_dropped(face: ScheduleTaskQueue) -> None:
    """Waiting and running messages; those that were taken by hand can no longer be acknowledged."""
    face.submit_messages([message(), message(user="b")])
    (taken,) = face.get_messages()
    assert face.clear() == 2
    with pytest.raises(LeaseLost):
        face.ack_message(message=taken)
    assert face.qsize() == {"total_size": 0}
