"""The documented status tracker over a live queue, and for programs of users."""

from __future__ import annotations

from tests.unit.mem_scheduler.parts import USER, Parts, message

from memos.errors import Discard
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.utils.status_tracker import ENTRIES_MAX, TaskStatusTracker, business_state


def test_the_business_rule() -> None:
    """Failed before running, running before completed; cancelled only where all are."""
    waiting, running, done = TaskState.WAITING, TaskState.IN_PROGRESS, TaskState.COMPLETED
    failed, cancelled, retrying = TaskState.FAILED, TaskState.CANCELLED, TaskState.RETRYING
    assert business_state([done, failed, running]) is failed
    assert business_state([done, waiting]) is running
    assert business_state([waiting]) is running
    assert business_state([done, retrying]) is running
    assert business_state([done, done]) is done
    assert business_state([done, cancelled]) is done
    assert business_state([cancelled, cancelled]) is cancelled


def test_statuses_follow_the_queue(still: Parts) -> None:
    """waiting, completed, failed, retrying and cancelled as the queue has them, with their times."""
    tracker = still.scheduler.status_tracker

    def failing(batch: list[object]) -> None:
        raise RuntimeError("once more")

    def discarding(batch: list[object]) -> None:
        raise Discard("never")

    still.scheduler.register_handlers({"ok": lambda batch: None, "bad": failing, "gone": discarding})
    (cancelled,) = still.scheduler.submit_messages(message("nobody", item_id="c"))
    still.scheduler.submit_messages(
        [message("ok", item_id="o", task_id="T"), message("bad", item_id="b"), message("gone", item_id="g")]
    )
    waiting = tracker.get_task_status("o", USER)
    assert waiting is not None
    assert (waiting["status"], waiting["task_type"], waiting["business_task_id"]) == ("waiting", "ok", "T")
    assert "started_at" not in waiting
    assert tracker.get_task_status_by_business_id("T", USER)["status"] == "in_progress"  # type: ignore[index]
    still.queue.cancel([cancelled])
    still.drain()
    every = tracker.get_all_tasks_for_user(USER)
    assert {item: one["status"] for item, one in every.items()} == {
        "c": "cancelled",
        "o": "completed",
        "b": "retrying",
        "g": "failed",
    }
    assert every["b"]["error"] == "RuntimeError: once more"
    assert every["g"]["failed_at"] >= every["g"]["started_at"] >= every["g"]["submitted_at"]
    assert tracker.get_all_tasks_global() == {USER: every}
    assert tracker.get_task_status("o", "somebody else") is None
    assert tracker.get_task_status_by_business_id("unknown", USER) is None


def test_running_is_derived_from_the_lease(still: Parts) -> None:
    """While its handler runs an item is in progress."""
    seen: list[str] = []

    def handler(batch: list[object]) -> None:
        status = still.scheduler.status_tracker.get_task_status("x", USER)
        assert status is not None
        seen.append(status["status"])

    still.scheduler.register_handlers({"job": handler})
    still.scheduler.submit_messages(message("job", item_id="x"))
    still.drain()
    assert seen == ["in_progress"]


def test_an_item_of_several_messages_is_one_task(still: Parts) -> None:
    """Copies that share an item id are aggregated: the item is done when all of them are."""
    scheduler = still.scheduler

    def chain(batch: list[object]) -> None:
        scheduler.submit_messages([one.model_copy(update={"label": "later"}) for one in batch])  # type: ignore[attr-defined]

    scheduler.register_handlers({"first": chain})
    scheduler.submit_messages(message("first", item_id="x", task_id="T"))
    still.drain()
    status = scheduler.status_tracker.get_task_status("x", USER)
    assert status is not None
    assert (status["status"], status["task_type"]) == ("in_progress", "first")
    scheduler.register_handlers({"later": lambda batch: None})
    still.drain()
    whole = scheduler.status_tracker.get_task_status_by_business_id("T", USER)
    assert whole == {
        "status": "completed",
        "business_task_id": "T",
        "item_count": 1,
        "item_statuses": {"x": "completed"},
        "errors": [],
    }


def test_write_methods_serve_programs_without_a_queue() -> None:
    """The documented life of an item that no queue knows."""
    tracker = TaskStatusTracker(None)
    assert tracker.get_task_status("x", "u") is None
    tracker.task_submitted("x", "u", "import", "cube", business_task_id="T")
    tracker.task_submitted("y", "u", "import", "cube", business_task_id="T")
    assert tracker.get_task_status("x", "u")["status"] == "waiting"  # type: ignore[index]
    tracker.task_started("x", "u")
    tracker.task_completed("x", "u")
    tracker.task_failed("y", "u", "disk full")
    whole = tracker.get_task_status_by_business_id("T", "u")
    assert whole is not None
    assert (whole["status"], whole["item_count"], whole["errors"]) == ("failed", 2, ["disk full"])
    assert set(tracker.get_all_tasks_for_user("u")) == {"x", "y"}
    assert tracker.get_all_tasks_global()["u"]["x"]["completed_at"]
    tracker.task_completed("never submitted", "u")
    assert tracker.get_task_status("never submitted", "u") is None


def test_the_table_of_programs_is_bounded() -> None:
    """The oldest entries leave."""
    tracker = TaskStatusTracker()
    for number in range(ENTRIES_MAX + 5):
        tracker.task_submitted(str(number), "u", "t", "c")
    assert len(tracker.get_all_tasks_for_user("u")) == ENTRIES_MAX
    assert tracker.get_task_status("0", "u") is None


def test_the_queue_is_right_where_both_know_an_item(still: Parts) -> None:
    """A program that writes a status for a queued item does not change what the queue says."""
    tracker = still.scheduler.status_tracker
    still.scheduler.submit_messages(message("nobody", item_id="x"))
    tracker.task_submitted("x", USER, "t", "c")
    tracker.task_completed("x", USER)
    assert tracker.get_task_status("x", USER)["status"] == "waiting"  # type: ignore[index]


def test_a_queue_can_be_attached_later(still: Parts) -> None:
    """A tracker made by a program answers from the queue once it is attached."""
    tracker = TaskStatusTracker(None)
    still.scheduler.submit_messages(message("nobody", item_id="x"))
    assert tracker.get_task_status("x", USER) is None
    tracker.attach(still.queue)
    assert tracker.get_task_status("x", USER) is not None
