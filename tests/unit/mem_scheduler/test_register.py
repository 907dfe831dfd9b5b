"""Registering handlers: what is accepted, what it writes to the policies, what is refused whole."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
from tests.unit.mem_scheduler.parts import Parts, message

from memos.errors import ConfigError, InvalidInput
from memos.mem_scheduler.orchestrator import LEASE_MS_DEFAULT, TaskPolicy
from memos.mem_scheduler.schemas.task_schemas import QUERY_TASK_LABEL, TaskPriorityLevel


def nothing(batch: object) -> None:
    """A handler that does nothing."""


def generator(batch: object) -> Iterator[object]:
    """What a handler must not be: calling it runs nothing."""
    yield batch


async def async_generator(batch: object) -> AsyncIterator[object]:
    """The same, asynchronous."""
    yield batch


@pytest.mark.parametrize(
    "value",
    [
        *("name", 3, None, (), (nothing, 1, 2, 3), ("name", None, None), object()),
        *(generator, async_generator, (generator, 1, None), partial(generator)),
    ],
)
def test_what_cannot_be_called_is_refused_with_its_label(still: Parts, value: object) -> None:
    """One impossible registration refuses the whole call, and names label and value."""
    with pytest.raises(InvalidInput, match="'broken'"):
        still.scheduler.register_handlers({"fine": nothing, "broken": value})
    assert "fine" not in still.scheduler.handlers


def test_a_mapping_is_needed(still: Parts) -> None:
    """A list of functions is no registration."""
    with pytest.raises(InvalidInput, match="mapping"):
        still.scheduler.register_handlers([nothing])  # type: ignore[arg-type]


def test_a_plain_function_writes_no_policy(still: Parts) -> None:
    """Registering a function alone leaves the policy table as it was."""
    before = still.queue.policies.version
    still.scheduler.register_handlers({"job": nothing, QUERY_TASK_LABEL: nothing})
    assert still.queue.policies.version == before


def test_a_tuple_writes_level_and_lease(still: Parts) -> None:
    """The documented triple sets priority and lease length; None leaves a field alone."""
    still.scheduler.register_handlers({"job": (nothing, TaskPriorityLevel.LEVEL_1, 5_000)})
    policy = still.queue.policies.get("job")
    assert (policy.level, policy.min_idle_ms, policy.concurrency) == (TaskPriorityLevel.LEVEL_1, 5_000, 4)
    still.scheduler.register_handlers({"job": (nothing, None, 7_000)})
    policy = still.queue.policies.get("job")
    assert (policy.level, policy.min_idle_ms) == (TaskPriorityLevel.LEVEL_1, 7_000)


def test_a_lease_below_the_floor_is_raised_to_it(still: Parts) -> None:
    """A documented value that could not be renewed in time is raised, not refused."""
    still.scheduler.register_handlers({"job": (nothing, None, 200)})
    assert still.queue.policies.get("job").min_idle_ms == 1_000


@pytest.mark.parametrize("value", [0, -5, "soon", 1.5, True, math.nan, math.inf])
def test_an_impossible_lease_is_refused(still: Parts, value: object) -> None:
    """A lease that is no positive whole number is refused, naming the label."""
    with pytest.raises(InvalidInput, match="'job'"):
        still.scheduler.register_handlers({"job": (nothing, None, value)})
    with pytest.raises(InvalidInput, match="'job'"):
        still.scheduler.orchestrator.tasks_min_idle_ms["job"] = value  # type: ignore[assignment]


def test_a_whole_policy_is_taken(still: Parts) -> None:
    """A TaskPolicy beside the function becomes the label's policy."""
    policy = TaskPolicy(ordered=True, concurrency=1, max_attempts=2)
    still.scheduler.register_handlers({"job": (nothing, policy)})
    assert still.queue.policies.get("job") == policy


