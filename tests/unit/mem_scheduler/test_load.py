"""Many users at once, as seen on the trace of dispatched batches."""

from __future__ import annotations

from collections import defaultdict

from tests.unit.mem_scheduler.parts import Parts, message

from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.testing import run_until_idle

USERS = 100
MESSAGES = 20_000
ORDERED = TaskPolicy(ordered=True, concurrency=1, batch_size_max=16)


def backlog(count: int, label: str = "job") -> list[ScheduleMessageItem]:
    return [message(label, str(number), user_id=f"u{number % USERS}") for number in range(count)]


def test_a_backlog_of_many_users_is_served_whole_and_in_order(parts: Parts) -> None:
    """20,000 messages over 100 users on several threads: none lost, none twice, each ordered lane in
    order of submission."""
    seen: dict[str, list[int]] = defaultdict(list)

    def handler(batch: list[ScheduleMessageItem]) -> None:
        for one in batch:
            seen[one.user_id].append(int(one.content))

    parts.scheduler.register_handlers({"job": (handler, ORDERED)})
    parts.scheduler.submit_messages(backlog(MESSAGES))
    parts.scheduler.start()
    run_until_idle(parts.scheduler)
    assert sum(map(len, seen.values())) == MESSAGES
    for user, numbers in seen.items():
        assert numbers == list(range(int(user[1:]), MESSAGES, USERS))
    assert parts.scheduler.monitor.tasks.counts()["job"].completed == MESSAGES


def test_a_late_user_is_served_in_the_next_round(still: Parts) -> None:
    """While 100 users have long backlogs, a message of a new user is among the next batches, one for
    each user at most before it."""
    trace: list[str] = []
    still.scheduler.register_handlers({"job": (lambda batch: trace.append(batch[0].user_id), ORDERED)})
    still.scheduler.submit_messages(backlog(MESSAGES))
    for _ in range(300):
        still.scheduler.run_once()
    still.scheduler.submit_messages(message("job", "late", user_id="late"))
    before = len(trace)
    while "late" not in trace:
        still.scheduler.run_once()
    assert len(trace) - before <= USERS + 1
    assert still.scheduler.get_tasks_status()["remaining"] > MESSAGES // 2
