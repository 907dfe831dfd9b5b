"""Tasks of labels that nobody serves yet wait, and run in order once somebody does; stop and start work."""

from memos.api import handlers
from memos.api.handlers.base_handler import HandlerDependencies
from memos.mem_scheduler.base_scheduler import BaseScheduler
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.utils.status_tracker import TaskStatusTracker
from memos.testing import run_until_idle

components = handlers.init_server()
dependencies = HandlerDependencies.from_init_server(components)
scheduler: BaseScheduler = components["mem_scheduler"]
assert dependencies.mem_scheduler is scheduler
tracker: TaskStatusTracker = scheduler.status_tracker


def message(user: str, number: int) -> ScheduleMessageItem:
    return ScheduleMessageItem(
        item_id=f"{user}-{number}",
        user_id=user,
        mem_cube_id="shop:1/ü",
        label="COUNT STOCK",
        content=str(number),
    )


users = ["ada", "ben:2", "c/3 🦊"]
scheduler.submit_messages([message(user, number) for number in range(40) for user in users])
assert scheduler.get_tasks_status()["remaining"] == 120
assert tracker.get_task_status("ada-0", "ada")["status"] == "waiting"

seen: dict[str, list[int]] = {user: [] for user in users}


def count(messages: list[ScheduleMessageItem]) -> None:
    for one in messages:
        seen[one.user_id].append(int(one.content))


scheduler.stop()
assert not scheduler._running
scheduler.register_handlers({"COUNT STOCK": (count, TaskPolicy(ordered=True, concurrency=1))})
assert scheduler.get_tasks_status()["remaining"] == 120
scheduler.start()
run_until_idle(scheduler, timeout_s=60)
assert all(numbers == list(range(40)) for numbers in seen.values()), seen
assert tracker.get_task_status("c/3 🦊-39", "c/3 🦊")["status"] == "completed"
scheduler.print_tasks_status()
print("OK late_handlers")  # noqa: T201