def test_a_policy_against_a_built_in_class_is_refused(still: Parts) -> None:
    """Order, concurrency and level of a built-in class cannot be changed by one of its labels."""
    before = still.scheduler.handlers[QUERY_TASK_LABEL]
    with pytest.raises(ConfigError, match="turn"):
        still.scheduler.register_handlers({"job": nothing, QUERY_TASK_LABEL: (nothing, TaskPolicy())})
    assert still.scheduler.handlers[QUERY_TASK_LABEL] is before
    assert "job" not in still.scheduler.handlers


def test_the_priority_of_a_built_in_label_is_ignored(still: Parts) -> None:
    """A documented triple on a built-in label replaces the function and keeps the class's level."""
    still.scheduler.register_handlers({QUERY_TASK_LABEL: (nothing, TaskPriorityLevel.LEVEL_3, None)})
    assert still.scheduler.handlers[QUERY_TASK_LABEL] is nothing
    assert still.queue.policies.get(QUERY_TASK_LABEL).level is TaskPriorityLevel.LEVEL_1


def test_a_plain_function_resets_coalescing(still: Parts) -> None:
    """A new function of a coalescing label is given every message."""
    still.scheduler.register_handlers({"job": (nothing, TaskPolicy(coalesce=True))})
    still.scheduler.register_handlers({"job": nothing})
    assert still.queue.policies.get("job").coalesce is False


def test_a_callable_object_and_a_method_will_do(still: Parts) -> None:
    """Whatever can be called serves as a handler."""

    class Counter:
        count = 0

        def __call__(self, batch: list[object]) -> None:
            self.count += len(batch)

        def other(self, batch: list[object]) -> None:
            self.count += 10 * len(batch)

    counter = Counter()
    still.scheduler.register_handlers({"one": counter, "two": counter.other})
    still.scheduler.submit_messages([message("one"), message("two")])
    still.drain()
    assert counter.count == 11


def test_unregistered_labels_wait(still: Parts) -> None:
    """After unregistering, messages wait; the answer says which labels had a handler."""
    seen: list[object] = []
    still.scheduler.register_handlers({"job": seen.extend})
    assert still.scheduler.unregister_handlers(["job", "never"]) == {"job": True, "never": False}
    still.scheduler.submit_messages(message("job"))
    still.drain()
    assert not seen
    assert still.scheduler.get_tasks_status()["remaining"] == 1


def test_orchestrator_reads_and_writes_the_queues_policies(still: Parts) -> None:
    """The documented mappings are views of the queue's table."""
    orchestrator = still.scheduler.orchestrator
    with pytest.raises(KeyError):
        orchestrator.tasks_min_idle_ms["job"]
    assert orchestrator.tasks_min_idle_ms.get("job") is None
    orchestrator.tasks_min_idle_ms["job"] = 5_000
    orchestrator.tasks_priorities["job"] = TaskPriorityLevel.LEVEL_2
    assert still.queue.policies.get("job").min_idle_ms == 5_000
    assert orchestrator.get_task_idle_min("job") == 5_000
    assert orchestrator.get_task_priority("job") is TaskPriorityLevel.LEVEL_2
    assert dict(orchestrator.tasks_min_idle_ms) == {"job": 5_000}
    assert len(orchestrator.tasks_priorities) == 1
    del orchestrator.tasks_min_idle_ms["job"]
    assert still.queue.policies.get("job").min_idle_ms == LEASE_MS_DEFAULT
    orchestrator.set_task_config("other", priority=1, min_idle_ms=2_000)
    assert still.queue.policies.get("other").level is TaskPriorityLevel.LEVEL_1
    with pytest.raises(InvalidInput, match="priority"):
        orchestrator.set_task_config("other", priority=9)
    with pytest.raises(ConfigError):
        orchestrator.tasks_priorities[QUERY_TASK_LABEL] = TaskPriorityLevel.LEVEL_3


def test_a_lease_set_before_the_handler_keeps_the_registered_concurrency(still: Parts) -> None:
    """Setting a lease for a label nobody serves yet does not pin it to the single slot of unknown labels."""
    still.scheduler.orchestrator.tasks_min_idle_ms["job"] = 5_000
    assert still.queue.policies.get("job").concurrency == TaskPolicy().concurrency
