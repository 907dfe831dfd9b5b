"""What follows one batch is its own affair, whatever was settled in the same call."""

from __future__ import annotations

from collections.abc import Sequence

from tests.unit.mem_scheduler.parts import Parts, message

from memos.mem_scheduler.schemas.task_schemas import TASK_STATUS_LOG
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.testing import RecordingSink


class BreaksFor(RecordingSink):
    """A sink of a user's own with a fault that shows at one task."""

    def __init__(self, task_id: str) -> None:
        super().__init__()
        self._task_id = task_id

    def emit(self, logs: Sequence[ScheduleLogForWebItem]) -> None:
        if any(one.task_id == self._task_id for one in logs):
            raise AttributeError("a fault of the sink")
        super().emit(logs)


def test_a_fault_in_what_follows_one_batch_leaves_the_others_theirs(still: Parts) -> None:
    """All are settled and counted, and the task of the other batch is told."""
    sink = BreaksFor("T0")
    still.scheduler._settlement._sink = sink
    still.scheduler.register_handlers({"job": lambda batch: None})
    users = ["user 0", "user 1"]
    still.scheduler.submit_messages(
        [message("job", user_id=user, task_id=f"T{number}") for number, user in enumerate(users)]
    )
    dispatcher = still.scheduler.dispatcher
    batches = still.queue.claim({"job"}, lanes_max=2, batch_max=1, timeout_s=0)
    assert [batch.lane.user_id for batch in batches] == users
    assert dispatcher.settle([dispatcher.handle(batch) for batch in batches]) == [True, True]
    depth = still.queue.depth()
    assert (depth.remaining, depth.running) == (0, 0)
    assert still.scheduler._tasks.counts()["job"].completed == 2
    assert [(one.label, one.task_id) for one in sink.logs if one.label == TASK_STATUS_LOG] == [
        (TASK_STATUS_LOG, "T1")
    ]
