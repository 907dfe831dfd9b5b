"""Getting messages in: checked as a whole, stamped, chained, kept when nobody serves them."""

from __future__ import annotations

import pytest
from tests.unit.mem_scheduler.parts import Parts, message

from memos import context
from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState

BAD_VALUES = [
    ({"user_id": ""}, "user_id"),
    ({"mem_cube_id": "a" * 513}, "mem_cube_id"),
    ({"content": "nul \x00 inside"}, "content"),
    ({"content": "   "}, "content"),
    ({"item_id": "line\nbreak"}, "item_id"),
]


@pytest.mark.parametrize(("values", "named"), BAD_VALUES)
def test_one_bad_message_refuses_the_whole_call(still: Parts, values: dict[str, str], named: str) -> None:
    """A call with one impossible message queues none of its messages and names the field."""
    bad = ScheduleMessageItem(**{"user_id": "u", "mem_cube_id": "c", "content": "x", **values}, label="job")
    with pytest.raises(InvalidInput, match=named):
        still.scheduler.submit_messages([message("job"), bad])
    assert still.queue.depth().remaining == 0


@pytest.mark.parametrize("value", ["text", {"label": "job"}, 7, None, [{"label": "job"}]])
def test_what_is_no_message_is_refused(still: Parts, value: object) -> None:
    """Anything but messages is refused with a typed error."""
    with pytest.raises(InvalidInput):
        still.scheduler.submit_messages(value)  # type: ignore[arg-type]


def test_ids_of_any_characters_arrive(still: Parts) -> None:
    """Colons, slashes and emoji in ids reach the handler as they were given."""
    seen: list[ScheduleMessageItem] = []
    still.scheduler.register_handlers({"job/1:x": seen.extend})
    still.scheduler.submit_messages(
        message("job/1:x", user_id="a:b/c", mem_cube_id="cube 🙂", item_id="i:1/2", session_id="s:1")
    )
    still.drain()
    assert [(one.user_id, one.mem_cube_id, one.item_id) for one in seen] == [("a:b/c", "cube 🙂", "i:1/2")]


def test_messages_wait_before_start(still: Parts) -> None:
    """Without a started scheduler a message is accepted, counted and visible as waiting."""
    keys = still.scheduler.submit_messages([message("job", item_id="one"), message("job", item_id="two")])
    assert len(set(keys)) == 2
    assert still.scheduler.get_tasks_status() == {"running": 0, "remaining": 2, "pending": 2}
    assert {one.state for one in still.queue.statuses()} == {TaskState.WAITING}


def test_no_messages_is_no_call(still: Parts) -> None:
    """An empty list queues nothing and is no error."""
    assert still.scheduler.submit_messages([]) == []


def test_an_unknown_label_waits_and_runs_once_it_is_registered(still: Parts) -> None:
    """A message nobody serves is kept and reported, and runs after a late registration."""
    still.scheduler.submit_messages(message("later", "kept"))
    assert still.drain() == 0
    assert still.scheduler.unserved_labels() == {"later": 1}
    seen: list[str] = []
    still.scheduler.register_handlers({"later": lambda batch: seen.extend(one.content for one in batch)})
    still.drain()
    assert seen == ["kept"]
    assert still.scheduler.unserved_labels() == {}


def test_a_later_change_by_the_caller_does_not_count(still: Parts) -> None:
    """What is queued is the message as it was at the submit, nested values included."""
    seen: list[ScheduleMessageItem] = []
    still.scheduler.register_handlers({"job": seen.extend})
    mine = message("job", "before", info={"list": [1]})
    still.scheduler.submit_messages(mine)
    mine.content = "after"
    assert mine.info is not None
    mine.info["list"].append(2)
    still.drain()
    assert (seen[0].content, seen[0].info) == ("before", {"list": [1]})
    assert mine.redis_message_id == ""


def test_trace_and_path_are_stamped_only_where_missing(still: Parts) -> None:
    """A message without a trace gets the current one; one that carries its own keeps it."""
    seen: list[ScheduleMessageItem] = []
    still.scheduler.register_handlers({"job": seen.extend})
    with context.bound(trace="the-request", path="/product/add"):
        still.scheduler.submit_messages(
            [message("job", trace_id=""), message("job", trace_id="own", api_path="/own")]
        )
    still.drain()
    assert [(one.trace_id, one.api_path) for one in seen] == [
        ("the-request", "/product/add"),
        ("own", "/own"),
    ]


def test_a_chained_copy_is_a_child_of_the_message_it_copies(still: Parts) -> None:
    """`model_copy` inside a handler gives a new message whose parent is the copied one."""
    scheduler = still.scheduler

    def chain(batch: list[ScheduleMessageItem]) -> None:
        for one in batch:
            scheduler.submit_messages([one.model_copy(update={"label": "child"})])

    scheduler.register_handlers({"parent": chain})
    keys = scheduler.submit_messages([message("parent", item_id=f"item-{n}") for n in range(3)])
    still.drain()
    waiting = [one for one in still.queue.statuses() if one.label == "child"]
    parents = {one.message.item_id: one.parent_key for one in still.queue.get([w.key for w in waiting])}
    assert parents == {f"item-{n}": key for n, key in enumerate(keys)}


def test_a_repeated_handler_chains_the_same_messages(still: Parts) -> None:
    """A handler that chains and then fails chains nothing twice when it runs again."""
    scheduler = still.scheduler
    runs: list[int] = []

    def chain(batch: list[ScheduleMessageItem]) -> None:
        scheduler.submit_messages([message("child", "a"), message("child", "b")])
        runs.append(len(batch))
        if len(runs) < 3:
            raise RuntimeError("after the submit")

    scheduler.register_handlers({"parent": chain})
    scheduler.submit_messages(message("parent"))
    for _ in range(3):
        still.drain()
        still.clock.advance(60.0)  # type: ignore[attr-defined]
    assert len(runs) == 3
    assert (
        sorted(one.label for one in still.queue.statuses() if one.state is TaskState.WAITING) == ["child"] * 2
    )


def test_fresh_messages_out_of_different_batches_never_share_a_key(still: Parts) -> None:
    """Messages that a handler makes anew for a batch get other keys than those made for another batch
    with the same first message: nothing is mistaken for a repeat."""
    scheduler = still.scheduler
    calls: list[list[str]] = []

    def chain(batch: list[ScheduleMessageItem]) -> None:
        calls.append([one.content for one in batch])
        for one in batch:
            scheduler.submit_messages(message("child", f"child of {one.content}"))
        if "poison" in calls[-1] or (calls[-1] == ["a"] and len(calls) < 4):
            raise RuntimeError("not yet")

    scheduler.register_handlers({"parent": chain})
    scheduler.submit_messages([message("parent", content) for content in ("a", "poison")])
    still.drain()
    scheduler.submit_messages(message("parent", "c"))
    for _ in range(6):
        still.clock.advance(60.0)  # type: ignore[attr-defined]
        still.drain()
    made = {one.message.content for one in still.queue.get([s.key for s in still.queue.statuses()])}
    assert {"child of a", "child of c", "child of poison"} <= made


def test_a_submit_inside_a_handler_is_not_refused_by_a_full_queue(still: Parts) -> None:
    """What a handler chains does not count against the bounds: a full queue cannot deadlock the pool."""
    scheduler = still.scheduler
    scheduler.register_handlers(
        {"parent": lambda batch: scheduler.submit_messages([message("child") for _ in range(20_001)])}
    )
    scheduler.submit_messages(message("parent"))
    still.drain()
    assert still.queue.depth().remaining == 20_001
